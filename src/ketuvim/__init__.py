"""KVM from Python, with the launch of SEV, SEV-ES and SNP guests; standard library only."""
