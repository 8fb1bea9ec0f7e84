"""Benchmarks that anyone can run: what was predicted beside what is measured here."""
