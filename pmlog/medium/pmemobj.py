"""Medium `pmemobj`: image and checksums in a pool of libpmemobj, which the engine writes through.

A pool's directory then holds `image.pmemobj` in place of `image` and `sums`.
libpmemobj sees one root object and one huge object:

    0             metadata of libpmemobj
    root          `struct pml_pmemobj_root`: where the regions are, 4096 bytes
    sums_offset   checksums of image pages
    image_offset  the image, up to the file's last 256 KiB or so

Offsets count from the file's first byte, which is also where libpmemobj maps it, in one piece.
The file is sparse: `attach` reserves the metadata and the image's first page, the engine reserves
the regions as they grow.
The room for the image is fixed when the file is made: as much as libpmemobj can give, see `Room`,
so that `max_size` is a matter of each open, as in the medium `file`.

Invariants:

1. `image.pmemobj` is complete: it is built as `image.pmemobj.new` and renamed when its bytes and
   its size are durable. A crash before that leaves a file that the next creation removes.
2. The object takes all of libpmemobj's heap. With a free heap the library could grow its own logs
   into pages that nothing has reserved, and a full tmpfs would end the process by SIGBUS.
3. libpmemobj follows its own pointers unchecked, so that a flipped bit may end the process. What
   never changes after creation is therefore checked before the library sees the file (`_inspect`).
4. A forked child has no mapping of the file: it neither reaches the pool nor keeps its lock.
5. `PMEM_IS_PMEM_FORCE` is never set, and settings of the library are put back after each use.

One thing cannot be helped: libpmemobj ends the process when a disk fails to take its bytes
(`pmem_msync: …`), where the medium `file` raises MediumError. What is committed is in the log.

Source: libpmemobj(7), pmemobj_open(3), pmemobj_ctl_get(3); docs/format.md.
"""

import contextlib
import errno
import fcntl
import functools
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

import cffi
import numpy as np

from pmlog import _engine, errors
from pmlog.limits import KIB, MIB

__all__ = [
    "FILE_NAME",
    "IMAGE_BYTES_MAX",
    "LAYOUT",
    "Attachment",
    "Room",
    "attach",
    "exists",
    "library_version",
    "load",
    "room_for",
]

SONAME = "libpmemobj.so.1"
PACKAGE: Final = "libpmemobj1"
FILE_NAME: Final = "image.pmemobj"
UNFINISHED_NAME: Final = FILE_NAME + ".new"
LAYOUT: Final = "pmlog"
"""Name of the layout, by which libpmemobj and `pmempool info` tell pools apart."""

_VERSION: Final = (2, 4)  # of the interface: libpmemobj 1.9 and later
_FILE_MODE: Final = 0o666  # as every file of a pool; umask applies
# What an unfinished creation may leave: `refuse_strangers` of the engine says the same.
_OWN_NAMES: Final = frozenset(
    {"lock", "log", "sums", "image.new", "control", FILE_NAME, UNFINISHED_NAME}
)

_ffi: Final[Any] = cffi.FFI()
_ffi.cdef("""
    typedef struct pmemobjpool PMEMobjpool;
    typedef struct { uint64_t pool_uuid_lo; uint64_t off; } PMEMoid;

    /* What the root object begins with; the rest of its 4096 bytes is zero. */
    struct pml_pmemobj_root {
        uint64_t magic;            /* "PMLROOT " */
        uint32_t version;          /* 1 */
        uint32_t checksum;         /* CRC-32C of this struct with this field zero */
        PMEMoid object;            /* holds both regions */
        uint64_t file_bytes;
        uint64_t sums_offset;      /* from the file's first byte, as all offsets here */
        uint64_t sums_bytes_max;
        uint64_t image_offset;
        uint64_t image_bytes_max;
        uint32_t fixed_checksum;   /* CRC-32C of what libpmemobj leaves as it was made */
        uint32_t reserved0;
        uint64_t reserved[6];
    };

    const char *pmemobj_check_version(unsigned major, unsigned minor);
    const char *pmemobj_errormsg(void);
    int pmemobj_ctl_get(PMEMobjpool *pop, const char *name, void *arg);
    int pmemobj_ctl_set(PMEMobjpool *pop, const char *name, void *arg);
    PMEMobjpool *pmemobj_create(const char *path, const char *layout, size_t size, unsigned mode);
    PMEMobjpool *pmemobj_open(const char *path, const char *layout);
    void pmemobj_close(PMEMobjpool *pop);
    PMEMoid pmemobj_root(PMEMobjpool *pop, size_t size);
    size_t pmemobj_root_size(PMEMobjpool *pop);
    int pmemobj_xalloc(PMEMobjpool *pop, PMEMoid *oid, size_t size, uint64_t type_num,
                       uint64_t flags, void *constructor, void *arg);
    size_t pmemobj_alloc_usable_size(PMEMoid oid);
    void pmemobj_flush(PMEMobjpool *pop, const void *addr, size_t len);
    void pmemobj_drain(PMEMobjpool *pop);
    int pmemobj_tx_begin(PMEMobjpool *pop, void *env, ...);
    void pmemobj_tx_set_failure_behavior(int behavior);
    int pmemobj_tx_add_range_direct(const void *ptr, size_t size);
    void pmemobj_tx_commit(void);
    void pmemobj_tx_abort(int error);
    int pmemobj_tx_stage(void);
    int pmemobj_tx_end(void);

    int madvise(void *addr, size_t length, int advice);
""")

