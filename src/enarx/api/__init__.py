"""Contracts between processes outside the keep: what they say to each other and the files they exchange. Pure."""
