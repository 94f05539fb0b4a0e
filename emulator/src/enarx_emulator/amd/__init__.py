"""AMD machines: secure processor with SEV, SEV-ES and SEV-SNP, and the vendor that endorses it. EMULATED."""
