"""Wrapper modules that adapt a model's forward to an engine's inputs and outputs."""
