"""Where a repository's verified metadata is kept between starts: one complete set, and what was seen ahead of it.

Names: `<N>.root.json` for every root, `<N>.<role>.json` for snapshot, targets and delegated roles (these with the prefix
`delegated.` and percent-encoded, so that no role name can leave the folder or take another role's place), and
`timestamp.json`. The timestamp names the snapshot's version and the snapshot every other: replacing `timestamp.json` is the
one step that turns the old set into the new one, and only afterwards `prune` removes what no longer belongs.

`ahead.timestamp.json` and `ahead.snapshot.json` are those of a refresh that has not come to its end. They are no part of the
set: `restore` never sees them. They stand for what the device has verified already, below which nothing may be offered
(section 5.4.5 and 5.5.7: persist each file), so a source that breaks off cannot take a device back by that.

What is read back is verified again by the caller: a missing, empty or altered file costs a fetch, never trust.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from update.durable import Disk
from update.errors import MetadataError

_TOP_LEVEL = frozenset({"root", "snapshot", "targets"})
_TIMESTAMP = "timestamp.json"
Ahead = Literal["timestamp", "snapshot"]
_AHEAD: Mapping[Ahead, str] = {"timestamp": "ahead.timestamp.json", "snapshot": "ahead.snapshot.json"}
_VERSIONED = re.compile(r"(\d{1,16})\.(.+)\.json", re.ASCII)
_MAX_ROLE_CHARACTERS = 120


def quoted(role: str) -> str:
    """A role's name as one component of a path or URL; `MetadataError` if it is too long for a file name."""
    name = quote(role, safe="")
    if len(name) > _MAX_ROLE_CHARACTERS:
        raise MetadataError(f"role name {role[:40]!r}… takes {len(name)} characters; at most {_MAX_ROLE_CHARACTERS} are possible")
    return name


class TrustedFolder:
    """The files of one repository; every method blocks on the disk."""

    def __init__(self, disk: Disk, folder: Path) -> None:
        self._disk = disk
        self._folder = folder

    def read(self, role: str, version: int, max_bytes: int) -> bytes | None:
        """The kept file of a role, None if it cannot be read or is larger than `max_bytes`."""
        return self._read(f"{version}.{_kept_name(role)}.json", max_bytes)

    def read_timestamp(self, max_bytes: int) -> bytes | None:
        """The kept timestamp, likewise."""
        return self._read(_TIMESTAMP, max_bytes)

    def put(self, role: str, version: int, data: bytes) -> None:
        """Keep a file of a role; it counts once a timestamp leads to it."""
        self._put(f"{version}.{_kept_name(role)}.json", data)

    def put_timestamp(self, data: bytes) -> None:
        """The step to the new set: everything it leads to must be kept already."""
        self._put(_TIMESTAMP, data)

    def drop_timestamp(self) -> None:
        """Forget timestamp and, with it, the snapshot, also those ahead (fast-forward recovery)."""
        self.drop_ahead()
        self._disk.remove(self._folder / _TIMESTAMP)

    def read_ahead(self, role: Ahead, max_bytes: int) -> bytes | None:
        """The file of a role that was seen ahead of the complete set, None as with `read`."""
        return self._read(_AHEAD[role], max_bytes)

    def put_ahead(self, role: Ahead, data: bytes) -> None:
        """Keep what was verified before the set it belongs to is complete."""
        self._put(_AHEAD[role], data)

    def drop_ahead(self) -> None:
        """The set is complete, or its keys are no longer trusted: nothing is ahead of it."""
        for name in _AHEAD.values():
            self._disk.remove(self._folder / name)

    def prune(self, current: Mapping[str, int]) -> None:
        """Remove other versions than `current` (role: version) of the roles named there, and all roles not named; roots stay."""
        keep = {_kept_name(role): version for role, version in current.items()}
        for file in sorted(self._folder.iterdir()):
            match = _VERSIONED.fullmatch(file.name)
            if match and match[2] != "root" and keep.get(match[2]) != int(match[1]):
                self._disk.remove(file)

    def _read(self, name: str, max_bytes: int) -> bytes | None:
        with suppress(OSError), (self._folder / name).open("rb") as file:
            data = file.read(max_bytes + 1)
            return data if 0 < len(data) <= max_bytes else None
        return None

    def _put(self, name: str, data: bytes) -> None:
        self._disk.make_folder(self._folder)
        self._disk.write_file(self._folder / name, data)


def _kept_name(role: str) -> str:
    return role if role in _TOP_LEVEL else f"delegated.{quoted(role)}"
