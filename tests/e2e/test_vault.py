"""The vault: what receivers could not be given in time, and what becomes of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pmlog
from pmlog import marks, vault
from receiver.state import State
from tests.e2e.services import ROOT, Cluster, Service, shipped, status, until
from tests.e2e.test_shipping import end_of, last_of
from tests.support import SMALL, faults_of


def receive(folder: Path, source: Path) -> subprocess.CompletedProcess[str]:
    """Run `pmlog receive --from-vault`."""
    command = ["receive", "--dir", str(folder), "--from-vault", str(source), "--json"]
    return subprocess.run(
        [sys.executable, "-m", "pmlog.cli", *command],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def taken(folder: Path, source: Path) -> dict[str, Any]:
    """Take in a vault; return what came of it."""
    done = receive(folder, source)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["sealed"]
    return answer


def promote(cluster: Cluster, name: str, shipper_port: int) -> Service:
    """Promote the replica of a receiver that is not running, as complete."""
    receiver = cluster.receiver(name, shipper_port)
    assert status(receiver)["sealed"]
    code, answer = receiver.ask("/v1/promote", "POST")
    assert (code, answer["complete"]) == (200, True)
    return receiver


def written(path: Path) -> int:
    """Return the last number that a writer which goes on has committed."""
    with pmlog.open(path, readonly=True) as pool:
        return int(pool.array("last")[0])


def knows(shipper: Service, name: str) -> int | None:
    """Return where a receiver's log ends by its own word, if its copy is whole."""
    figures = shipped(shipper)["receivers"].get(name, {})
    return figures["durable"] if figures.get("whole") else None


def lose_receiver_then_power(cluster: Cluster, disk: Path) -> tuple[Service, dict[str, Any], int]:
    """Let power fail while the only receiver is away; return shipper, its answer, the last number."""
    shipper, receiver = cluster.pair("--vault", str(disk / "vaults"), "--battery", "40s")
    cluster.busy_writer(receiver).kill()
    end = end_of(cluster.pool).lsn
    until(lambda: knows(shipper, "one") == end)
    receiver.kill()
    last = last_of(cluster.pool) + 500
    writer = cluster.writer(str(last))
    assert [writer.hear()["event"], writer.hear()["last"]] == ["open", last]
    code, answer = shipper.ask("/v1/power-loss", "POST", {"timeout_s": 60})
    assert (code, answer["saved"], answer["sealed"]) == (200, True, False)
    (pool,) = answer["pools"]
    assert pool["state"] == "vaulted" == shipped(shipper)["power"]["state"]
    assert pool["seconds"] < 30
    return shipper, pool, last


def test_round_trip(cluster: Cluster, disk_dir: Path) -> None:
    """What the only receiver missed comes from the vault: all of it is there, sealed, promotable."""
    shipper, pool, last = lose_receiver_then_power(cluster, disk_dir)
    port, end = shipper.port, end_of(cluster.pool)
    assert pool["vault"]["lsn_end"] == end.lsn
    assert not pool["vault"]["has_image"]
    shipper.kill()
    shutil.rmtree(cluster.pool)
    answer = taken(cluster.folder / "one", disk_dir / "vaults")
    assert (answer["lsn"], answer["txn"]) == (end.lsn, end.txn)
    assert answer["lsn_before"] + answer["log_bytes"] == end.lsn
    assert answer["lsn_before"] >= pool["vault"]["lsn_first"]
    assert taken(cluster.folder / "one", disk_dir / "vaults")["log_bytes"] == 0  # again: no harm
    promote(cluster, "one", port).end()
    assert last_of(cluster.replica("one")) == last


