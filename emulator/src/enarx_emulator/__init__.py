"""EMULATED trusted execution environments for development and tests. Nothing here protects anything.

The platform is emulated, never the code that runs on it: firmware, processors and vendors are played in the vendors'
byte formats under development roots, so that the same keep, the same verifier and the same policy can be run where no
such hardware is. The vendors' roots reject all of it.
"""

__version__ = "0.1.0"
