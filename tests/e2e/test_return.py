"""An old primary comes back, damaged copies are made whole, and promotions follow one another."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from functools import partial
from itertools import zip_longest
from pathlib import Path

import pytest

import pmlog
from pmlog import limits, marks, saved
from pmlog.image import ImageReader, blocks_of
from pmlog.log import LogReader
from pmlog.record import Record
from pmlog.replica import Replica
from pmlog.replica import promote as promote_pool
from tests.e2e.services import Cluster, Service, shipped, status, until
from tests.e2e.test_shipping import command, end_of, has_all, last_of
from tests.fault.damage import used_pages
from tests.support import SMALL, faults_of


def promote(receiver: Service, *, accept_loss: bool = True) -> dict[str, object]:
    """Promote a receiver; return the answer."""
    code, answer = receiver.ask("/v1/promote", "POST", {"accept_loss": accept_loss})
    assert code == 200, answer
    found: dict[str, object] = answer
    return found


def count(cluster: Cluster, path: Path, numbers: int) -> int:
    """Have so many more numbers written to a pool; return the last one."""
    with pmlog.open(path, readonly=True) as pool:
        last = (int(pool.array("last")[0]) if "last" in pool.names() else 0) + numbers
    writer = cluster.writer(str(last), path=path)
    assert writer.hear()["event"] == "open"
    assert writer.hear()["last"] == last
    assert writer.process.wait(60) == 0
    return last


def rejoin(cluster: Cluster, source: Service, *arguments: str) -> Service:
    """Start a receiver whose replica is the old primary's pool."""
    return cluster.receiver("back", source.port, "--replica", str(cluster.pool), *arguments)


def follows(receiver: Service, path: Path) -> bool:
    """Whether a receiver's replica is whole and ends where a pool's log ends."""
    known = status(receiver)
    return not known["incomplete"] and known["lsn_durable"] == end_of(path).lsn


def lose_a_tail(cluster: Cluster, numbers: int = 300) -> tuple[Service, int]:
    """A receiver is promoted while the primary has more; return it and what both have.

    The shipper is killed first, so that the old primary does not learn of it.
    """
    shipper, receiver = cluster.pair()
    common = count(cluster, cluster.pool, 700)
    until(lambda: has_all(receiver, cluster.pool))
    shipper.kill()
    until(lambda: status(receiver)["state"] == "connecting")
    count(cluster, cluster.pool, numbers)
    promote(receiver)
    return receiver, common


def test_returns_with_a_tail(cluster: Cluster) -> None:
    """What only the old primary had is saved beside its pool; then it follows the new one."""
    receiver, common = lose_a_tail(cluster, 300)
    with LogReader(cluster.pool) as reader:
        there = {record.lsn: record.raw for record in reader.records()}
    begun = marks.history_of(cluster.replica("one")).beginnings
    assert [place.epoch for place in begun] == [2]
    last = count(cluster, cluster.replica("one"), 200)
    source = cluster.shipper(path=cluster.replica("one"))
    back = rejoin(cluster, source)
    until(lambda: follows(back, cluster.replica("one")))
    assert last_of(cluster.pool) == last == common + 200
    assert end_of(cluster.pool).epoch == 2

    tail = Path(status(back)["saved_tail"])
    assert tail.parent == cluster.pool.parent
    records = list(saved.read(tail))
    assert len(records) == 300
    assert records[0].lsn == begun[0].lsn
    assert all(record.raw == there[record.lsn] for record in records if record.lsn in there)
    assert {record.epoch for record in records} == {1}
    code, text = command("dump", str(tail))
    assert (code, len(text.splitlines())) == (0, 300)
    # The application that a supervisor starts again there is refused; readers are not.
    assert back.end() == 0
    with pytest.raises(pmlog.ReadOnlyError, match="replica"):
        pmlog.open(cluster.pool)
    with pmlog.open(cluster.pool, readonly=True) as pool:
        assert pool.position.epoch == 2
    assert receiver.end() == 0


def test_returns_without_a_tail(cluster: Cluster) -> None:
    """A sealed promotion: the old primary's log is the beginning of the new one, no block is sent."""
    shipper, receiver = cluster.pair()
    count(cluster, cluster.pool, 500)
    assert shipper.ask("/v1/power-loss", "POST", {"timeout_s": 60})[1]["sealed"]
    end = end_of(cluster.pool)
    shipper.kill()
    assert promote(receiver, accept_loss=False)["complete"]
    last = count(cluster, cluster.replica("one"), 100)
    source = cluster.shipper(path=cluster.replica("one"))
    back = rejoin(cluster, source)
    until(lambda: follows(back, cluster.replica("one")))
    known = status(back)
    assert (known["blocks"], known["saved_tail"], known["lsn_first"]) == (0, None, end.lsn)
    assert last_of(cluster.pool) == last


