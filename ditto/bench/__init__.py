"""Speed of a tree's engines, compared with the original model."""