_NULL: Final = _ffi.NULL
_ROOT_MAGIC: Final = int.from_bytes(b"PMLROOT ", "little")
_ROOT_VERSION: Final = 1
_ROOT_BYTES: Final = 4096
_ROOT_STRUCT_BYTES: Final = _ffi.sizeof("struct pml_pmemobj_root")
_OBJECT_TYPE: Final = 1
_TX_STAGE_NONE: Final = 0
_TX_STAGE_WORK: Final = 1
_TX_FAILURE_RETURN: Final = 1
_MADV_DONTFORK: Final = 10

# Geometry of libpmemobj's heap.
_CHUNK_BYTES: Final = 256 * KIB
_CHUNKS_OFFSET: Final = 0x382400  # of the first chunk in the file; the root lies in that chunk
_CHUNK_COUNT_MAX: Final = 65528  # of a zone; a second zone would stay free
_OBJECT_OFFSET: Final = _CHUNKS_OFFSET + _CHUNK_BYTES  # of the object's header
_OBJECT_HEADER_BYTES: Final = 16
_METADATA_BYTES: Final = 4 * MIB  # everything that the library itself writes to, rounded up

# Regions begin at multiples of every kernel page size in use, and end so too.
_REGION_UNIT: Final = 64 * KIB
_PAGE_BYTES: Final = 4096
_SUM_BYTES: Final = 4
_SUMS_HEADER_BYTES: Final = 4096
_IMAGE_BYTES_MIN: Final = 4 * MIB  # libpmemobj makes no file below 8 MiB


# ---- how much room there is: pure ---------------------------------------------------------------


class Room(NamedTuple):
    """Where the regions lie in a file, in bytes."""

    file_bytes: int
    object_bytes: int
    sums_offset: int
    sums_bytes_max: int
    image_offset: int
    image_bytes_max: int


