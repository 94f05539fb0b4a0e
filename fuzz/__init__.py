"""Fuzz targets, one a parser: each module has ``one(data)``, which must raise nothing. ``make fuzz`` runs all."""
