"""Vision-language families, one module each.

Running a tree imports no builder and so starts faster.
"""
