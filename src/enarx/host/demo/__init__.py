"""The hosts of the attested demos: they have the machine, and are told to attack on request."""
