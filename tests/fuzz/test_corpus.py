"""The fuzzers' targets on the corpus, and on thousands of inputs made from it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from pmlog import wire
from tests.fuzz.targets import CORPUS, TARGETS, frame

ROUNDS = 3000


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Change an input in a few ways."""
    out = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(5)
        if kind == 0 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 2:
            del out[at : at + rng.randrange(1, 20)]
        elif kind == 3:
            out[at : at + 4] = rng.choice((b"\0" * 4, b"\xff" * 4, b"9999", b"-1", b"null"))
        else:
            piece = out[at : at + rng.randrange(1, 40)]
            out[at:at] = piece
    return bytes(out)


@pytest.mark.parametrize("name", TARGETS)
def test_target(name: str, rng: random.Random) -> None:
    """Each input is taken or refused, and nothing else."""
    corpus = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    assert corpus
    for data in corpus:
        TARGETS[name](data)
    for _ in range(ROUNDS):
        data = rng.choice(corpus)
        for _ in range(rng.randrange(1, 4)):
            data = mutated(data, rng)
        TARGETS[name](data)


def test_corpus_is_of_today() -> None:
    """What begins the corpus is right by today's formats: `python -m tests.fuzz corpus` makes it."""
    decoders: dict[str, Callable[[Any], object]] = {
        "frame": wire.decode_frame,
        "from_receiver": lambda data: wire.decode_from_receiver(data.decode()),
        "from_shipper": lambda data: wire.decode_from_shipper(data.decode()),
    }
    for name, decode in decoders.items():
        for path in (CORPUS / name).glob("seed*"):
            decode(path.read_bytes())


def test_a_canary(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that falls over is seen."""

    def broken(message: bytes) -> wire.Frame:
        raise IndexError(len(message))

    monkeypatch.setattr(wire, "decode_frame", broken)
    with pytest.raises(IndexError):
        frame(b"x")
