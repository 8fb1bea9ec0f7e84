"""Carries a plan out: the loop, its data, its checkpoints."""
