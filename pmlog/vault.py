"""A vault: what receivers lack of a pool's log, in files on this host's disk; or the whole pool.

`docs/wire.md`, "Vaults", is the specification.  A vault is a folder:

- `log`: frames, one after the other, without a gap: the end of the log;
- `image`: frames too, the image's blocks, if no receiver is known that has a whole copy;
- `manifest`: what they are of, and how many;
- `sealed`: the primary's word that its log ends there.

Order of stores, so that no crash leaves what looks like a vault and is none: the files, below a name
that ends in `.new`, each synced; the folder, synced; the rename, its parent synced; then `sealed`.
Nothing without `sealed` is a vault, and nothing read from one is believed before digests, counts and
places agree.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import xxhash

from pmlog import marks, wire
from pmlog.errors import CorruptionError, FormatError, MediumError, PoolNotFoundError, ProtocolError
from pmlog.identity import Identity, Mark

VERSION: Final = 1
NEW: Final = ".new"
MANIFEST_BYTES_MAX: Final = 1 << 16


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a vault holds."""

    version: int
    identity: Identity
    first: wire.Place
    """Where its log begins."""
    end: wire.Place
    """Where its log, and the primary's, ends."""
    log_frames: int
    log_bytes: int
    """Raw bytes of the log."""
    image_frames: int
    """0: the image is not there."""
    mark: Mark | None = None
    """The checkpoint from which the log is applied to the image; there is an image."""


class Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The primary's word that its log ends there."""

    place: wire.Place
    manifest: str
    """xxh3-128 of the manifest's file."""


# ---- writing -----------------------------------------------------------------------------------


class VaultWriter:
    """Writes one vault.

    Args:
        parent: Folder of the vaults; made if it is not there.
        name: Of this one.

    Raises:
        MediumError: Writing failed; what is there is no vault.
    """

    def __init__(self, parent: Path, name: str) -> None:
        self.path = parent / name
        self._new = parent / (name + NEW)
        try:
            parent.mkdir(parents=True, exist_ok=True)
            # Left behind by a shipper that was killed: never a vault, never finished.
            if self._new.exists():
                shutil.rmtree(self._new)
            self._new.mkdir()
        except OSError as error:
            failed = _failed(self._new, error)
            raise failed from error

    def write(self, name: str, frames: Iterable[bytes]) -> tuple[int, int]:
        """Write a file of frames; durable on return.

        Args:
            name: The file.
            frames: They.

        Returns:
            How many they were, and their bytes.

        Raises:
            MediumError: Writing failed.
        """
        count = size = 0
        try:
            with open(self._new / name, "xb") as file:
                for frame in frames:
                    file.write(frame)
                    count += 1
                    size += len(frame)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            failed = _failed(self._new / name, error)
            raise failed from error
        return count, size

    def finish(self, manifest: Manifest) -> None:
        """Give it its name; durable on return.  It is no vault yet: `seal` makes it one.

        Args:
            manifest: What it holds.

        Raises:
            MediumError: Writing failed.
        """
        self.write("manifest", [msgspec.json.encode(manifest)])
        try:
            _sync_folder(self._new)
            if self.path.exists():  # finished but never sealed, by a shipper that was killed
                shutil.rmtree(self.path)
            os.rename(self._new, self.path)
            _sync_folder(self.path.parent)
        except OSError as error:
            failed = _failed(self.path, error)
            raise failed from error

    def discard(self) -> None:
        """Remove what was written so far."""
        shutil.rmtree(self._new, ignore_errors=True)


def seal(path: Path) -> None:
    """Make a finished folder a vault; durable on return.

    Args:
        path: The folder.

    Raises:
        MediumError: Writing failed.
        FormatError: It is not finished.
    """
    manifest, digest = _read_manifest(path)
    marks.store(path / "sealed", Sealed(manifest.end, digest))


def void(path: Path) -> None:
    """Take the seal of a vault back, durably; then remove what is left.

    Args:
        path: The vault.

    Raises:
        MediumError: Removing the seal failed; it is still a vault.
        PoolNotFoundError: There is no such folder: it may have been moved, with its seal.
    """
    if not path.is_dir():
        raise PoolNotFoundError(f"{path}: there is no such vault any more", path=str(path))
    marks.remove(path / "sealed")
    shutil.rmtree(path, ignore_errors=True)


