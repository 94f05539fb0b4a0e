"""What AMD SEV, SEV-ES and SEV-SNP share: firmware metadata, initial processor state, kernel hashes, key structures."""
