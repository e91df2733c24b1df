"""Measurements of the package. Nothing of it is shipped, and nothing of it is a test: no figure passes or fails here."""
