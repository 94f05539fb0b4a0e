"""EMULATED Intel: processors with SGX, TDX modules, architectural enclaves, and the services that vouch for them."""