def room_for(max_size: int) -> Room:
    """Plan a file.

    One object of libpmemobj fits into one zone of its heap, so that an image never has more than
    `IMAGE_BYTES_MAX`; a larger `max_size` gets that much, and the pool's status shows it.

    Args:
        max_size: Largest image that is wanted, in bytes.

    Returns:
        The plan. Its image has at least `max_size`, or `IMAGE_BYTES_MAX` if that is less.
    """
    wanted = min(max(max_size, _IMAGE_BYTES_MIN), _CHUNK_COUNT_MAX * _CHUNK_BYTES)
    sums_bytes = _round_up(
        _SUMS_HEADER_BYTES + _round_up(wanted, _REGION_UNIT) // _PAGE_BYTES * _SUM_BYTES,
        _REGION_UNIT,
    )
    sums_offset = _round_up(_OBJECT_OFFSET + _OBJECT_HEADER_BYTES, _REGION_UNIT)
    image_offset = sums_offset + sums_bytes
    object_end = image_offset + _round_up(wanted, _REGION_UNIT)
    chunk_count = min(-(-(object_end - _CHUNKS_OFFSET) // _CHUNK_BYTES), _CHUNK_COUNT_MAX)
    object_end = _CHUNKS_OFFSET + chunk_count * _CHUNK_BYTES
    # Rounding up to a chunk may leave room for more pages than have sums.
    pages_with_sums = (sums_bytes - _SUMS_HEADER_BYTES) // _SUM_BYTES
    image_bytes = min(object_end - image_offset, pages_with_sums * _PAGE_BYTES)
    return Room(
        file_bytes=_round_up(object_end, _PAGE_BYTES),
        object_bytes=object_end - _OBJECT_OFFSET - _OBJECT_HEADER_BYTES,
        sums_offset=sums_offset,
        sums_bytes_max=sums_bytes,
        image_offset=image_offset,
        image_bytes_max=image_bytes // _REGION_UNIT * _REGION_UNIT,
    )


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


_LARGEST: Final = room_for(_CHUNK_COUNT_MAX * _CHUNK_BYTES)
IMAGE_BYTES_MAX: Final = _LARGEST.image_bytes_max
"""Largest image of this medium: 16 GiB less 20 MiB or so."""


# ---- the library --------------------------------------------------------------------------------


def load() -> Any:
    """Load libpmemobj.

    Returns:
        Its functions, as cffi calls them.

    Raises:
        MediumError: It is not installed, or too old.
    """
    return _load(SONAME)


@functools.cache
def _load(soname: str) -> Any:
    try:
        library: Any = _ffi.dlopen(soname)
    except OSError as error:
        reason = str(error).partition(".  Additionally")[0]  # what else cffi has tried
        raise errors.MediumError(
            f"medium 'pmemobj' needs the system library libpmemobj, which cannot be loaded: {reason}",
            hint=f"install it (Debian, Ubuntu: apt-get install {PACKAGE}), or use medium='file'",
        ) from None
    complaint = library.pmemobj_check_version(*_VERSION)
    if complaint != _NULL:
        raise errors.MediumError(
            f"medium 'pmemobj' cannot use this libpmemobj: {_text(complaint)}",
            hint=f"install version 1.9 or later of the package {PACKAGE}",
        )
    return library


def library_version() -> str:
    """Return the version of libpmemobj's interface, as "2.4" of libpmemobj 1.12.

    Returns:
        Major and minor number.

    Raises:
        MediumError: It is not installed, or too old.
    """
    library = load()
    major, minor = _VERSION
    while library.pmemobj_check_version(major, minor + 1) == _NULL and minor < 99:
        minor += 1
    return f"{major}.{minor}"


def _text(message: Any) -> str:
    return str(_ffi.string(message), errors="replace")


# The library's settings are those of the whole process.
_settings_lock = threading.Lock()

_SETTINGS: Final = {
    b"fallocate.at_create": 0,  # else the whole file is allocated, up to 16 GiB
    b"prefault.at_create": 0,  # else every page is touched: SIGBUS where there is no room
    b"prefault.at_open": 0,
    b"copy_on_write.at_open": 0,  # else nothing that is stored reaches the file
}


def _renew_settings_lock() -> None:
    global _settings_lock  # noqa: PLW0603 - a thread of the parent may have held it at the fork
    _settings_lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_settings_lock)


@contextlib.contextmanager
def _settings(library: Any) -> Iterator[None]:
    """Make and open pools as this medium needs it, whatever PMEMOBJ_CONF says."""
    before: dict[bytes, int] = {}
    value = _ffi.new("int *")
    with _settings_lock:
        try:
            for name, wanted in _SETTINGS.items():
                is_refused = library.pmemobj_ctl_get(_NULL, name, value) != 0
                if not is_refused:
                    before[name], value[0] = value[0], wanted
                    is_refused = library.pmemobj_ctl_set(_NULL, name, value) != 0
                if is_refused:
                    raise errors.MediumError(
                        f"libpmemobj refuses its setting {name.decode()}: "
                        + _text(library.pmemobj_errormsg()),
                        hint="use medium='file'",
                    )
            yield
        finally:
            for name, value[0] in before.items():
                library.pmemobj_ctl_set(_NULL, name, value)


# ---- failures -----------------------------------------------------------------------------------

_Kind = type[errors.PmlogError]

_ROOM_HINT: Final = "make room, or use a smaller size and max_size"
_FAILURES: Final[dict[int, tuple[_Kind, str | None]]] = {
    errno.ENOSPC: (errors.PoolFullError, _ROOM_HINT),
    errno.EDQUOT: (errors.PoolFullError, _ROOM_HINT),
    errno.EFBIG: (
        errors.PoolFullError,
        "the file system, or `ulimit -f`, allows no file of that size: use a smaller max_size",
    ),
    errno.ENOMEM: (
        errors.MemoryExhaustedError,
        "the address space is short: see `ulimit -v`, or use a smaller max_size",
    ),
    errno.EACCES: (errors.PoolPermissionError, None),
    errno.EPERM: (errors.PoolPermissionError, None),
    errno.EROFS: (errors.PoolPermissionError, None),
    errno.ENOENT: (errors.PoolNotFoundError, None),
    errno.ENOTDIR: (errors.FormatError, "the path is a file; a pool is a directory"),
    errno.EWOULDBLOCK: (errors.PoolLockedError, None),
}
# libpmemobj says EINVAL for each of these, and for damage.
_FOREIGN: Final = ("wrong pool type", "wrong layout", "pool version")


def _failure(directory: Path, text: str, number: int) -> errors.PmlogError:
    kind, hint = _FAILURES.get(number, (errors.MediumError, None))
    fields = {"os_errno": number} if kind is errors.MediumError else {}
    return kind(f"{directory}: {text}", hint=hint, path=str(directory), **fields)


@contextlib.contextmanager
def _explained(directory: Path, doing: str) -> Iterator[None]:
    try:
        yield
    except errors.PmlogError:  # some are an OSError too
        raise
    except OSError as error:
        number = error.errno or 0
        raise _failure(directory, f"cannot {doing}: {os.strerror(number)}", number) from error


def _library_failure(directory: Path, doing: str, number: int, message: str) -> errors.PmlogError:
    """Make the error for a failed call of libpmemobj.

    Args:
        directory: The pool.
        doing: What failed.
        number: `errno` after the call; libpmemobj gives -1 for some of what it finds damaged.
        message: What `pmemobj_errormsg` said.

    Returns:
        The error, to be raised.
    """
    text, path = f"libpmemobj cannot {doing}: {message}", str(directory)
    if number == errno.EEXIST:
        return errors.PoolLockedError(
            f"{directory}: this process, or the one that it was forked from, already has a pool "
            "with the identity of this one open in libpmemobj",
            hint="close it first; open copies, and pools after a fork, in processes of their own",
            path=path,
        )
    if number == errno.EINVAL and any(word in message for word in _FOREIGN):
        return errors.FormatError(
            f"{directory}: {text}",
            hint="this file was not made by pmlog, or not by this release",
            path=path,
            file=FILE_NAME,
        )
    if number in (errno.EINVAL, -1):
        return errors.CorruptionError(f"{directory}: {text}", path=path, file=FILE_NAME)
    return _failure(directory, text, number)


def _failed(library: Any, directory: Path, doing: str, number: int) -> errors.PmlogError:
    """Make the error for the calling thread's last call of libpmemobj that failed."""
    return _library_failure(directory, doing, number, _text(library.pmemobj_errormsg()))


def _raise_damaged(
    directory: Path, offset: int, expected: int | None, found: int | None, what: str
) -> NoReturn:
    raise errors.CorruptionError(
        f"{directory}: {FILE_NAME}: {what}",
        path=str(directory),
        file=FILE_NAME,
        offset=offset,
        expected=expected,
        found=found,
    )


# ---- what stands in the file --------------------------------------------------------------------


def _crc32c(data: bytes, seed: int = 0) -> int:
    return int(_engine.lib.pml_crc32c(seed, _engine.ffi.from_buffer(data), len(data)))


def _root_checksum(root: Any) -> int:
    copy = _ffi.new("struct pml_pmemobj_root *", root[0])
    copy.checksum = 0
    return _crc32c(_ffi.buffer(copy)[:])


class _Metadata:
    """The library's own bytes, as a plain read of the file finds them.

    It knows libpmemobj's layout 6, the one since version 1.5.
    """

    SIGNATURE: Final = (0, b"PMEMOBJ\0")
    LAYOUT: Final = (0x1000, LAYOUT.encode() + b"\0")
    GEOMETRY: Final = (0x1400, b"".join(n.to_bytes(8, "little") for n in (0x2000, 1024, 0x302000)))
    ROOT_OFFSET: Final = slice(0x1800, 0x1808)
    # Root's size and the heap's size; the word between is the number of opens.
    SIZES: Final = slice(0x1810, 0x1828)
    # A lane is one thread's logs: two redo logs, which only allocations use, then an undo log with
    # eight words of header: checksum, next, capacity, generation, flags and three unused ones.
    LANES: Final = slice(0x2000, 0x302000)
    LANE_WORDS: Final = 384
    LANE_FIXED_WORDS: Final = (*range(120), 121, 122, 124, 125, 126, 127)
    UNDO_ENTRY: Final = 128  # words of the first one: operation and offset, checksum, size
    # Its header, a zone's header and the headers of all chunks.
    HEAP: Final = slice(0x302000, _CHUNKS_OFFSET)

    def __init__(self, descriptor: int) -> None:
        data = bytearray()
        while len(data) < _METADATA_BYTES:
            piece = os.pread(descriptor, _METADATA_BYTES - len(data), len(data))
            if not piece:
                break
            data += piece
        self.data = bytes(data)

    def _holds(self, known: tuple[int, bytes]) -> bool:
        offset, expected = known
        return self.data[offset : offset + len(expected)] == expected

    @property
    def is_known(self) -> bool:
        """Whether this is a file of ours; if not, libpmemobj finds out what it is."""
        return all(self._holds(known) for known in (self.SIGNATURE, self.LAYOUT, self.GEOMETRY))

    @property
    def root_offset(self) -> int:
        """Where the root object is."""
        return int.from_bytes(self.data[self.ROOT_OFFSET], "little")

    def _lanes(self) -> Any:
        return np.frombuffer(self.data[self.LANES], dtype="<u8").reshape(-1, self.LANE_WORDS)

    def fixed_checksum(self) -> int:
        """Return the CRC-32C of all that stays as it was made.

        Returns:
            0 if the file is not laid out as expected and nothing can be said.
        """
        if not self.is_known:
            return 0
        checksum = 0
        for piece in (
            self.data[self.ROOT_OFFSET],
            self.data[self.SIZES],
            self._lanes()[:, self.LANE_FIXED_WORDS].tobytes(),
            self.data[self.HEAP],
        ):
            checksum = _crc32c(piece, checksum)
        return checksum or 1

    def bad_undo_lane(self) -> int | None:
        """Find an undo log that libpmemobj would take for something else.

        The engine's transactions only ever copy ranges. An entry of another kind has no checksum,
        so that the library would carry out whatever a flipped bit made of it.

        Returns:
            Number of a lane that has one; None if there is none.
        """
        lanes = self._lanes()
        head, size = lanes[:, self.UNDO_ENTRY], lanes[:, self.UNDO_ENTRY + 2]
        capacity_bytes = (self.LANE_WORDS - self.UNDO_ENTRY - 3) * 8
        is_copy = (head >> np.uint64(61) == 6) & (size <= capacity_bytes)
        bad = np.flatnonzero((head != 0) & ~is_copy)
        return int(bad[0]) if bad.size else None


def _inspect(directory: Path, descriptor: int) -> int | None:
    """Refuse a file that libpmemobj could stumble over.

    The caller holds the file's lock: a live writer's transactions are no damage.

    Args:
        directory: The pool.
        descriptor: Of its file.

    Returns:
        Where the image is; None if this is no file of ours, which libpmemobj will refuse.

    Raises:
        CorruptionError: Something has changed that never changes.
    """
    metadata = _Metadata(descriptor)
    size = len(metadata.data)
    if size < _METADATA_BYTES:  # reading beyond the end would end the process by SIGBUS
        _raise_damaged(directory, size, _METADATA_BYTES, size, "the file is truncated")
    if not metadata.is_known:
        return None
    at = metadata.root_offset
    if at + _ROOT_STRUCT_BYTES > _METADATA_BYTES:
        _raise_damaged(directory, 0x1800, None, at, "the root object's offset is damaged")
    root = _ffi.new("struct pml_pmemobj_root *")
    _ffi.memmove(root, metadata.data[at : at + _ROOT_STRUCT_BYTES], _ROOT_STRUCT_BYTES)
    _check_root(directory, at, root)
    size = os.fstat(descriptor).st_size
    if size != root.file_bytes:
        _raise_damaged(directory, size, root.file_bytes, size, "the file has another size")
    if root.fixed_checksum:
        found = metadata.fixed_checksum()
        if found != root.fixed_checksum:
            _raise_damaged(
                directory, 0, root.fixed_checksum, found, "libpmemobj's metadata are damaged"
            )
        lane = metadata.bad_undo_lane()
        if lane is not None:
            offset = metadata.LANES.start + 8 * (lane * metadata.LANE_WORDS + metadata.UNDO_ENTRY)
            _raise_damaged(directory, offset, None, None, "libpmemobj's undo log is damaged")
    return int(root.image_offset)


def _check_root(directory: Path, at: int, root: Any) -> None:
    if root.magic != _ROOT_MAGIC:
        _raise_damaged(
            directory, at, _ROOT_MAGIC, root.magic, "the root object does not begin with its magic"
        )
    checksum = _root_checksum(root)
    if root.checksum != checksum:
        _raise_damaged(directory, at, checksum, root.checksum, "the root object is damaged")
    if root.version != _ROOT_VERSION:
        raise errors.FormatError(
            f"{directory}: {FILE_NAME} has version {root.version}, this library reads {_ROOT_VERSION}",
            path=str(directory),
            file=FILE_NAME,
            offset=at,
            expected=_ROOT_VERSION,
            found=root.version,
        )
    for region, start, size in (
        ("sums", root.sums_offset, root.sums_bytes_max),
        ("image", root.image_offset, root.image_bytes_max),
    ):
        if start % _PAGE_BYTES or size > root.file_bytes or start > root.file_bytes - size:
            _raise_damaged(directory, at, None, start, f"the {region} region is outside the file")


# ---- opening and making -------------------------------------------------------------------------


class Attachment:
    """A pool of libpmemobj that is open in this process.

    It holds libpmemobj's lock on the file until `close`.
    The engine stores through `api` and must be closed before it.

    Attributes:
        api: `struct pml_pmemobj_api *` for `pml_open`; valid as long as this object is.
        image_bytes_max: The largest image that fits, in bytes.
        was_created: Whether `attach` made the file.
    """

    def __init__(
        self, library: Any, directory: Path, pool: Any, root: Any, *, was_created: bool
    ) -> None:
        self._library = library
        self._pool: Any = pool
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self.directory = directory
        self.was_created = was_created
        self.image_bytes_max = int(root.image_bytes_max)
        self._magic = _ffi.cast("uint64_t *", _ffi.cast("char *", pool) + root.image_offset)
        self.api = _api(library, pool, root)

    @property
    def is_closed(self) -> bool:
        """Whether this process can no longer reach the pool through it."""
        return self._pool is None or os.getpid() != self._pid

    def close(self) -> None:
        """Unmap the file and let go of its lock; in a forked child, do nothing.

        Nothing is made durable here: what the engine has drained is, what it has not may be.
        A new file without a header in its image, because the engine's part of the creation failed,
        is removed: it holds nothing.
        May be called again.
        """
        if os.getpid() != self._pid:
            return
        with self._lock:
            pool, self._pool = self._pool, None
            if pool is None:
                return
            if self.was_created and self._magic[0] == 0:
                with contextlib.suppress(OSError):
                    os.unlink(self.directory / FILE_NAME)
            self._library.pmemobj_close(pool)


def _api(library: Any, pool: Any, root: Any) -> Any:
    """Hand the engine what it calls: it does not link libpmemobj, and its cffi is another one."""
    api: Any = _engine.ffi.new("struct pml_pmemobj_api *")

    def address(pointer: Any) -> Any:
        return _engine.ffi.cast("void *", int(_ffi.cast("uintptr_t", pointer)))

    api.pool = address(pool)
    api.image_offset = root.image_offset
    api.image_bytes_max = root.image_bytes_max
    api.sums_offset = root.sums_offset
    api.sums_bytes_max = root.sums_bytes_max
    for name in (
        "flush",
        "drain",
        "tx_begin",
        "tx_set_failure_behavior",
        "tx_add_range_direct",
        "tx_commit",
        "tx_abort",
        "tx_end",
    ):
        setattr(api, f"{name}_fn", address(_ffi.addressof(library, f"pmemobj_{name}")))
    return api


def exists(directory: Path) -> bool:
    """Tell whether a directory holds a pool of this medium, finished or not.

    Args:
        directory: The pool.

    Returns:
        Whether it has an `image.pmemobj`.
    """
    return os.path.exists(directory / FILE_NAME)


def attach(directory: Path, *, max_size: int, create: bool) -> Attachment:
    """Open a pool's `image.pmemobj` for its writer, or make it.

    An interrupted transaction of libpmemobj is rolled back.
    A new file is durable on return, name and size included; its regions are zero.

    Args:
        directory: The pool; made if absent and `create` is given.
        max_size: Largest image that is wanted, in bytes. A new file has room for
            `IMAGE_BYTES_MAX`; only where no file of that size can be, for this much.
        create: Make the file if there is none.

    Returns:
        The open pool.

    Raises:
        MediumError: libpmemobj is not installed or too old, or it failed.
        PoolNotFoundError: There is no pool, and `create` is not given.
        PoolLockedError: Another process, or another handle of this one, has it open.
        PoolPermissionError: The file system refuses. On persistent memory an ordinary user may
            need `PMEMOBJ_CONF="sds.at_create=0"`, see pmemobj_ctl_get(3).
        PoolFullError: No room for a new file's metadata (4 MiB), or no file may be that large.
        MemoryExhaustedError: The address space is short.
        FormatError: The path is a file, the directory somebody else's, the file no pool of ours.
        UsageError: The pool's medium is `file`.
        CorruptionError: The file is damaged, or missing where the pool's log is there.
    """
    library = load()
    if create:
        with _explained(directory, "make the directory"), contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o777)
    if exists(directory):
        return _open(library, directory)
    _refuse_strangers(directory)
    if not create:
        raise errors.PoolNotFoundError(
            f"{directory}: the directory holds no pool", path=str(directory)
        )
    with _creating(directory):
        if not exists(directory):
            return _create(library, directory, max_size)
    return _open(library, directory)  # made by somebody else just now


