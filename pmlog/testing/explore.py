"""What a power cut would leave of a program, and whether that is what must hold.

def program(pool, note):
    orders = pool.dict("orders")
    for n in range(3):
        orders[n] = n * n
        note(n)

def check(pool, notes):
    assert len(pool.dict("orders")) in (len(notes), len(notes) + 1)

for violation in explore(program, check, domain="adr"):
    print(violation)
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import UUID

import xxhash

from pmlog._engine import ffi, lib
from pmlog.check import check as check_pool
from pmlog.errors import ConfigError, MemoryExhaustedError
from pmlog.identity import Identity
from pmlog.pool import Pool
from pmlog.pool import open as open_pool
from pmlog.replica import Replica
from pmlog.sizes import parse_size
from pmlog.testing.faults import new_tape
from pmlog.testing.images import CrashImage, Event, Kind, crash_images

_FILES: Final = ("log", "image", "sums")
_SHM: Final = Path("/dev/shm")  # noqa: S108 - only where it is a tmpfs, and a fresh folder there
DOMAINS: Final = ("emulated", "eadr", "adr", "page")


class Note(Protocol):
    """What a program calls behind each thing that it will count on."""

    def __call__(self, value: object) -> None:
        """Remember a value, with the moment.

        Args:
            value: What the check is given for each cut behind this moment.
        """
        ...


Program = Callable[[Pool, Note], object]
Check = Callable[[Pool, Sequence[Any]], object]


@dataclass(frozen=True, slots=True)
class Violation:
    """An image for which the check, the open or the checker failed."""

    image: CrashImage
    notes: tuple[Any, ...]
    """What the program had noted before the cut."""
    error: BaseException
    """What the check raised; for a fault of the pool, what `pmlog.check` says of it."""
    images: int
    """As given to `explore`."""

    def __str__(self) -> str:
        image = self.image
        replay = f"domain={image.domain!r}, seed={image.seed}, images={self.images}"
        return (
            f"{image}, {len(self.notes)} notes: {type(self.error).__name__}: {self.error}\n"
            f"replay: explore(program, check, {replay}, only={image.number})"
        )


def _scratch() -> Path:
    parent = _SHM if os.access(_SHM, os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="pmlog-explore-", dir=parent))


class CrashRecorder:
    """Runs a program on a pool of its own, and records every store, flush and drain.

    Args:
        domain: "emulated", "eadr", "adr" or "page": how the pool writes, and what a cut may lose.
        seed: Of the choice of images, and of the pool's own random numbers.
        size: First size of the image: images are quicker to build of a small one.
        max_size: Up to which it grows.
        log_size: Size of the log.

    Raises:
        ConfigError: There is no such domain, or a size cannot be used.
    """

    def __init__(
        self,
        *,
        domain: str = "adr",
        seed: int = 0,
        size: int | str = "1MiB",
        max_size: int | str = "64MiB",
        log_size: int | str = "256KiB",
    ) -> None:
        if domain not in DOMAINS:
            raise ConfigError(f"domain {domain!r}: give one of {', '.join(DOMAINS)}")
        self.domain = domain
        self.seed = seed
        self.max_size = parse_size(max_size)
        self.events: tuple[Event, ...] = ()
        self._identity = self._make_identity(parse_size(size), parse_size(log_size))
        self._start: dict[str, bytes] = {}
        self._notes: list[tuple[int, Any]] = []

    def _make_identity(self, image_bytes: int, ring_bytes: int) -> Identity:
        """The same pool for the same seed: a violation can be replayed."""
        bits = hashlib.sha256(str(self.seed).encode()).digest()
        key = int.from_bytes(bits[16:24], "little"), int.from_bytes(bits[24:], "little")
        unit = 65536
        return Identity(
            UUID(bytes=bits[:16]),
            self.seed % 2**63,
            -(-ring_bytes // unit) * unit,
            key,
            -(-image_bytes // unit) * unit,
        )

    def run(self, program: Program) -> None:
        """Run the program and record it.

        Args:
            program: Called with the pool and `note`; it opens no other pool.

        Raises:
            PmlogError: The pool cannot be made.
            MemoryExhaustedError: The recording does not fit into memory.
        """
        folder = _scratch()
        tape = new_tape(records=True)
        self._notes = []
        try:
            path = folder / "pool"
            Replica(path, self._identity, max_size=self.max_size, background=False).close()
            self._start = {name: (path / name).read_bytes() for name in _FILES}
            lib.pml_tape_use(tape)
            try:
                pool = open_pool(path, domain=self.domain, max_size=self.max_size)
            finally:
                lib.pml_tape_use(ffi.NULL)
            with pool:
                program(pool, lambda value: self._note(tape, value))
            self.events = self._read(tape)
        finally:
            lib.pml_tape_free(tape)
            shutil.rmtree(folder, ignore_errors=True)

    def _note(self, tape: Any, value: object) -> None:
        self._notes.append((int(lib.pml_tape_count(tape)), value))

    def _read(self, tape: Any) -> tuple[Event, ...]:
        count = lib.pml_tape_count(tape)
        if count < 0:
            raise MemoryExhaustedError("the recording does not fit into memory")
        events = []
        for number in range(count):
            raw = lib.pml_tape_event(tape, number)
            kind = Kind(raw.kind)
            is_store = kind is Kind.STORE
            data = (
                bytes(ffi.buffer(lib.pml_tape_bytes(tape, raw.at), raw.length)) if is_store else b""
            )
            events.append(
                Event(kind, _FILES[raw.file], raw.offset, raw.length, data, raw.image_bytes)
            )
        return tuple(events)

    def images(self, count: int = 1000) -> Iterator[CrashImage]:
        """Build images that a cut could have left of the program.

        Args:
            count: About how many; the seed chooses where there are more.

        Yields:
            The images. Some may be equal.
        """
        yield from crash_images(self.events, self._start, self.domain, seed=self.seed, images=count)

    def notes_before(self, image: CrashImage) -> tuple[Any, ...]:
        """Tell what the program had noted when the cut came.

        Args:
            image: One of `images`.

        Returns:
            The values, oldest first.
        """
        return tuple(value for at, value in self._notes if at <= image.cut)


def write_image(image: CrashImage, path: Path) -> None:
    """Make a pool's folder of an image, in place of what is there.

    Args:
        image: The image.
        path: The folder.
    """
    path.mkdir(exist_ok=True)
    for extra in ("control", "lock"):
        (path / extra).unlink(missing_ok=True)
    for name, content in image.files.items():
        (path / name).write_bytes(content)


def explore(
    program: Program,
    check: Check,
    *,
    domain: str = "adr",
    seed: int = 0,
    images: int = 1000,
    only: int | None = None,
    size: int | str = "1MiB",
    max_size: int | str = "64MiB",
    log_size: int | str = "256KiB",
) -> Iterator[Violation]:
    """Run a program, cut its power at many moments, and check what each cut leaves.

    The program runs once, on a pool of its own. For each image `pmlog.open` recovers a pool from
    it, `check` looks at that, and afterwards `pmlog.check` must find no fault. A program that does
    the same for the same seed has the same images.

    Args:
        program: Called with a new pool and `note`. `note(value)` says that from now on a cut must
            not lose something.
        check: Called with the recovered pool and the values noted before the cut; raises when the
            state is none that may be seen. A transaction that had begun may be there or not.
        domain: "emulated", "eadr", "adr" or "page".
        seed: Of all choices.
        images: About how many images.
        only: The number of one image, from a violation: the others are left out.
        size: First size of the image.
        max_size: Up to which it grows.
        log_size: Size of the log.

    Yields:
        Every image for which the open, the check or the checker failed.

    Raises:
        ConfigError: An option cannot be used, or there is no such image.
        PmlogError: The program's pool cannot be made.

    Cost:
        About 3 ms an image of 1 MiB.
    """
    recorder = CrashRecorder(
        domain=domain, seed=seed, size=size, max_size=max_size, log_size=log_size
    )
    recorder.run(program)
    seen: set[tuple[int, int]] = set()
    folder = _scratch()
    try:
        for image in recorder.images(images):
            if only is not None and image.number != only:
                continue
            notes = recorder.notes_before(image)
            digest = xxhash.xxh3_64()
            for name in _FILES:
                digest.update(image.files[name])
            key = (digest.intdigest(), len(notes))
            if key in seen:
                continue
            seen.add(key)
            if error := _try(image, check, notes, folder / "pool", recorder.max_size):
                yield Violation(image, notes, error, images)
        if not seen:
            raise ConfigError("there is no image of that number")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _try(
    image: CrashImage, check: Check, notes: Sequence[Any], path: Path, max_size: int
) -> Exception | None:
    write_image(image, path)
    try:
        with open_pool(path, domain=image.domain, max_size=max_size) as pool:
            check(pool, notes)
        if found := check_pool(path):
            return AssertionError(f"pmlog.check finds: {found[0]}")
    except Exception as error:  # whatever it is, it is the finding
        return error
    return None
