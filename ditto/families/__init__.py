"""Vision-language families, one module each; running a tree imports no builder and so starts faster."""
