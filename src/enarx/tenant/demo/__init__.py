"""The tenants of the attested demos, and the enclave that one of them owns. Nothing here trusts the host."""
