"""`pmlog top`: plain frames for programs, a live view on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import sys
import termios
import time

import pytest

from pmlog.cli.watch import Row, Sample, pool_rows, rates
from tests.e2e.services import ROOT, Cluster
from tests.e2e.test_shipping import command
from tests.support import PATIENCE_S


def test_once(cluster: Cluster) -> None:
    """One frame shows a shipper with its peers, a receiver and a pool, and how fast they go."""
    shipper, receiver = cluster.pair("--required", "one")
    cluster.busy_writer(receiver)
    code, text = command("top", "--once", shipper.url, receiver.url, str(cluster.pool))
    assert code == 0, text
    head, *lines = text.splitlines()
    assert head.split() == ["what", "name", "state", "tx/s", "log/s", "lacks", "backlog", "power"]
    kinds = [line.split()[0] for line in lines]
    assert kinds == ["shipper", "peer", "receiver", "pool"]
    assert "connected" in lines[1]
    assert "receiving" in lines[2]
    assert "writer" in lines[3]
    assert "\x1b" not in text
    column = slice(head.index("tx/s"), head.index("log/s"))
    assert int(lines[3][column].replace(",", "")) > 0


def test_what_does_not_answer(cluster: Cluster) -> None:
    """What does not answer has a line that says so, beside what does, and exit code 1."""
    shipper, _ = cluster.pair()
    code, text = command("top", "--once", "http://127.0.0.1:9", shipper.url, str(cluster.folder))
    assert code == 1
    assert "does not answer" in text
    assert "shipper" in text
    code, text = command("top", "--once", "http://192.0.2.1:7070")
    assert (code, text.count("\n")) == (2, 1)


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_live(cluster: Cluster, key: bytes) -> None:
    """On a terminal the view renews itself until `q` or Ctrl-C, and leaves the terminal as it was."""
    shipper, _ = cluster.pair()
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pmlog.cli", "top", "--interval", "0.1", shipper.url],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, start_new_session=True,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "30"},
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no locks held
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    try:
        deadline = time.monotonic() + PATIENCE_S
        is_sent = False
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 0.1)[0]:
                continue
            try:
                seen += os.read(ours, 65536)
            except OSError:
                break  # the other end is closed
            if not is_sent and seen.count(b"connected") >= 3:
                os.write(ours, key)
                is_sent = True
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert b"\x1b[?1049h" in seen
    assert b"\x1b[?1049l" in seen
    assert b"Traceback" not in seen


def test_rates() -> None:
    """Rates are of one row between two looks, and unknown where a pool begins anew."""
    row = Row("pool", "p", "", txn=30, lsn=5000)
    before = Sample(1.0, (Row("pool", "p", "", txn=10, lsn=4000), Row("pool", "q", "")))
    assert rates(row, before, 3.0) == (10.0, 500.0)
    assert rates(row, None, 3.0) == (None, None)
    assert rates(row, before, 1.0) == (None, None)
    assert rates(Row("pool", "p", "", txn=5, lsn=4000), before, 2.0) == (None, 0.0)
    assert rates(Row("pool", "x", "", txn=5), before, 2.0) == (None, None)


def test_rows_of_a_shipper() -> None:
    """The gravest state is shown, backlog with its bound, power with what the battery has left."""
    pool = {
        "path": "p", "lsn_durable": 5, "frozen": True, "fenced_epoch": None, "receivers": {},
        "backlog": {"bytes": 1024, "limit_bytes": 2048, "is_blocked": True, "at_risk": False},
        "power": {"state": "saving", "battery_seconds_left": 12.3},
    }  # fmt: skip
    (row,) = pool_rows(pool)
    assert (row.state, row.is_bad, row.backlog, row.power) == (
        "frozen", True, "1 KiB of 2 KiB", "saving 12 s",
    )  # fmt: skip
