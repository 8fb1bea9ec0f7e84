"""Arithmetic on profiles: sizing formulas and the planner. No torch, no I/O."""
