"""Checkpoints: how a run is written to disk, read back, and handed on."""
