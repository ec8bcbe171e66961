"""From a tape to the files that a power cut could leave. Pure.

The fault model, per domain:

- `emulated`, `eadr`: stores take effect in order; the last one may be cut behind any word.
- `adr`: what was flushed before a drain of its files is there; of all other stores any subset of
  aligned 8-byte words.
- `page`: what was stored before a drain of its files is there; of all other pages of 4 KiB any,
  each as it stood at some moment since, torn at 512 bytes.

An image whose file grew since its size was last synced has the old size or the new one.
The native crash explorer builds its images by the same rules.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

WORD_BYTES: Final = 8
LINE_BYTES: Final = 64
SECTOR_BYTES: Final = 512
PAGE_BYTES: Final = 4096

LOG: Final = "log"
IMAGE: Final = "image"


class Kind(IntEnum):
    """What happened."""

    STORE = 1
    FLUSH = 2
    DRAIN = 3
    GROWN = 4
    """The image's new size became durable."""


@dataclass(frozen=True, slots=True)
class Event:
    """One store, flush or drain."""

    kind: Kind
    file: str
    """log, image or sums; a drain of the image is one of the sums too."""
    offset: int
    length: int
    data: bytes
    image_bytes: int
    """Size of the image's file at this moment."""


@dataclass(frozen=True, slots=True)
class CrashImage:
    """The files that a cut could leave."""

    number: int
    """The same for the same program, domain, seed and number of images."""
    domain: str
    seed: int
    cut: int
    """How many events had happened."""
    event_count: int
    """How many the whole program has."""
    lost: tuple[int, ...]
    """Of them, the stores that were lost, wholly or in part."""
    files: Mapping[str, bytes] = field(repr=False)
    """By name: log, image, sums."""

    def __str__(self) -> str:
        lost = ", ".join(map(str, self.lost[:12])) + (", …" if len(self.lost) > 12 else "")
        return (
            f"image {self.number} (domain {self.domain}, seed {self.seed}): cut behind event "
            f"{self.cut} of {self.event_count}, " + (f"stores {lost} lost" if lost else "none lost")
        )


@dataclass(slots=True)
class _Piece:
    """Part of a store within one cache line, not durable yet."""

    event: int
    file: str
    offset: int
    data: bytes
    is_flushed: bool = False

    def words(self) -> int:
        """Count the words that it touches."""
        first = self.offset // WORD_BYTES
        return (self.offset + len(self.data) - 1) // WORD_BYTES - first + 1

    def store(self, content: bytearray, mask: int) -> None:
        """Store the words that the mask names."""
        at, end, bit = self.offset, self.offset + len(self.data), 0
        while at < end:
            until = min(at - at % WORD_BYTES + WORD_BYTES, end)
            if mask >> bit & 1:
                content[at:until] = self.data[at - self.offset : until - self.offset]
            at, bit = until, bit + 1


class _Medium:
    """What is durable, and what is pending, while events go by."""

    def __init__(self, start: Mapping[str, bytes], is_page: bool) -> None:
        self.durable = {name: bytearray(content) for name, content in start.items()}
        self.pending: list[_Piece] = []
        self._is_page = is_page

    def _fit(self, file: str, end: int) -> bytearray:
        content = self.durable[file]
        if len(content) < end:
            content.extend(bytes(end - len(content)))
        return content

    def happen(self, number: int, event: Event) -> None:
        if event.kind is Kind.STORE:
            at, end = event.offset, event.offset + event.length
            while at < end:
                until = min(at - at % LINE_BYTES + LINE_BYTES, end)
                data = event.data[at - event.offset : until - event.offset]
                self.pending.append(_Piece(number, event.file, at, data))
                at = until
        elif event.kind is Kind.FLUSH:
            first = event.offset - event.offset % LINE_BYTES
            for piece in self.pending:
                if (
                    piece.file == event.file
                    and piece.offset < event.offset + event.length
                    and piece.offset + len(piece.data) > first
                ):
                    piece.is_flushed = True
        else:
            if event.file != LOG:
                self._fit(IMAGE, event.image_bytes)
            if event.kind is Kind.DRAIN:
                self._drain(event.file == LOG)

    def _drain(self, of_log: bool) -> None:
        kept = []
        for piece in self.pending:
            if (piece.file == LOG) == of_log and (self._is_page or piece.is_flushed):
                self.take(piece)
            else:
                kept.append(piece)
        self.pending = kept

    def take(self, piece: _Piece) -> None:
        """Make a piece durable."""
        piece.store(self._fit(piece.file, piece.offset + len(piece.data)), -1)

    def cut(self, masks: Sequence[int], image_bytes: int) -> dict[str, bytes]:
        """Return the files with some words of the pending pieces."""
        files = {name: bytearray(content) for name, content in self.durable.items()}
        if len(files[IMAGE]) < image_bytes:
            files[IMAGE].extend(bytes(image_bytes - len(files[IMAGE])))
        for piece, mask in zip(self.pending, masks, strict=True):
            if mask:
                piece.store(files[piece.file], mask)
        return {name: bytes(content) for name, content in files.items()}