def _refuse_strangers(directory: Path) -> None:
    """Make sure that a new file takes nobody's place."""
    with _explained(directory, "list the directory"):
        names = set(os.listdir(directory))
    if "image" in names:
        raise errors.UsageError(
            f"{directory}: the pool's medium is file",
            hint="open it with medium='file'",
            path=str(directory),
        )
    if strangers := sorted(names - _OWN_NAMES):
        raise errors.FormatError(
            f"{directory}: the directory is not a pool: it holds {strangers[0]!r}",
            hint="give the pool a directory of its own",
            path=str(directory),
        )
    if "log" in names and _has_records(directory):
        _raise_damaged(directory, 0, None, None, "the file is missing, but the pool's log is there")


def _has_records(directory: Path) -> bool:
    """Tell a pool's log from that of an unfinished creation, as `log_is_pristine` of the engine."""
    with _explained(directory, "read log"), open(directory / "log", "rb") as log:
        log.seek(_engine.lib.PML_RING_OFFSET + _engine.lib.PML_LSN_FIRST)
        return any(log.read(_engine.lib.PML_LINE))


@contextlib.contextmanager
def _creating(directory: Path) -> Iterator[None]:
    """Keep others from making the same file, or from taking it for a leftover."""
    with _explained(directory, "open the directory"):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _flock(directory, descriptor)
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _flock(directory: Path, descriptor: int) -> None:
    try:
        with _explained(directory, "lock it"):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except errors.PoolLockedError:
        raise _locked(directory, descriptor) from None


