"""Keeps on real TEEs of this machine, one file for each: entry points of the group ``enarx.backends``."""
