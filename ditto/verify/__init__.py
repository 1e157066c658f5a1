"""A tree beside the model that it came from."""
