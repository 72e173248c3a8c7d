"""A FAT file system read in our own process, nothing mounted: for kernels without it and sites that forbid mounting.

The rules are those of Microsoft's "FAT: General Overview of On-Disk Format" 1.03 (sections 3 to 7): FAT12, FAT16, FAT32 and long
names. Every number of the image is doubted: geometry is checked before it is used, a chain of clusters that returns to itself, or
is longer than the volume, ends in `MediumUnreadableError`, and a long name whose checksum does not fit is not used.

Reads go straight to the device, so a medium may change between them: whoever copies verifies the copy. The table is read in
blocks, of which a few are kept; memory does not grow with the medium.
"""

import errno
import io
import os
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Self

from media.fat_names import Named, named_entries
from media.medium import MAX_DEPTH, MAX_ENTRIES, Entry, EntryKind, shown
from update.errors import FieldrelayError, MediumGoneError, MediumLimitError, MediumUnreadableError, NotFoundError, ProtocolError

_TABLE_BLOCK: Final = 64 << 10
_TABLE_BLOCKS: Final = 64
_FOLDER_BYTES: Final = 2 << 20  # section 6: 65,536 entries of 32 bytes
_BUFFER_BYTES: Final = 64 << 10
_SECTORS = frozenset({512, 1024, 2048, 4096})
_FAT12_CLUSTERS, _FAT16_CLUSTERS, _FAT32_CLUSTERS = 4085, 65525, 0x0FFF_FFF5


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where what lies, in bytes from the start (section 3); `bits` of one entry of the table."""

    bits: int
    table: int
    table_bytes: int
    root: int
    root_bytes: int
    root_cluster: int
    data: int
    cluster_bytes: int
    clusters: int


def read_geometry(boot: bytes) -> Geometry:
    """What a boot sector says, checked. Errors: `MediumUnreadableError`."""
    if len(boot) < 512 or boot[510:512] != b"\x55\xaa":
        raise MediumUnreadableError("the medium has no FAT boot sector; format the stick as vfat")
    sector, per_cluster, reserved, tables, root_entries, small, _, small_table = struct.unpack_from("<HBHBHHBH", boot, 11)
    large, large_table = struct.unpack_from("<II", boot, 32)
    total, table = small or large, small_table or large_table
    root_sectors = -(-root_entries * 32 // sector) if sector in _SECTORS else 0
    data = reserved + tables * table + root_sectors
    usable = (
        sector in _SECTORS and per_cluster and not per_cluster & (per_cluster - 1) and reserved and tables in {1, 2} and table
    )
    if not usable or sector * per_cluster > 256 << 10 or data >= total:
        raise MediumUnreadableError("the boot sector of the medium contradicts itself; format the stick anew")
    clusters = (total - data) // per_cluster
    bits = 12 if clusters < _FAT12_CLUSTERS else 16 if clusters < _FAT16_CLUSTERS else 32
    if clusters >= _FAT32_CLUSTERS or table * sector * 8 < (clusters + 2) * bits or (bits == 32) != (root_entries == 0):
        raise MediumUnreadableError("the table of the medium is too short for its size; format the stick anew")
    root_cluster = struct.unpack_from("<I", boot, 44)[0] if bits == 32 else 0
    return Geometry(
        bits=bits,
        table=reserved * sector,
        table_bytes=table * sector,
        root=(reserved + tables * table) * sector,
        root_bytes=root_entries * 32,
        root_cluster=root_cluster,
        data=data * sector,
        cluster_bytes=sector * per_cluster,
        clusters=clusters,
    )


def _always() -> bool:
    """An image does not go away."""
    return True


class FatMedium:
    """The tree of a FAT volume on an open device or image, which it takes over and closes. `present`: as for a folder."""

    def __init__(self, descriptor: int, present: Callable[[], bool] = _always) -> None:
        self._device = os.fdopen(descriptor, "rb", buffering=0)
        self._present = present
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        try:
            self._geometry = read_geometry(self.read_at(0, 512))
        except OSError as error:
            self._device.close()
            raise self.trouble(error, ()) from error
        except FieldrelayError:
            self._device.close()
            raise

    @classmethod
    def at(cls, device: Path, present: Callable[[], bool] = _always) -> Self:
        """The volume on `device`. Errors: `MediumUnreadableError`."""
        try:
            descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise MediumUnreadableError(f"cannot open {device}: {error.strerror or error}; may this process read it?") from error
        return cls(descriptor, present)

    def walk(self) -> Iterator[Entry]:
        """As `Medium`; one folder is read at a time."""
        waiting: list[tuple[tuple[str, ...], int]] = [((), self._geometry.root_cluster)]
        seen = 0
        while waiting:
            folder, cluster = waiting.pop()
            entries = sorted(self._list(cluster, folder), key=lambda entry: entry.name)
            seen += len(entries)
            if seen > MAX_ENTRIES:
                raise MediumLimitError(f"the medium holds more than {MAX_ENTRIES} files; put only releases on it")
            yield from (_entry(folder, each) for each in entries)
            below = [((*folder, each.name), each.cluster) for each in entries if each.is_folder]
            if below and len(folder) >= MAX_DEPTH:
                raise MediumLimitError(f"{shown(below[0][0])} lies deeper than {MAX_DEPTH} folders; put the release at the top")
            waiting.extend(reversed(below))

    def open(self, parts: Sequence[str]) -> BinaryIO:
        """As `Medium`. Names are found as FAT finds them: regardless of case."""
        cluster, found = self._geometry.root_cluster, None
        for depth, name in enumerate(parts):
            if found is not None and not found.is_folder:
                raise ProtocolError(f"{shown(parts[:depth])} is no folder")
            found = next((each for each in self._list(cluster, parts) if each.name.lower() == name.lower()), None)
            if found is None:
                raise NotFoundError(f"{shown(parts)} is not on the medium")
            cluster = found.cluster
        if found is None or found.is_folder:
            raise ProtocolError(f"{shown(parts) or 'the medium'} is a folder")
        return io.BufferedReader(_FatFile(self, found.cluster, found.size_bytes), _BUFFER_BYTES)

    def trouble(self, error: OSError, parts: Sequence[str]) -> FieldrelayError:
        """As `Medium`."""
        if not self._present():
            return MediumGoneError("the medium was pulled out; plug it in again, the copy goes on where it stopped")
        what = shown(parts) or "the medium"
        return MediumUnreadableError(f"cannot read {what}: {error.strerror or error}; copy the release onto another stick")

    def close(self) -> None:
        """As `Medium`."""
        self._device.close()

    @property
    def cluster_bytes(self) -> int:
        """The size of a cluster."""
        return self._geometry.cluster_bytes

    def cluster_at(self, cluster: int) -> int:
        """Where a cluster's bytes are. Errors: `OSError` (EIO) for one that is not on the volume."""
        if not 2 <= cluster < self._geometry.clusters + 2:
            raise OSError(errno.EIO, f"its chain leads to cluster {cluster}, the last one is {self._geometry.clusters + 1}")
        return self._geometry.data + (cluster - 2) * self._geometry.cluster_bytes

    def after(self, cluster: int) -> int | None:
        """The next cluster of a chain; None at its end (section 4)."""
        bits = self._geometry.bits
        where = cluster * bits // 8
        raw = self._table_bytes(where, 4 if bits == 32 else 2)
        value = int.from_bytes(raw, "little")
        value = (value >> 4 if cluster & 1 else value & 0xFFF) if bits == 12 else value & 0x0FFF_FFFF
        end = {12: 0xFF8, 16: 0xFFF8, 32: 0x0FFF_FFF8}[bits]
        return None if value >= end else value

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes of the device, fewer at its end. Errors: `OSError`."""
        return os.pread(self._device.fileno(), length, offset)

    def _table_bytes(self, where: int, length: int) -> bytes:
        found = b""
        while len(found) < length:
            number, start = divmod(where + len(found), _TABLE_BLOCK)
            piece = self._table_block(number)[start : start + length - len(found)]
            if not piece:
                raise OSError(errno.EIO, "its table ends early")
            found += piece
        return found

    def _table_block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        start = number * _TABLE_BLOCK
        block = self.read_at(self._geometry.table + start, max(0, min(_TABLE_BLOCK, self._geometry.table_bytes - start)))
        self._blocks[number] = block
        if len(self._blocks) > _TABLE_BLOCKS:
            self._blocks.popitem(last=False)
        return block

    def _list(self, cluster: int, parts: Sequence[str]) -> Iterator[Named]:
        try:
            yield from named_entries(self._folder(cluster))
        except OSError as error:
            raise self.trouble(error, parts) from error

    def _folder(self, cluster: int) -> Iterator[bytes]:
        if cluster == 0 and self._geometry.root_bytes:
            yield self.read_at(self._geometry.root, self._geometry.root_bytes)
            return
        follower: int | None = cluster or self._geometry.root_cluster
        left = _FOLDER_BYTES
        while follower is not None:
            if left <= 0:
                raise OSError(errno.EIO, "a folder has no end")
            yield self.read_at(self.cluster_at(follower), self.cluster_bytes)
            left -= self.cluster_bytes
            follower = self.after(follower)


class _FatFile(io.RawIOBase):
    """One file; seeking backwards follows the chain anew. Its parent class is the door to `io.BufferedReader`."""

    def __init__(self, medium: FatMedium, first: int, size_bytes: int) -> None:
        super().__init__()
        self._medium, self._first, self._size = medium, first, size_bytes
        self._position = 0
        self._at = (0, first)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override] # what BufferedReader gives
        wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0
        size = self._medium.cluster_bytes
        number, start = divmod(self._position, size)
        first = self._cluster(number)
        run, last = 1, first
        while run * size - start < wanted and (follower := self._medium.after(last)) == last + 1:
            run, last = run + 1, follower
        self._at = (number + run - 1, last)
        where = self._medium.cluster_at(first)
        self._medium.cluster_at(last)
        data = self._medium.read_at(where + start, min(wanted, run * size - start))
        if not data:
            raise OSError(errno.EIO, "the device ends before the file")
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _cluster(self, number: int) -> int:
        """The cluster that holds part `number` of the file; at most as many steps as the file has parts."""
        at, cluster = self._at if self._at[0] <= number else (0, self._first)
        while at < number:
            follower = self._medium.after(cluster)
            if follower is None:
                raise OSError(errno.EIO, "its chain of clusters ends before the file does")
            self._medium.cluster_at(follower)
            at, cluster = at + 1, follower
        self._at = (at, cluster)
        return cluster


def _entry(folder: tuple[str, ...], named: Named) -> Entry:
    if named.is_folder:
        return Entry((*folder, named.name), EntryKind.FOLDER)
    return Entry((*folder, named.name), EntryKind.FILE, named.size_bytes)