def _locked(directory: Path, descriptor: int) -> errors.PoolLockedError:
    pid = _holder(os.fstat(descriptor))
    holder = "another process" if pid is None else f"process {pid}"
    return errors.PoolLockedError(
        f"{directory}: open for writing by {holder}", pid=pid, path=str(directory)
    )


def _holder(status: os.stat_result) -> int | None:
    """Find who holds the lock on a file; None if the kernel does not tell."""
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with contextlib.suppress(OSError), open("/proc/locks", encoding="ascii") as lines:
        for line in lines:
            fields = line.split()
            if fields[1:2] == ["FLOCK"] and fields[5:6] == [device]:
                return int(fields[4]) if int(fields[4]) > 0 else None
    return None


def _open(library: Any, directory: Path) -> Attachment:
    path = directory / FILE_NAME
    with _explained(directory, f"open {FILE_NAME}"):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        _flock(directory, descriptor)
        try:
            image_offset = _inspect(directory, descriptor)
            with _explained(directory, f"reserve room for {FILE_NAME}"):
                _reserve(descriptor, image_offset)  # a restored copy may have holes
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # libpmemobj wants it for itself
        with _settings(library):
            pool = library.pmemobj_open(os.fsencode(path), LAYOUT.encode())
            number = _ffi.errno
        if not pool:
            if number == errno.EWOULDBLOCK:  # somebody was quicker
                raise _locked(directory, descriptor)
            raise _failed(library, directory, f"open {FILE_NAME}", number)
    finally:
        os.close(descriptor)
    return _attached(library, directory, pool, was_created=False)


