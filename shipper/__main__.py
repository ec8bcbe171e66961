"""`python -m shipper` is `pmlog ship`."""

from pmlog.cli import main

main("ship")
