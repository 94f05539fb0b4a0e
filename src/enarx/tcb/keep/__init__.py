"""The runtime of a keep; never imported from outside this folder.

A keep is one process that runs one workload once. ``boot`` tells its life in order.
"""