def _reserve(descriptor: int, image_offset: int | None) -> None:
    """Reserve what is read or written before the engine reserves its regions."""
    os.posix_fallocate(descriptor, 0, _METADATA_BYTES)
    if image_offset is not None:
        os.posix_fallocate(descriptor, image_offset, _PAGE_BYTES)


def _create(library: Any, directory: Path, max_size: int) -> Attachment:
    try:
        return _build(library, directory, _LARGEST)
    except errors.CapacityError:  # limits on file size or address space may allow a smaller one
        if max_size >= IMAGE_BYTES_MAX:
            raise
        return _build(library, directory, room_for(max_size))


def _build(library: Any, directory: Path, room: Room) -> Attachment:
    unfinished = directory / UNFINISHED_NAME
    with _explained(directory, f"make {UNFINISHED_NAME}"):
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(
            unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE
        )
    pool = None
    try:
        with _explained(directory, f"reserve room for {FILE_NAME}"):
            os.ftruncate(descriptor, room.file_bytes)
            _reserve(descriptor, room.image_offset)
        with _settings(library):
            pool = library.pmemobj_create(os.fsencode(unfinished), LAYOUT.encode(), 0, 0)
            number = _ffi.errno
        if not pool:
            raise _failed(library, directory, f"make {FILE_NAME}", number)
        _format(library, directory, pool, room, descriptor)
        with _explained(directory, f"make {FILE_NAME} durable"):
            os.fsync(descriptor)
            os.rename(unfinished, directory / FILE_NAME)
            _sync_directory(directory)
    except BaseException:
        if pool:
            library.pmemobj_close(pool)
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return _attached(library, directory, pool, was_created=True)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _format(library: Any, directory: Path, pool: Any, room: Room, descriptor: int) -> None:
    """Allocate the regions and write the root object."""
    doing = f"allocate the regions of {FILE_NAME}"
    oid = library.pmemobj_root(pool, _ROOT_BYTES)
    if not oid.off:
        raise _failed(library, directory, doing, _ffi.errno)
    root = _ffi.cast("struct pml_pmemobj_root *", _ffi.cast("char *", pool) + oid.off)
    place = _ffi.addressof(root, "object")
    if library.pmemobj_xalloc(pool, place, room.object_bytes, _OBJECT_TYPE, 0, _NULL, _NULL):
        raise _failed(library, directory, doing, _ffi.errno)
    if (
        root.object.off != _OBJECT_OFFSET + _OBJECT_HEADER_BYTES
        or library.pmemobj_alloc_usable_size(root.object) != room.object_bytes
        or oid.off + _ROOT_BYTES > _METADATA_BYTES
    ):
        raise errors.MediumError(
            f"{directory}: this libpmemobj places its objects in another way than version 1.12",
            hint="use medium='file', and please report it",
            path=str(directory),
        )
    new = _ffi.new("struct pml_pmemobj_root *")
    new.magic, new.version = _ROOT_MAGIC, _ROOT_VERSION
    new.object = root.object
    new.file_bytes = room.file_bytes
    new.sums_offset, new.sums_bytes_max = room.sums_offset, room.sums_bytes_max
    new.image_offset, new.image_bytes_max = room.image_offset, room.image_bytes_max
    new.fixed_checksum = _Metadata(descriptor).fixed_checksum()
    new.checksum = _root_checksum(new)
    status = _store(library, pool, root, _ffi.buffer(new)[:])
    if status:
        raise _failed(library, directory, "write the root object", status)


