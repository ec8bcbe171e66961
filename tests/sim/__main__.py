"""`python -m tests.sim --seed N --hours H`: one run; its last line says what it came to."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from tests.canaries import hook

hook.install()  # before what it breaks is imported

from tests.sim.world import simulate  # noqa: E402 - the line above has to come first


def main() -> None:
    """Run, and print one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hours", type=float, default=10.0)
    wanted = parser.parse_args()
    shm = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="pmlog-sim-", dir=shm if shm.is_dir() else None))
    begun = time.process_time()
    try:
        outcome = simulate(wanted.seed, wanted.hours, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.process_time() - begun
    print(json.dumps({**asdict(outcome), "cpu_s": round(seconds, 2), "seed": wanted.seed}))
    sys.exit(0)


if __name__ == "__main__":
    main()