def test_only_copy(cluster: Cluster, disk_dir: Path) -> None:
    """Without any receiver the vault holds everything, and a new directory becomes a copy of it."""
    writer = cluster.writer()
    assert writer.hear()["event"] == "open"
    shipper = cluster.shipper("--vault", str(disk_dir / "vaults"), "--battery", "40s")
    until(lambda: written(cluster.pool) > 2000)
    code, answer = shipper.ask("/v1/power-loss", "POST")
    assert (code, answer["saved"]) == (200, True)
    assert answer["pools"][0]["vault"]["has_image"]
    last, port = writer.hear()["last"], shipper.port
    shipper.kill()
    shutil.rmtree(cluster.pool)
    assert taken(cluster.folder / "new", disk_dir / "vaults")["blocks"] > 0
    promote(cluster, "new", port).end()
    assert last_of(cluster.replica("new")) == last


def test_power_returns(cluster: Cluster, disk_dir: Path) -> None:
    """Before writers go on the vault is no vault any more; one that was moved away is waited for."""
    shipper, pool, last = lose_receiver_then_power(cluster, disk_dir)
    path = Path(pool["vault"]["path"])
    moved = path.rename(disk_dir / "moved")
    code, answer = shipper.ask("/v1/power-loss", "DELETE", {"timeout_s": 0.2})
    assert (code, answer["restored"]) == (409, False)
    assert f"vault:{path}" in answer["pools"][0]["reason"]
    assert cluster.writer().hear() == {"event": "refused", "error": "PoolFrozenError"}
    moved.rename(path)
    code, answer = shipper.ask("/v1/power-loss", "DELETE")
    assert (code, answer["restored"]) == (200, True)
    assert not path.exists()
    assert marks.stop_of(cluster.pool) is None
    assert receive(cluster.folder / "one", disk_dir / "vaults").returncode == 3
    writer = cluster.writer(str(last + 10))
    assert writer.hear() == {"event": "open", "last": last, "epoch": 1}
    assert writer.hear()["last"] == last + 10
    assert shipped(shipper)["power"]["state"] == "mains"


def test_lost_vault_is_forgotten(cluster: Cluster, disk_dir: Path) -> None:
    """By the operator's word a vault that is lost is waited for no more."""
    shipper, pool, _ = lose_receiver_then_power(cluster, disk_dir)
    path = pool["vault"]["path"]
    shutil.rmtree(path)
    body = {"timeout_s": 60, "forget": [f"vault:{path}"]}
    assert shipper.ask("/v1/power-loss", "DELETE", body)[1]["restored"]


def test_shipper_killed_in_the_vault(cluster: Cluster, disk_dir: Path) -> None:
    """A vault that was being written is none; the next shipper writes it anew.

    Model: SIGKILL at any point of the writing.
    Method: the folder's name is watched, and the shipper killed as soon as it is there, and again
    later; what is there then is either refused or complete.
    """
    with pmlog.open(cluster.pool, size="64MiB", log_size="4MiB") as pool:
        blob = pool.region("blob", 48 << 20)
        for at in range(0, 48 << 20, 1 << 20):
            blob.write(at, bytes([at >> 20]) * (1 << 20))
        end = pool.position
    vaults = disk_dir / "vaults"
    shipper = cluster.shipper("--vault", str(vaults), "--battery", "40s", "--power", "pwr")
    shipper.process.send_signal(30)  # SIGPWR
    until(lambda: vaults.exists() and any(vaults.iterdir()))
    shipper.kill()
    names = [one.name for one in vaults.iterdir()]
    if any(name.endswith(".new") for name in names):
        done = receive(cluster.folder / "one", vaults)
        assert done.returncode == 3
        assert "no sealed vault" in done.stderr
        assert not cluster.replica("one").exists()
    again = cluster.shipper("--vault", str(vaults), "--battery", "40s")
    until(lambda: shipped(again)["power"]["state"] == "vaulted")
    assert [one.name for one in vaults.iterdir() if one.name.endswith(".new")] == []
    again.kill()
    assert taken(cluster.folder / "one", vaults)["lsn"] == end.lsn
    with pmlog.open(cluster.replica("one"), readonly=True, max_size="1GiB") as copy:
        blob = copy.region("blob", 48 << 20)
        assert all(blob.read(at << 20, 1)[0] == at for at in range(48))
    assert faults_of(cluster.replica("one")) == []


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a complete vault, and a pool's replica at an earlier end."""
    folder = tmp_path_factory.mktemp("made")
    cluster = Cluster(folder)
    with pmlog.open(cluster.pool, size="1MiB", log_size="4MiB") as pool:
        words = pool.dict("words")
        for number in range(500):
            words[number] = "x" * 100
    shipper = cluster.shipper("--vault", str(folder / "vaults"))
    receiver = cluster.receiver("one", shipper.port)
    end = end_of(cluster.pool).lsn
    until(lambda: knows(shipper, "one") == end)
    receiver.end()
    with pmlog.open(cluster.pool, size="1MiB", log_size="4MiB") as pool:
        words = pool.dict("words")
        for number in range(500):
            words[number] = "y" * 100
    assert shipper.ask("/v1/power-loss", "POST")[1]["saved"]
    cluster.close()
    return folder


