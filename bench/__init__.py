"""Benchmarks of pmlog, beside what one would use in its place. See README.md."""