def test_fenced_after_its_host_was_down(cluster: Cluster) -> None:
    """A primary whose host was down at the promotion is told when its shipper is back."""
    shipper, receiver = cluster.pair()
    count(cluster, cluster.pool, 100)
    until(lambda: has_all(receiver, cluster.pool))
    shipper.kill()
    promote(receiver)
    writer = cluster.writer()  # nobody can have told it yet
    assert writer.hear()["event"] == "open"
    again = cluster.shipper(port=shipper.port)
    assert writer.hear()["error"] == "FencedError"
    assert shipped(again)["fenced_epoch"] == 2
    assert cluster.writer().hear() == {"event": "refused", "error": "FencedError"}
    assert again.ask("/v1/power-loss", "POST", {"timeout_s": 1})[0] == 409
    # Its shipper goes on while the pool comes back as a replica, and then serves it as one.
    source = cluster.shipper(path=cluster.replica("one"))
    back = rejoin(cluster, source)
    until(lambda: follows(back, cluster.replica("one")))
    until(lambda: shipped(again)["fenced_epoch"] is None)
    assert again.ask("/v1/power-loss", "POST", {"timeout_s": 1})[0] == 409  # not a replica's word
    leaf = cluster.receiver("leaf", again.port)
    until(lambda: follows(leaf, cluster.replica("one")))


def test_there_and_back(cluster: Cluster) -> None:
    """Three promotions in a row: each old primary comes back, and is promoted again."""
    receiver, _ = lose_a_tail(cluster)
    here, there = cluster.replica("one"), cluster.pool
    holder = receiver
    for epoch in (3, 4, 5):
        source = cluster.shipper(path=here)
        back = cluster.receiver(f"back{epoch}", source.port, "--replica", str(there))
        count(cluster, here, 50)
        until(partial(follows, back, here))
        last = last_of(here)
        source.kill()
        count(cluster, here, 20)  # which is lost
        assert promote(back)["epoch"] == epoch
        holder.discard()
        assert last_of(there) == last
        assert [one.epoch for one in marks.history_of(there).beginnings] == [*range(2, epoch + 1)]
        here, there, holder = there, here, back
    tails = sorted(path.name for path in cluster.folder.glob("**/pool.tail-*"))
    assert len(tails) == 3, tails


def test_follows_the_next_primary(cluster: Cluster) -> None:
    """A receiver with two sources goes on with the pool of the one that was promoted."""
    shipper, one = cluster.pair("--require", "1")
    second = cluster.shipper(path=cluster.replica("one"))
    port = second.port
    second.kill()
    two = cluster.receiver("two", shipper.port, "--from", f"{shipper.url},http://127.0.0.1:{port}")
    count(cluster, cluster.pool, 300)
    until(lambda: has_all(one, cluster.pool) and has_all(two, cluster.pool))
    promote(one)
    until(lambda: shipped(shipper)["fenced_epoch"] == 2)
    end = end_of(cluster.pool)
    last = count(cluster, cluster.replica("one"), 100)
    cluster.shipper(path=cluster.replica("one"), port=port)
    until(lambda: follows(two, cluster.replica("one")))
    assert status(two)["lsn_first"] == end.lsn  # no block was needed
    assert last_of(cluster.replica("two")) == last
    assert marks.history_of(cluster.replica("two")).heard == 2


def test_two_promoted_are_diverged(cluster: Cluster) -> None:
    """Two receivers that were both made primary of one epoch refuse each other's history."""
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
    until(lambda: "diverged" in (status(lost)["last_error"] or ""))
    assert "two pools wrote" in status(lost)["last_error"]
    assert status(lost)["saved_tail"] is None
    assert lost.end() == 0
    with pmlog.open(cluster.replica("two")) as pool:
        assert dict(pool.dict("words")) == {"two": 1}


def test_second_receiver_was_further_on(cluster: Cluster) -> None:
    """A receiver that has more than the one that was promoted saves that, and follows."""
    shipper, one = cluster.pair()
    second = cluster.shipper(path=cluster.replica("one"))
    port = second.port
    second.kill()
    two = cluster.receiver("two", shipper.port, "--from", f"{shipper.url},http://127.0.0.1:{port}")
    count(cluster, cluster.pool, 100)
    until(lambda: has_all(one, cluster.pool))
    one.kill()
    count(cluster, cluster.pool, 60)
    until(lambda: has_all(two, cluster.pool))
    shipper.kill()
    one = cluster.receiver("one", shipper.port)
    promote(one)
    last = count(cluster, cluster.replica("one"), 10)
    cluster.shipper(path=cluster.replica("one"), port=port)
    until(lambda: follows(two, cluster.replica("one")))
    assert len(list(saved.read(status(two)["saved_tail"]))) == 60
    assert last_of(cluster.replica("two")) == last == 110


