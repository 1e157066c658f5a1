"""How fast a tree is, beside the model that it came from."""
