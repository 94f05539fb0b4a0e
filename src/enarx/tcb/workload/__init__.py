"""What a tenant hands over: configuration, module, files, limits; and what became of it. Pure."""