def is_sealed(path: Path) -> bool:
    """Tell whether a folder is a vault.

    Args:
        path: The folder.

    Returns:
        Whether it has a seal.
    """
    return (path / "sealed").is_file()


# ---- reading -----------------------------------------------------------------------------------


def find(path: Path) -> Path:
    """Find the vault that is meant.

    Args:
        path: A vault, or a folder with exactly one in it.

    Returns:
        The vault.

    Raises:
        PoolNotFoundError: There is none.
        FormatError: There is more than one.
    """
    if is_sealed(path):
        return path
    inside = sorted(one for one in path.iterdir() if is_sealed(one)) if path.is_dir() else []
    if not inside:
        raise PoolNotFoundError(
            f"{path}: there is no sealed vault",
            hint="a folder without the file `sealed` was never finished, or power came back",
            path=str(path),
        )
    if len(inside) > 1:
        names = ", ".join(one.name for one in inside)
        raise FormatError(f"{path} holds several vaults: {names}", hint="name one of them")
    return inside[0]


class VaultReader:
    """A vault, verified as a whole.

    Args:
        path: The vault.

    Raises:
        FormatError: It is of a later version, or has no manifest.
        CorruptionError: A file is damaged, too short or too long.
        MediumError: Reading failed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest, digest = _read_manifest(path)
        sealed = marks.load(path / "sealed", Sealed)
        if sealed is None or sealed.manifest != digest or sealed.place != self.manifest.end:
            raise CorruptionError(f"{path}: the seal is not of this manifest")
        manifest = self.manifest
        size = sum(len(frame.data) for frame in self.log())
        if size != manifest.log_bytes or manifest.first.lsn + size != manifest.end.lsn:
            raise CorruptionError(f"{path / 'log'}: {size} bytes, not {manifest.log_bytes}")
        if sum(1 for _ in self.image()) != manifest.image_frames:
            raise CorruptionError(f"{path / 'image'}: blocks are missing")

    def log(self) -> Iterator[wire.Frame]:
        """Read the log.

        Yields:
            Its frames, verified, without a gap between them.

        Raises:
            CorruptionError: They are not that.
        """
        lsn = self.manifest.first.lsn
        for frame in self._frames("log", self.manifest.log_frames):
            if frame.lsn != lsn:
                raise CorruptionError(f"{self.path / 'log'}: LSN {frame.lsn}, not {lsn}")
            yield frame
            lsn += len(frame.data)

    def image(self) -> Iterator[wire.Frame]:
        """Read the image.

        Yields:
            Its blocks, verified; the LSN is the offset.
        """
        if self.manifest.mark is not None:
            yield from self._frames("image", self.manifest.image_frames)

    def _frames(self, name: str, count: int) -> Iterator[wire.Frame]:
        path, number = self.path / name, self.manifest.identity.pool_id
        try:
            with open(path, "rb") as file:
                for _ in range(count):
                    frame = _decode(path, file.read(wire.HEADER_BYTES), file.read)
                    if frame.pool_id != number or frame.epoch != self.manifest.end.epoch:
                        raise CorruptionError(f"{path}: a frame of another pool or epoch")
                    yield frame
                if file.read(1):
                    raise CorruptionError(f"{path}: there is more than {count} frames")
        except OSError as error:
            raise MediumError(f"cannot read {path}: {error}", os_errno=error.errno) from error


def _decode(path: Path, header: bytes, read: Callable[[int], bytes]) -> wire.Frame:
    if len(header) != wire.HEADER_BYTES:
        raise CorruptionError(f"{path}: it ends too early")
    size = wire.payload_bytes(header)
    payload = read(size) if size <= wire.FRAME_BYTES_MAX else b""
    try:
        return wire.decode_frame(header + payload)
    except ProtocolError as error:
        raise CorruptionError(f"{path}: {error}") from error


def _read_manifest(path: Path) -> tuple[Manifest, str]:
    where = path / "manifest"
    try:
        with open(where, "rb") as file:
            data = file.read(MANIFEST_BYTES_MAX)
    except OSError as error:
        raise FormatError(f"{path} is no vault: {error}") from error
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise CorruptionError(f"{where}: {error}") from error
    if manifest.version != VERSION:
        raise FormatError(f"{where}: version {manifest.version}, this program reads {VERSION}")
    return manifest, xxhash.xxh3_128_hexdigest(data)


def _failed(path: Path, error: OSError) -> MediumError:
    return MediumError(f"cannot write {path}: {error}", os_errno=error.errno)


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
