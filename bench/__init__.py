"""Benchmarks: each prints what it measured as a ratio against a named peer in the same run. ``make bench`` runs all."""
