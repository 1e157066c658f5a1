"""Verification of an engine tree against the model that it was built from."""
