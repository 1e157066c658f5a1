"""Vision-language families, each in a module of its own: running a tree needs no builder, and starts sooner without."""