def big(path: Path, size: int, seed: int) -> bytes:
    """Make a pool with a region of random bytes; return them."""
    data = random.Random(seed).randbytes(size)
    with pmlog.open(path, size="1MiB", log_size="4MiB") as pool:
        blob = pool.region("blob", size)
        for offset in range(0, size, 1 << 20):
            blob.write(offset, data[offset : offset + (1 << 20)])
    return data


def test_killed_in_a_baseline(cluster: Cluster) -> None:
    """A receiver that is killed in a first copy of 40 MiB goes on: no block is sent twice but one."""
    data = big(cluster.pool, 40 << 20, 1)
    shipper = cluster.shipper()
    receiver = cluster.receiver("one", shipper.port)
    until(lambda: status(receiver)["blocks"] > 40)
    receiver.process.send_signal(signal.SIGKILL)
    receiver.process.wait(60)
    with pytest.raises(pmlog.IncompleteError):
        pmlog.open(cluster.replica("one"), readonly=True)
    pairs = zip_longest(*map(blocks_of_image, (cluster.replica("one"), cluster.pool)))
    missing = sum((mine or b"").strip(b"\0") != theirs.strip(b"\0") for mine, theirs in pairs)
    total = -(-cluster.image_bytes() // limits.BLOCK_BYTES)
    assert 0 < missing <= total - 40
    again = cluster.receiver("one", shipper.port)
    until(lambda: follows(again, cluster.pool))
    assert status(again)["blocks"] <= missing + 1
    assert shipped(shipper)["receivers"]["one"]["blocks"] <= missing + 1
    with pmlog.open(cluster.replica("one"), readonly=True) as pool:
        assert bytes(pool.region("blob").read(0, len(data))) == data
    assert faults_of(cluster.replica("one")) == []


def blocks_of_image(path: Path) -> list[bytes]:
    """Return the blocks of a pool's image, without what is not compared."""
    image = (path / "image").read_bytes()
    size = limits.BLOCK_BYTES
    return [image[max(at, 16384) : at + size] for at in range(0, len(image), size)]


def test_incomplete_is_refused(cluster: Cluster) -> None:
    """Nobody opens, reads, ships or promotes a copy that is incomplete, in whatever way."""
    with pmlog.open(cluster.pool, **SMALL) as pool:
        pool.dict("words")["a"] = 1
    with LogReader(cluster.pool) as reader:
        identity, mark = reader.identity(), reader.mark()
    copy = cluster.folder / "copy"
    with Replica(copy, identity) as replica:
        marks.set_incomplete(copy, marks.Incomplete("baseline"))
        replica.prepare_baseline()
        with ImageReader(cluster.pool) as image:
            offset, size = next(blocks_of(mark.image_bytes))
            replica.store_block(offset, image.read_sound(offset, size))
    attempts: list[Callable[[], object]] = [
        lambda: pmlog.open(copy),
        lambda: pmlog.open(copy, readonly=True),
        lambda: promote_pool(copy),
    ]
    for refused in attempts:
        with pytest.raises(pmlog.IncompleteError, match="incomplete"):
            refused()
    code, text = command("ship", str(copy), "--listen", "127.0.0.1:0")
    assert (code, "incomplete" in text, "Traceback" in text) == (5, True, False)
    # The engine itself does not open it, whatever becomes of the mark.
    marks.set_incomplete(copy, None)
    for refused in attempts[:2]:
        with pytest.raises(pmlog.CorruptionError):
            refused()


@pytest.mark.parametrize("what", ["pages", "log", "marks"])
def test_damaged_replica_is_rebuilt(cluster: Cluster, what: str) -> None:
    """A receiver that finds its copy damaged takes the blocks that differ, and is sound again."""
    shipper, receiver = cluster.pair()
    path = cluster.replica("one")
    records = kill_with_records(cluster, shipper.port, receiver, path)
    if what == "pages":
        for page in used_pages(path):
            spoil(path / "image", page * 4096 + 4000)
    elif what == "log":
        spoil(path / "log", 65536 + records[len(records) // 2].lsn % (4 << 20) + 80)
    else:
        for at in (4096, 8192):
            spoil(path / "image", at + 20)
    again = cluster.receiver("one", shipper.port)
    last = count(cluster, cluster.pool, 500)
    until(lambda: follows(again, cluster.pool) and faults_of(path) == [])
    assert last_of(path) == last
    assert status(again)["saved_tail"] is None


def kill_with_records(cluster: Cluster, port: int, receiver: Service, path: Path) -> list[Record]:
    """Kill a receiver whose image lacks some of its log; return those records."""
    for _ in range(50):
        count(cluster, cluster.pool, 300)
        until(partial(has_all, receiver, cluster.pool))
        receiver.kill()
        with LogReader(path) as reader:
            records = list(reader.records())
        if len(records) > 2:
            return records
        receiver = cluster.receiver("one", port)
    raise AssertionError("it is always checkpointed at once")


def spoil(path: Path, at: int) -> None:
    """Flip a bit of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        old = file.read(1)[0]
        file.seek(at)
        file.write(bytes([old ^ 4]))
