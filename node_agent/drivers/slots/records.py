"""What the driver knows of each slot beyond what the bootloader knows: kept durably, one record per slot.

A record is replaced as a whole (`update.store.journal`). Before the first byte of a slot is written its record says EMPTY
and names the bundle being written; only when everything is written and read back does it say PENDING. So a record never
promises more than the slot holds, whenever the power goes.

The zchunk header of what each part holds is kept beside it, so that the next delta needs no re-chunking. A header is a
hint: chunks are verified as they are read. A damaged or absent one costs time, and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from node_agent.drivers.driver import SlotState
from update.chunks.zchunk import MAX_HEADER_BYTES, HeaderIndex, parse_header
from update.digest import Digest, digest_of
from update.durable import Disk
from update.errors import ChunkError, CorruptError, LimitError
from update.store.journal import Journal, JsonValue

_Digest = Annotated[Digest, Field(pattern=r"^[0-9a-f]{64}$")]
_Text = Annotated[str, Field(max_length=4096)]


@dataclass(frozen=True, slots=True)
class PartRecord:
    """What one part holds: its plain size in bytes, and the digest that pins it (of the image, or of the zchunk header)."""

    size: Annotated[int, Field(ge=0)]
    digest: _Digest


@dataclass(frozen=True, slots=True)
class SlotRecord:
    """One slot. `writing` names a bundle whose write was begun and not finished; `boot_variables` wait for the switch.

    `activated` is set before the bootloader is told, and stays until the slot is confirmed, reverted or written again.
    """

    state: SlotState = SlotState.EMPTY
    version: _Text | None = None
    bundle: _Digest | None = None
    writing: _Digest | None = None
    activated: bool = False
    parts: Mapping[_Text, PartRecord] = field(default_factory=dict)
    boot_variables: Mapping[_Text, _Text] = field(default_factory=dict)


_RECORD = TypeAdapter(SlotRecord)


class SlotRecords:
    """The records and headers of one device, in one folder."""

    def __init__(self, disk: Disk, folder: Path) -> None:
        self._disk = disk
        self._folder = folder

    def read(self, slot: str) -> SlotRecord:
        """The record of `slot`; EMPTY where there is none. Errors: `CorruptError` for damage, `FormatVersionError`."""
        body = Journal(self._disk, self._path(slot)).read()
        if body is None:
            return SlotRecord()
        try:
            return _RECORD.validate_python(dict(body))
        except ValidationError as error:
            raise CorruptError(f"{self._path(slot)} holds no slot record; remove it, and the slot counts as empty") from error

    def write(self, slot: str, record: SlotRecord) -> None:
        """Replace the record of `slot`; one that is the same already is not written again."""
        if record == self.read(slot):
            return
        self._disk.make_folder(self._folder)
        body: Mapping[str, JsonValue] = _RECORD.dump_python(record, mode="json")
        Journal(self._disk, self._path(slot)).write(body)

    def header(self, slot: str, part: str) -> HeaderIndex | None:
        """The index of what `part` of `slot` held last, if its header was kept and is whole."""
        try:
            with self._header_path(slot, part).open("rb") as file:
                return parse_header(file.read(MAX_HEADER_BYTES))
        except (OSError, ChunkError, LimitError):
            return None

    def keep_header(self, slot: str, part: str, header: HeaderIndex) -> None:
        """Remember what `part` of `slot` holds now."""
        path = self._header_path(slot, part)
        known = self.header(slot, part)
        if known is not None and digest_of(known.raw) == digest_of(header.raw):
            return
        self._disk.make_folder(path.parent)
        self._disk.write_file(path, header.raw)

    def forget_header(self, slot: str, part: str) -> None:
        """The part holds something that came without a header."""
        self._disk.remove(self._header_path(slot, part))

    def _path(self, slot: str) -> Path:
        return self._folder / f"slot-{slot}.json"

    def _header_path(self, slot: str, part: str) -> Path:
        return self._folder / "headers" / f"{slot}-{part}.zck-header"
