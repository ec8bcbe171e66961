"""Reading a pool's image in blocks, beside its writer, for baselines.

The blocks are of different moments; the log makes them one: docs/wire.md, "Baseline".
Each page is checked against its checksum, so that rot is not copied as if it were sound.
"""

import os
import time
from collections.abc import Iterator
from struct import Struct
from types import TracebackType
from typing import Final, Self

import xxhash

from pmlog import limits
from pmlog._engine import lib
from pmlog.errors import CorruptionError, MediumError

BODY_OFFSET: Final[int] = lib.PML_BODY_OFFSET
PAGE_BYTES: Final[int] = lib.PML_PAGE
_SUMS_OFFSET: Final[int] = lib.PML_SUMS_OFFSET
_ZERO_SUM: Final[int] = lib.pml_crc32c(0, bytes(PAGE_BYTES), PAGE_BYTES)
# Of `struct pml_log_header`: where image and sums begin in their file.
_OFFSETS: Final = Struct("<QQ")
_OFFSETS_AT: Final = 40

SETTLE_S: Final = 5.0
"""A checkpoint stores pages first and their checksums at its end; that takes no longer."""
_STEP_S: Final = 0.005


def blocks_of(image_bytes: int) -> Iterator[tuple[int, int]]:
    """Cut an image into blocks.

    Args:
        image_bytes: Its size.

    Yields:
        Offset and size of each; the first one leaves out what is not of the image's body.
    """
    for start in range(0, image_bytes, limits.BLOCK_BYTES):
        offset = max(start, BODY_OFFSET)
        yield offset, min(start + limits.BLOCK_BYTES, image_bytes) - offset


class ImageReader:
    """The image of one pool, as it is in its file.

    Args:
        path: The pool's folder.

    Raises:
        MediumError: Its files cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fsdecode(path)
        self._files: list[int] = []
        names = ("image.pmemobj", "image.pmemobj")
        if not os.path.exists(os.path.join(self.path, names[0])):
            names = ("image", "sums")
        try:
            for name in (*names, "log"):
                self._files.append(os.open(os.path.join(self.path, name), os.O_RDONLY))
            header = os.pread(self._files[2], _OFFSETS.size, _OFFSETS_AT)
            self._image_at, self._sums_at = _OFFSETS.unpack(header)
        except OSError as error:
            self.close()
            raise MediumError(f"{self.path}: {error}", path=self.path) from error

    def read(self, offset: int, size: int) -> bytes:
        """Read some of the image, whatever its checksums say.

        Args:
            offset: Where.
            size: How much; what lies behind the file's end reads as zeros.

        Returns:
            The bytes.

        Raises:
            MediumError: Reading failed.
        """
        try:
            data = os.pread(self._files[0], size, self._image_at + offset)
        except OSError as error:
            raise MediumError(f"{self.path}: {error}", path=self.path) from error
        return data.ljust(size, b"\0")

    def read_sound(self, offset: int, size: int) -> bytes:
        """Read pages that match their checksums; waits for a checkpoint that is under way.

        Args:
            offset: Where; a multiple of a page.
            size: How much; whole pages.

        Returns:
            The bytes.

        Raises:
            CorruptionError: A page does not match its checksum, and no checkpoint explains it.
            MediumError: Reading failed.
        """
        deadline = time.monotonic() + SETTLE_S
        while True:
            sums = self._sums(offset, size)
            data = self.read(offset, size)
            page = next((at for at, want in enumerate(sums) if _sum(data, at) != want), None)
            if page is None:
                return data
            if time.monotonic() > deadline:
                raise CorruptionError(
                    f"{self.path}: the page at {offset + page * PAGE_BYTES} of the image does not "
                    "match its checksum",
                    path=self.path,
                    file="image",
                    offset=offset + page * PAGE_BYTES,
                    expected=sums[page],
                    found=_sum(data, page),
                )
            time.sleep(_STEP_S)

    def digests(self, blocks: list[tuple[int, int]]) -> bytes:
        """Compute the digests of blocks; a block with a damaged page gets one that fits no bytes.

        Args:
            blocks: Offset and size of each.

        Returns:
            xxh3-128 of each, 16 bytes, one after the other.
        """
        return b"".join(self._digest(*block) for block in blocks)

    def _digest(self, offset: int, size: int) -> bytes:
        data = self.read(offset, size)
        digest = xxhash.xxh3_128_digest(data)
        sound = all(_sum(data, at) == want for at, want in enumerate(self._sums(offset, size)))
        # What differs from the true one in every bit makes the primary send the block, which comes
        # with new checksums.
        return digest if sound else bytes(byte ^ 0xFF for byte in digest)

    def _sums(self, offset: int, size: int) -> list[int]:
        count = size // PAGE_BYTES
        at = self._sums_at + _SUMS_OFFSET + offset // PAGE_BYTES * 4
        data = os.pread(self._files[1], count * 4, at).ljust(count * 4, b"\0")
        return list(memoryview(data).cast("I"))

    def close(self) -> None:
        """Close its files. Again is fine."""
        while self._files:
            os.close(self._files.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _sum(data: bytes, page: int) -> int:
    piece = data[page * PAGE_BYTES : (page + 1) * PAGE_BYTES]
    return int(lib.pml_crc32c(0, piece, PAGE_BYTES)) ^ _ZERO_SUM
