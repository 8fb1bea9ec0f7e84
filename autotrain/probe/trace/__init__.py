"""One training step on fake tensors: what is allocated, computed, and used inside operators."""
