"""The distributions of keys that YCSB defines (Cooper et al., SoCC 2010, and its CoreWorkload)."""

from __future__ import annotations

import random
from collections.abc import Callable

ZIPFIAN_CONSTANT = 0.99

_FNV_OFFSET = 0xCBF29CE484222325
_FNV_PRIME = 1099511628211
_MASK = (1 << 64) - 1


def fnv64(number: int) -> int:
    """FNV-1a of the 8 bytes of a number, as YCSB scrambles ranks."""
    value = _FNV_OFFSET
    for _ in range(8):
        value = ((value ^ (number & 0xFF)) * _FNV_PRIME) & _MASK
        number >>= 8
    return value


class Zipfian:
    """Ranks from 0 by Gray et al.'s method; rank 0 is the most popular."""

    def __init__(self, items: int, rng: random.Random) -> None:
        self.items = items
        self.rng = rng
        theta = ZIPFIAN_CONSTANT
        self.zetan = sum(1 / (n + 1) ** theta for n in range(items))
        self.alpha = 1 / (1 - theta)
        zeta2 = 1 + 0.5**theta
        self.eta = (1 - (2 / items) ** (1 - theta)) / (1 - zeta2 / self.zetan)
        self.half = 1 + 0.5**theta

    def next(self) -> int:
        u = self.rng.random()
        uz = u * self.zetan
        if uz < 1:
            return 0
        if uz < self.half:
            return 1
        return min(self.items - 1, int(self.items * (self.eta * u - self.eta + 1) ** self.alpha))


def scrambled_zipfian(items: int, rng: random.Random) -> Callable[[], int]:
    """Popular items lie scattered over the keys."""
    ranks = Zipfian(items, rng)
    return lambda: fnv64(ranks.next()) % items


def latest(items: int, rng: random.Random) -> Callable[[int], int]:
    """The newest are the most popular: takes how many there are by now."""
    ranks = Zipfian(items, rng)
    return lambda count: count - 1 - ranks.next()


def uniform(items: int, rng: random.Random) -> Callable[[], int]:
    return lambda: rng.randrange(items)
