"""What is known of a device's starts, kept durably: which slot runs, whose start was begun, and whether the trial was started.

`begun` is set before a device is told to start a slot, and taken away when that slot was seen running. While it is set, nobody
may take for granted what the device holds: it may be half written. `names` is what the device calls the image of each slot.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from update.durable import Disk
from update.errors import CorruptError
from update.store.journal import Journal, JsonValue

_Slot = Annotated[str, Field(min_length=1, max_length=64)]
_Name = Annotated[str, Field(max_length=255)]


@checked_dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class Known:
    """All that is known. `running` is None before the device was seen for the first time: then it runs the first slot."""

    running: _Slot | None = None
    begun: _Slot | None = None
    tried: bool = False
    names: Mapping[_Slot, _Name] = field(default_factory=dict)


_KNOWN = TypeAdapter(Known)


@dataclass(frozen=True, slots=True)
class Ledger:
    """One device's, in one file. Errors: `CorruptError` for damage, `FormatVersionError`, `StoreError`."""

    disk: Disk
    path: Path

    def known(self) -> Known:
        """As it stands."""
        body = Journal(self.disk, self.path).read()
        try:
            return Known() if body is None else _KNOWN.validate_python(dict(body))
        except ValidationError as error:
            raise CorruptError(f"{self.path} says nothing of a device; remove it, and the next update begins anew") from error

    def note(self, **changes: object) -> None:
        """Change what is known; nothing is written where nothing changes."""
        before = self.known()
        after = _KNOWN.validate_python({**_KNOWN.dump_python(before), **changes})
        if after != before:
            self.disk.make_folder(self.path.parent)
            body: Mapping[str, JsonValue] = _KNOWN.dump_python(after, mode="json")
            Journal(self.disk, self.path).write(body)

    def name(self, slot: str, name: str) -> None:
        """What the device calls the image of `slot`; empty: nobody knows."""
        self.note(names={**self.known().names, slot: name})