def _full(piece: _Piece) -> int:
    return (1 << piece.words()) - 1


def _word_masks(pieces: Sequence[_Piece], count: int, rng: random.Random) -> Iterator[list[int]]:
    """None, all, some alone, all but some, and random subsets."""
    everything = [_full(piece) for piece in pieces]
    yield [0] * len(pieces)
    if not pieces:
        return
    yield everything
    for n in range(max(0, count - 2)):
        way = n % 4
        if way < 2:
            one = rng.randrange(len(pieces))
            bit = 1 << rng.randrange(pieces[one].words())
            masks = [0] * len(pieces) if way else list(everything)
            masks[one] ^= bit
            yield masks
        else:
            density = rng.random()
            by_line = way == 2
            yield [
                (full if rng.random() < density else 0)
                if by_line
                else sum(1 << b for b in range(full.bit_length()) if rng.random() < density)
                for full in everything
            ]


def _page_masks(pieces: Sequence[_Piece], count: int, rng: random.Random) -> Iterator[list[int]]:
    """Pages as they stood at some moment, whole or torn."""
    everything = [_full(piece) for piece in pieces]
    yield [0] * len(pieces)
    if not pieces:
        return
    yield everything
    for _ in range(max(0, count - 2)):
        density, is_torn, is_late = rng.random(), rng.random() < 0.5, rng.random() < 0.5
        chosen: dict[tuple[str, int], bool] = {}
        moments: dict[tuple[str, int], int] = {}
        masks = []
        for number, piece in enumerate(pieces):
            unit = SECTOR_BYTES if is_torn else PAGE_BYTES
            place = (piece.file, piece.offset // unit)
            page = (piece.file, piece.offset // PAGE_BYTES)
            is_there = chosen.setdefault(place, rng.random() < density)
            moment = moments.setdefault(page, rng.randrange(len(pieces) + 1))
            masks.append(everything[number] if is_there and (is_late or number <= moment) else 0)
        yield masks


def crash_images(
    events: Sequence[Event],
    start: Mapping[str, bytes],
    domain: str,
    *,
    seed: int,
    images: int,
    start_at: int = 0,
) -> Iterator[CrashImage]:
    """Build images that a cut could leave.

    Args:
        events: The tape.
        start: The files before its first event.
        domain: Whose fault model counts.
        seed: Of the choice, where not all fit.
        images: About how many.
        start_at: The first event behind which a cut is made.

    Yields:
        The images, in the order of their cuts.
    """
    rng = random.Random(seed)  # noqa: S311 - a choice that can be repeated
    medium = _Medium(start, domain == "page")
    is_ordered = domain in {"emulated", "eadr"}
    ends = [at for at, e in enumerate(events) if is_ordered or e.kind is Kind.DRAIN]
    cuts = [at for at in [*ends, len(events)] if at >= start_at]
    wanted = max(1, images // (2 if is_ordered else 6))
    if len(cuts) > wanted:
        cuts = sorted({cuts[-1], *rng.sample(cuts, wanted)})
    per_cut = max(2, images // max(1, len(cuts)))
    chosen, number = set(cuts), 0

    def image(cut: int, masks: Sequence[int], files: dict[str, bytes]) -> CrashImage:
        lost = {
            piece.event
            for piece, mask in zip(medium.pending, masks, strict=True)
            if mask & _full(piece) != _full(piece)
        }
        return CrashImage(number, domain, seed, cut, len(events), tuple(sorted(lost)), files)

    for at in range(len(events) + 1):
        event = events[at] if at < len(events) else None
        size = events[at - 1].image_bytes if at else len(medium.durable[IMAGE])
        if at in chosen and is_ordered:
            yield image(at, [], medium.cut([], size))
            number += 1
            if event is not None and event.kind is Kind.STORE and event.length > WORD_BYTES:
                medium.happen(at, event)
                keep = rng.randrange(sum(piece.words() for piece in medium.pending))
                masks = []
                for piece in medium.pending:
                    masks.append((1 << min(piece.words(), max(0, keep))) - 1)
                    keep -= piece.words()
                yield image(at, masks, medium.cut(masks, event.image_bytes))
                number += 1
                medium.pending = []
        elif at in chosen:
            kinds = _page_masks if domain == "page" else _word_masks
            for masks in kinds(medium.pending, per_cut, rng):
                reach = max(
                    (
                        piece.offset + len(piece.data)
                        for piece, mask in zip(medium.pending, masks, strict=True)
                        if mask and piece.file == IMAGE
                    ),
                    default=0,
                )
                old = len(medium.durable[IMAGE])
                has_grown = reach > old or rng.random() < 0.5
                yield image(at, masks, medium.cut(masks, size if has_grown else old))
                number += 1
        if event is not None:
            medium.happen(at, event)
            if is_ordered:
                for piece in medium.pending:
                    medium.take(piece)
                medium.pending = []
