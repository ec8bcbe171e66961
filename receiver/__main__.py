"""`python -m receiver` is `pmlog receive`."""

from pmlog.cli import main

main("receive")
