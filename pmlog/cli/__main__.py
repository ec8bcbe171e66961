"""`python -m pmlog.cli` is the command `pmlog`."""

from pmlog.cli import main

main()
