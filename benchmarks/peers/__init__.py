"""The CLIP tower built by Ditto and by others; `python -m benchmarks.peers`."""
