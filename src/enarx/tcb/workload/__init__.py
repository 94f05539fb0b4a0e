"""What a tenant hands over: configuration, module, files, limits; and what became of it. Pure."""

from enarx.tcb.workload._tree import Entry, EntryKind, Tree

__all__ = ["Entry", "EntryKind", "Tree"]