def _store(library: Any, pool: Any, destination: Any, data: bytes) -> int:
    """Replace bytes of the pool in one transaction of libpmemobj.

    A transaction that is left open, or ended in the wrong stage, ends the process: the stage
    decides how to get out, also when a signal handler raises halfway.

    Returns:
        0, or an error number; then nothing changed.
    """
    status = 0
    try:
        status = library.pmemobj_tx_begin(pool, _NULL, _ffi.cast("int", 0))
        if status == 0:
            library.pmemobj_tx_set_failure_behavior(_TX_FAILURE_RETURN)
            status = library.pmemobj_tx_add_range_direct(destination, len(data))
        if status == 0:
            _ffi.memmove(destination, data, len(data))
            library.pmemobj_tx_commit()
    finally:
        if library.pmemobj_tx_stage() == _TX_STAGE_WORK:
            library.pmemobj_tx_abort(status or errno.ECANCELED)
        if library.pmemobj_tx_stage() != _TX_STAGE_NONE:
            status = library.pmemobj_tx_end() or status
    return int(status)


def _attached(library: Any, directory: Path, pool: Any, *, was_created: bool) -> Attachment:
    """Check what libpmemobj has opened, and keep forked children away from it."""
    try:
        size = library.pmemobj_root_size(pool)
        if size != _ROOT_BYTES:  # asking for another size would move the root
            _raise_damaged(
                directory, 0x1810, _ROOT_BYTES, size, "the root object's size is damaged"
            )
        oid = library.pmemobj_root(pool, _ROOT_BYTES)
        root = _ffi.cast("struct pml_pmemobj_root *", _ffi.cast("char *", pool) + oid.off)
        _check_root(directory, oid.off, root)
        # libpmemobj's lock lives as long as any mapping of the file does, and a forked child
        # inherits mappings: the pool would stay locked until the child ends or execs.
        if _libc().madvise(pool, root.file_bytes, _MADV_DONTFORK) != 0:
            raise _failure(directory, f"cannot keep {FILE_NAME} from forked children", _ffi.errno)
        return Attachment(library, directory, pool, root, was_created=was_created)
    except BaseException:
        library.pmemobj_close(pool)
        raise


@functools.cache
def _libc() -> Any:
    return _ffi.dlopen(None)
