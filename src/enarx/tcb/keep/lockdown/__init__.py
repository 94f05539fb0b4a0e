"""Defence in depth on Linux: a keep's process gives up everything that a workload does not need."""
