"""The parts of `examples/paged_decoder.py`: a small decoder and two K/V caches for it."""
