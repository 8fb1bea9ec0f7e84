"""Weights from files of somebody else's: the one way in for them, and what of them fits a model."""
