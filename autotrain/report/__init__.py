"""Shows events, plans and results to people. Never imports torch."""
