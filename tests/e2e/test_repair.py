"""`pmlog repair`: a copy that is damaged, incomplete or diverged becomes its primary's again."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pmlog
from pmlog import limits, marks, saved
from pmlog.cli import ExitCode
from tests.e2e.services import ROOT, Cluster, Service, shipped, status, until
from tests.e2e.test_return import big, count, kill_with_records, lose_a_tail, promote, spoil
from tests.e2e.test_shipping import end_of, has_all, last_of
from tests.fault.damage import used_pages
from tests.support import PATIENCE_S, faults_of

RING_OFFSET = 65536


def start(path: Path, url: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a repair."""
    return subprocess.Popen(
        [sys.executable, "-m", "pmlog.cli", "repair", str(path), "--from", url, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip


def run(path: Path, url: str, *arguments: str) -> tuple[int, str, str]:
    """Run a repair; return its exit code and what it said."""
    process = start(path, url, *arguments)
    out, errors = process.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in errors, errors
    return process.returncode, out, errors


def repaired(path: Path, url: str) -> dict[str, Any]:
    """Repair a copy, which succeeds; return what the command tells."""
    code, out, errors = run(path, url, "--json")
    assert code == 0, errors
    told: dict[str, Any] = json.loads(out)
    assert told["faults"] == []
    assert faults_of(path) == []
    assert marks.incomplete_of(path) is None
    stop = marks.stop_of(path)
    assert stop is not None
    assert stop.why == "replica"
    return told


def files_of(folder: Path) -> dict[str, str]:
    """Return a digest of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("what", ["pages", "sums", "log", "marks"])
def test_damaged_replica(cluster: Cluster, what: str) -> None:
    """Rot in pages, their sums, the log, or both marks: only blocks that differ are fetched."""
    shipper, receiver = cluster.pair()
    path = cluster.replica("one")
    records = kill_with_records(cluster, shipper.port, receiver, path)
    if what == "pages":
        for page in used_pages(path)[::5]:
            spoil(path / "image", page * 4096 + 4000)
    elif what == "sums":
        spoil(path / "sums", 4096 + used_pages(path)[0] * 4 + 1)
    elif what == "log":
        spoil(path / "log", RING_OFFSET + records[len(records) // 2].lsn % (4 << 20) + 80)
    else:
        for at in (4096, 8192):
            spoil(path / "image", at + 20)
    assert faults_of(path)
    told = repaired(path, shipper.url)
    assert told["blocks_compared"] == -(-cluster.image_bytes() // limits.BLOCK_BYTES)
    assert told["lsn"] == end_of(cluster.pool).lsn
    assert told["saved_tail"] is None
    assert last_of(path) == last_of(cluster.pool)
    # It is a replica like any other: its receiver goes on with it, without a block.
    again = cluster.receiver("one", shipper.port)
    last = count(cluster, cluster.pool, 50)
    until(lambda: has_all(again, cluster.pool))
    assert (status(again)["blocks"], last_of(path)) == (0, last)


def test_damaged_primary(cluster: Cluster) -> None:
    """A primary whose log has rotted is repaired from its replica; what only it had is saved."""
    shipper, receiver = cluster.pair()
    common = count(cluster, cluster.pool, 300)
    until(lambda: has_all(receiver, cluster.pool))
    shipper.kill()
    receiver.kill()
    writer = cluster.writer()
    assert writer.hear()["event"] == "open"
    until(lambda: end_of(cluster.pool).txn > common + 200)
    writer.kill()  # the image lacks some of the log
    with pmlog.log.LogReader(cluster.pool) as reader:
        records = list(reader.records())
    # The last of those that are there from the checkpoint on vouch for the first.
    spoil(cluster.pool / "log", RING_OFFSET + records[0].lsn % (4 << 20) + 80)
    with pytest.raises(pmlog.CorruptionError, match="pmlog repair POOL --from URL"):
        pmlog.open(cluster.pool)
    source = cluster.shipper(path=cluster.replica("one"))
    told = repaired(cluster.pool, source.url)
    assert told["state"] == "replica"
    tail = list(saved.read(told["saved_tail"]))
    assert len(tail) == told["saved_records"]
    assert tail[-1].txn == records[-1].txn
    assert last_of(cluster.pool) == common
    with pytest.raises(pmlog.ReadOnlyError, match="replica"):
        pmlog.open(cluster.pool)


def test_diverged(cluster: Cluster) -> None:
    """Of two pools that wrote as one primary one is given up, by the operator's word; no record."""
    shipper, one = cluster.pair()
    two = cluster.receiver("two", shipper.port)
    count(cluster, cluster.pool, 100)
    until(lambda: has_all(one, cluster.pool) and has_all(two, cluster.pool))
    shipper.kill()
    until(lambda: status(two)["state"] == "connecting")
    assert [promote(each)["epoch"] for each in (one, two)] == [2, 2]
    for name in ("one", "two"):
        with pmlog.open(cluster.replica(name)) as pool:
            pool.dict("words")[name] = 1
    source = cluster.shipper(path=cluster.replica("one"))
    two.kill()
    lost = cluster.receiver("x", source.port, "--replica", str(cluster.replica("two")))
    until(lambda: "pmlog repair POOL --from URL" in (status(lost)["last_error"] or ""))
    lost.kill()
    told = repaired(cluster.replica("two"), source.url)
    assert told["epoch"] == 2
    records = list(saved.read(told["saved_tail"]))
    assert any(b"two" in record.raw for record in records)
    with pmlog.open(cluster.replica("two"), readonly=True) as pool:
        assert dict(pool.dict("words")) == {"one": 1}
    # The receiver that was promoted with it is a receiver again.
    again = cluster.receiver("two", source.port)
    with pmlog.open(cluster.replica("one")) as pool:
        pool.dict("words")["more"] = 1
    until(lambda: has_all(again, cluster.replica("one")))
    assert status(again)["state"] == "receiving"


def test_old_primary(cluster: Cluster) -> None:
    """An old primary with a tail becomes a replica in one go; the tail is what nobody else has."""
    receiver, common = lose_a_tail(cluster, 120)
    source = cluster.shipper(path=cluster.replica("one"))
    code, out, _ = run(cluster.pool, source.url)
    assert code == 0, out
    (tail,) = cluster.folder.glob("pool.tail-*")
    assert len(list(saved.read(tail))) == 120
    assert str(tail) in out
    assert "no faults" in out
    assert "a replica of epoch 2" in out
    assert "pmlog promote" in out
    assert last_of(cluster.pool) == common
    assert receiver.end() == 0


@pytest.mark.parametrize("who", ["repair", "shipper"])
def test_killed_in_the_middle(cluster: Cluster, who: str) -> None:
    """A repair that is cut short leaves a copy that is refused; the next one goes on from there."""
    data = big(cluster.pool, 40 << 20, 3)
    shipper = cluster.shipper()
    receiver = cluster.receiver("one", shipper.port)
    until(lambda: has_all(receiver, cluster.pool))
    assert receiver.end() == 0
    path = cluster.replica("one")
    for page in used_pages(path)[::8]:
        spoil(path / "image", page * 4096 + 17)
    process = start(path, shipper.url)
    until(lambda: blocks_sent(shipper) > 40)
    sent = blocks_sent(shipper)
    if who == "repair":
        process.kill()
        process.communicate(timeout=PATIENCE_S)
    else:
        shipper.kill()
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == ExitCode.FAILED
        assert "run the same command again" in errors
        assert "Traceback" not in errors
        shipper = cluster.shipper()
    with pytest.raises(pmlog.IncompleteError, match="a repair is under way"):
        pmlog.open(path, readonly=True)
    told = repaired(path, shipper.url)
    total = -(-cluster.image_bytes() // limits.BLOCK_BYTES)
    assert told["blocks_compared"] == total
    # What had come is not sent again, but for a window that was on its way.
    assert told["blocks_fetched"] <= total - sent + limits.BLOCKS_PER_MESSAGE_MAX
    assert told["blocks_fetched"] < total
    with pmlog.open(path, readonly=True) as pool:
        assert bytes(pool.region("blob").read(0, len(data))) == data


def blocks_sent(shipper: Service) -> int:
    """Return how many blocks a shipper has sent to a repair."""
    return sum(
        one.get("blocks", 0)
        for name, one in shipped(shipper)["receivers"].items()
        if name.startswith("repair-")
    )


def test_incomplete_copy(cluster: Cluster) -> None:
    """A first copy that was cut short is completed."""
    big(cluster.pool, 40 << 20, 4)
    shipper = cluster.shipper()
    receiver = cluster.receiver("one", shipper.port)
    until(lambda: status(receiver)["blocks"] > 40)
    receiver.kill()
    path = cluster.replica("one")
    with pytest.raises(pmlog.IncompleteError, match="pmlog repair POOL --from URL"):
        pmlog.open(path, readonly=True)
    told = repaired(path, shipper.url)
    assert 0 < told["blocks_fetched"] < told["blocks_compared"] - 30


def test_beside_a_writer(cluster: Cluster) -> None:
    """The primary goes on writing meanwhile; the copy has what it had when the repair began."""
    shipper, receiver = cluster.pair()
    count(cluster, cluster.pool, 100)
    until(lambda: has_all(receiver, cluster.pool))
    receiver.kill()
    path = cluster.replica("one")
    for page in used_pages(path):
        spoil(path / "image", page * 4096 + 9)
    writer = cluster.writer()
    assert writer.hear()["event"] == "open"
    before = shipped(shipper)["lsn_durable"]
    told = repaired(path, shipper.url)
    assert told["lsn"] >= before
    assert last_of(path) >= 100
    assert writer.end() != 0


def test_a_seal_is_forgotten(cluster: Cluster) -> None:
    """While power fails nothing is repaired; later a seal is not true of what a repair has made."""
    shipper, receiver = cluster.pair()
    count(cluster, cluster.pool, 50)
    assert shipper.ask("/v1/power-loss", "POST", {"timeout_s": 60})[1]["sealed"]
    receiver.kill()
    seal = cluster.folder / "one" / "seal"
    assert seal.exists()
    before = files_of(cluster.folder / "one")
    code, _, errors = run(cluster.replica("one"), shipper.url)
    assert (code, "power fails there" in errors) == (ExitCode.FAILED, True), errors
    assert files_of(cluster.folder / "one") == before
    forget = {"timeout_s": 60, "forget": ["one"]}
    assert shipper.ask("/v1/power-loss", "DELETE", forget)[1]["restored"]
    repaired(cluster.replica("one"), shipper.url)
    assert not seal.exists()


def test_another_pool_is_refused(cluster: Cluster) -> None:
    """A shipper of another pool changes not a byte."""
    shipper, receiver = cluster.pair()
    count(cluster, cluster.pool, 20)
    until(lambda: has_all(receiver, cluster.pool))
    other = cluster.folder / "other"
    with pmlog.open(other, size="1MiB", log_size="4MiB") as pool:
        pool.dict("words")["a"] = 1
    spoil(other / "image", used_pages(other)[0] * 4096 + 5)
    before = files_of(other)
    code, out, errors = run(other, shipper.url)
    assert (code, out) == (ExitCode.USAGE, "")
    assert shipped(shipper)["id"] in errors
    assert files_of(other) == before


def test_an_epoch_that_is_over_is_refused(cluster: Cluster) -> None:
    """A shipper of an epoch before the copy's changes not a byte of it."""
    shipper, receiver = cluster.pair()
    count(cluster, cluster.pool, 20)
    until(lambda: has_all(receiver, cluster.pool))
    shipper.kill()
    promote(receiver)
    receiver.kill()
    shipper = cluster.shipper()
    before = files_of(cluster.replica("one"))
    code, out, errors = run(cluster.replica("one"), shipper.url)
    assert (code, out) == (ExitCode.FAILED, "")
    assert "over" in errors
    assert files_of(cluster.replica("one")) == before


def test_open_elsewhere(cluster: Cluster) -> None:
    """A copy that a receiver holds is left to it."""
    shipper, receiver = cluster.pair()
    count(cluster, cluster.pool, 20)
    until(lambda: has_all(receiver, cluster.pool))
    code, out, errors = run(cluster.replica("one"), shipper.url)
    assert (code, out) == (ExitCode.LOCKED, "")
    assert errors.count("\n") == 1
    last = count(cluster, cluster.pool, 20)
    until(lambda: has_all(receiver, cluster.pool))
    assert last_of(cluster.replica("one")) == last


@pytest.mark.parametrize("what", ["receiver", "nobody", "https", "no pool", "no folder"])
def test_mistakes(cluster: Cluster, what: str) -> None:
    """What cannot be is one line, an exit code, and no effect."""
    shipper, receiver = cluster.pair()
    count(cluster, cluster.pool, 20)
    url, path = shipper.url, cluster.pool
    if what == "receiver":
        url, wanted = receiver.url, (ExitCode.USAGE, "is a receiver")
    elif what == "nobody":
        shipper.kill()
        wanted = (ExitCode.FAILED, "is it running")
    elif what == "https":
        url, wanted = url.replace("http:", "https:"), (ExitCode.FAILED, "TLS")
    elif what == "no pool":
        path, wanted = cluster.folder / "none", (ExitCode.NO_POOL, "no pool")
    else:
        path, wanted = Path(__file__), (ExitCode.NO_POOL, "no pool")
    code, out, errors = run(path, url)
    assert (code, out) == (wanted[0], ""), errors
    assert wanted[1] in errors
    assert errors.count("\n") == 1, errors
    assert not marks.stop_of(cluster.pool)


@pytest.mark.parametrize("command", ["repair", "status"])
def test_on_a_terminal(cluster: Cluster, command: str) -> None:
    """A person sees a bar while it runs, and a table of what is there."""
    shipper, receiver = cluster.pair()
    count(cluster, cluster.pool, 50)
    until(lambda: has_all(receiver, cluster.pool))
    receiver.kill()
    path = str(cluster.replica("one"))
    given = [path, "--from", shipper.url] if command == "repair" else [path, shipper.url]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pmlog.cli", command, *given],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    try:
        while True:  # until the other end is closed
            try:
                seen += os.read(ours, 65536)
            except OSError:
                break
        assert process.wait(PATIENCE_S) == 0, seen
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    text = seen.decode(errors="replace")
    assert "Traceback" not in text
    wanted = ["blocks", "no faults"] if command == "repair" else ["lsn_checkpoint", "ring_bytes"]
    assert all(word in text for word in wanted), text
    assert "\x1b[" in text
