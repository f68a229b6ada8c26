"""``python -m prewarmkit``."""
