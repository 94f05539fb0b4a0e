"""The thin shell around all of it: arguments to library calls to output.

Results go to standard output, everything else to standard error with the prefix ``enarx:``. A command's
module is loaded when the command is used, and loads what it needs in its functions: starting must stay fast.
"""
