"""Wrapper modules that adapt a model's forward to the inputs and outputs of an engine."""
