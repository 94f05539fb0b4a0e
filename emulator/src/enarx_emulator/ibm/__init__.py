"""EMULATED Protected Execution Facility of IBM POWER: the ultravisor and the tenant's ESM blob."""
