"""What the header of a pool's image says, read from its file alone: it changes nothing.

A damaged pool cannot be opened, nor its log be read where both marks are gone; whose copy it is
its header still says.
"""

import os
from pathlib import Path
from typing import Final
from uuid import UUID

from pmlog._engine import ffi, lib
from pmlog.errors import (
    ConfigError,
    CorruptionError,
    FormatError,
    MediumError,
    PoolNotFoundError,
)
from pmlog.identity import Identity

_MAGIC: Final = b"PMLIMAGE"
_SIZE: Final[int] = ffi.sizeof("struct pml_image_header")
_HINT: Final = "nothing tells whose copy it is: receive into a new folder, and move this one away"


def identity_of(path: str | os.PathLike[str]) -> Identity:
    """Tell whose copy a folder holds.

    Args:
        path: The pool's folder.

    Returns:
        What its header says; `image_bytes` is the size of the file.

    Raises:
        PoolNotFoundError: There is no pool.
        ConfigError: The pool is of another medium than `file`.
        CorruptionError: The header itself is damaged.
        FormatError: It is a later version's, or no pool's.
        MediumError: It cannot be read.
    """
    place, file = os.fsdecode(path), Path(path, "image")
    if not Path(path, "log").exists() and not file.exists():
        raise PoolNotFoundError(f"{place}: there is no pool", path=place)
    if Path(path, "image.pmemobj").exists():
        raise ConfigError(f"{place}: of medium pmemobj", hint="copies are of medium file")
    try:
        with open(file, "rb") as image:
            data = image.read(_SIZE)
            size = os.fstat(image.fileno()).st_size
    except OSError as error:
        raise MediumError(f"{place}: {error}", path=place, os_errno=error.errno) from error
    header = ffi.new("struct pml_image_header *")
    ffi.memmove(header, data.ljust(_SIZE, b"\0"), _SIZE)
    checksum, header.checksum = header.checksum, 0
    if data[:8] != _MAGIC or lib.pml_crc32c(0, header, _SIZE) != checksum:
        raise CorruptionError(
            f"{place}: the header of its image is damaged", hint=_HINT, path=place, file="image"
        )
    if header.version != lib.PML_FORMAT_VERSION:
        raise FormatError(f"{place}: format version {header.version}", path=place, file="image")
    return Identity(
        pool_id=UUID(bytes=bytes(ffi.buffer(header.pool_id))),
        created_ns=header.created_ns,
        ring_bytes=header.ring_bytes,
        hash_seed=(header.hash_seed[0], header.hash_seed[1]),
        image_bytes=size,
    )
