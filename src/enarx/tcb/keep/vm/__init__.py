"""A keep that is a virtual machine: what its kernel starts first, and nothing else ever runs beside the keep."""