@pytest.fixture
def copy(made: Path, disk_dir: Path) -> Path:
    """Give a copy of it, to be damaged."""
    return Path(shutil.copytree(made, disk_dir / "made", ignore=shutil.ignore_patterns("*.log")))


def _vault(folder: Path) -> Path:
    return vault.find(folder / "vaults")


@pytest.mark.parametrize("name", ["log", "manifest", "sealed"])
@pytest.mark.parametrize("damage", ["cut", "flip", "longer", "gone"])
def test_damaged(copy: Path, name: str, damage: str) -> None:
    """A damaged vault is refused, and the replica is what it was."""
    path = _vault(copy) / name
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[:-1])
    elif damage == "longer":
        path.write_bytes(data + b"x")
    elif damage == "gone":
        path.unlink()
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    before = end_of(copy / "one" / "pool")
    done = receive(copy / "one", copy / "vaults")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert end_of(copy / "one" / "pool") == before
    assert State(copy / "one").seal is None


def test_sound(copy: Path) -> None:
    """The same vault, undamaged, is taken in."""
    assert taken(copy / "one", copy / "vaults")["log_bytes"] > 0
    assert end_of(copy / "one" / "pool") == end_of(copy / "pool")
    assert State(copy / "one").seal is not None


def test_wrong_replica(copy: Path, memory_dir: Path) -> None:
    """A vault of another pool, and one that begins after the replica ends, are refused."""
    other = memory_dir / "other"
    other.mkdir()
    with pmlog.open(other / "pool", size="1MiB", log_size="4MiB") as pool:
        pool.dict("words")["a"] = 1
    done = receive(other, copy / "vaults")
    assert done.returncode == 2
    assert "another" in done.stderr
    # A directory without a replica: this vault holds the end of the log only.
    done = receive(memory_dir / "none", copy / "vaults")
    assert done.returncode == 7
    assert "no replica" in done.stderr
    assert not (memory_dir / "none" / "pool").exists()


def test_made_from_a_vault_is_a_replica(cluster: Cluster, disk_dir: Path) -> None:
    """What was made from a vault is opened by nobody before it is promoted.

    1. A vault holds the whole pool; a replica is made from it on another host.
    2. An application opens that folder, and commits: it went on in the epoch of the primary, which
       went on as well: two histories of one epoch.
    """
    cluster.make_pool()
    shipper = cluster.shipper("--vault", str(disk_dir / "vaults"), "--battery", "20s")
    with pmlog.open(cluster.pool, **SMALL) as pool:
        pool.dict("words")["a"] = 1
        assert shipper.ask("/v1/power-loss", "POST", {"timeout_s": 10.0})[1]["saved"]
    shipper.kill()
    taken(cluster.folder / "one", disk_dir / "vaults")
    with pytest.raises(pmlog.ReadOnlyError):
        pmlog.open(cluster.replica("one"))
    promote(cluster, "one", shipper.port).kill()
    with pmlog.open(cluster.replica("one")) as pool:
        assert pool.dict("words")["a"] == 1
