"""Shipping from a thread of the application, to a real receiver."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import pmlog
from pmlog.cli.request import ask
from tests.e2e.services import ROOT, Cluster, status, until
from tests.e2e.test_shipping import has_all
from tests.support import SMALL, faults_of

ANY = "127.0.0.1:0"


def names_of_threads() -> set[str]:
    """Return what runs besides the test's own thread."""
    return {one.name for one in threading.enumerate() if "ship" in one.name or "tail" in one.name}


def test_levels(cluster: Cluster) -> None:
    """Levels are reached through the thread, and it tells how far its receivers are."""
    with pmlog.open(cluster.pool, **SMALL) as pool, pmlog.serve(pool, listen=ANY) as serving:
        words = pool.dict("words")
        target = cluster.receiver("one", serving.url)
        for level in (pmlog.Level.RECEIVED, pmlog.Level.REPLICATED, pmlog.Level.APPLIED):
            with pool.transaction(level=level, timeout=60):
                words["level"] = level.name
            with pmlog.open(cluster.replica("one"), readonly=True) as copy:
                assert copy.dict("words")["level"] == level.name
        assert serving.status()["receivers"]["one"]["durable"] == pool.position.lsn
        assert serving.status()["path"] == pool.path
        assert ask(serving.url, "/v1/pools")[1]["pools"][0]["id"] == serving.status()["id"]
        assert names_of_threads()
        assert serving.url in repr(serving)
    assert names_of_threads() == set()
    assert target.end() == 0
    assert faults_of(cluster.pool) == []


@pytest.mark.parametrize("pool_first", [False, True])
def test_order_of_closing(cluster: Cluster, pool_first: bool) -> None:
    """Pool and thread are closed in either order, each more than once."""
    pool = pmlog.open(cluster.pool, **SMALL)
    serving = pmlog.serve(pool, listen=ANY)
    target = cluster.receiver("one", serving.url)
    with pool.transaction(level=pmlog.Level.REPLICATED, timeout=60):
        pool.dict("words")["a"] = 1
    if pool_first:
        pool.dict("words")["b"] = 2
        pool.close()
        until(lambda: has_all(target, cluster.pool))
    serving.close()
    serving.close()
    pool.close()
    with pytest.raises(pmlog.ClosedError):
        serving.status()
    assert names_of_threads() == set()
    with pytest.raises(pmlog.ClosedError):
        pmlog.serve(pool, listen=ANY)
    assert faults_of(cluster.pool) == []


def test_refused(cluster: Cluster) -> None:
    """What cannot be served is refused, and leaves no thread."""
    with (
        pmlog.open(cluster.pool, **SMALL) as pool,
        socket.create_server(("127.0.0.1", 0)) as taken,
    ):
        with pytest.raises(pmlog.MediumError, match="port 0"):
            pmlog.serve(pool, listen=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(pmlog.ConfigError, match="--token-file"):
            pmlog.serve(pool, listen="0.0.0.0:0")
        with pytest.raises(pmlog.ConfigError):
            pmlog.serve(pool, listen=ANY, require=0)
        with pytest.raises(pmlog.ConfigError):
            pmlog.serve(pool, listen=ANY, token_file=cluster.folder / "none")
        assert names_of_threads() == set()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork(cluster: Cluster) -> None:
    """A forked child has no thread and holds no port; the parent's goes on."""
    with pmlog.open(cluster.pool, **SMALL) as pool:
        serving = pmlog.serve(pool, listen=ANY)
        port = int(serving.url.rpartition(":")[2])
        read_end, write_end = os.pipe()
        never, open_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            said = b"none"
            try:
                serving.close()
                try:
                    serving.status()
                except pmlog.ForkedError:
                    said = b"refused"
                os.write(write_end, said)
                os.read(never, 1)  # until it is killed
            finally:
                os._exit(0)
        assert os.read(read_end, 10) == b"refused"
        assert serving.status()["frozen"] is False
        assert ask(serving.url, "/healthz")[0] == 200
        serving.close()
        # The child still lives, and does not hold the port.
        again = pmlog.serve(pool, listen=f"127.0.0.1:{port}")
        again.close()
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        for number in (read_end, write_end, never, open_end):
            os.close(number)


SCRIPT = """
import atexit, sys, pmlog
pool = pmlog.open(sys.argv[1], size="1MiB", log_size="256KiB")
atexit.register(pool.close)
serving = pmlog.serve(pool, listen="127.0.0.1:0")
print(serving.url, flush=True)
sys.stdin.readline()
if sys.argv[2] == "raises":
    raise SystemExit(7)
"""


@pytest.mark.parametrize(("how", "code"), [("ends", 0), ("raises", 7)])
def test_interpreter_exit(cluster: Cluster, how: str, code: int) -> None:
    """A program that ends without a word to its shipper ends at once, and cleanly."""
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", SCRIPT, str(cluster.pool), how],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        target = cluster.receiver("one", url)
        until(lambda: status(target)["state"] == "receiving")
        _, said = process.communicate("\n", timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, said) == (code, "")
    until(lambda: status(target)["state"] == "connecting")
    assert Path(cluster.pool).exists()
    assert faults_of(cluster.pool) == []
