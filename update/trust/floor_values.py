"""What must never go back: the values of the floor, and their form on disk. Pure.

One copy on disk is canonical JSON on one line and the SHA-256 of that line on a second one:

    {"format_version":1,"generation":7,"release_counter":12,"repositories":{"plant":{"root":1,…}},"security_counter":3,"time":"…Z"}
    9f86d081…

A copy that is torn, empty or altered fails its checksum and counts as lost (`CorruptError`); a copy of a newer release with a
good checksum is no loss and is refused by name (`FormatVersionError`).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Self

from update.digest import digest_of
from update.errors import CorruptError, FormatVersionError

FORMAT_VERSION = 1
MAX_COPY_BYTES = 1 << 18
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME_FORM = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class RoleVersions:
    """The versions of one repository's top-level roles below which nothing is accepted; 0 before the first."""

    root: int = 0
    timestamp: int = 0
    snapshot: int = 0
    targets: int = 0

    def highest(self, other: Self) -> Self:
        """Role by role the higher of the two."""
        return type(self)(
            max(self.root, other.root),
            max(self.timestamp, other.timestamp),
            max(self.snapshot, other.snapshot),
            max(self.targets, other.targets),
        )


@dataclass(frozen=True, slots=True)
class FloorValues:
    """Everything the floor holds.

    `time` (UTC, whole seconds) only moves forward. `security_counter` and `release_counter` are the highest of the releases
    that were confirmed after their first boot. `generation` counts writes and tells the newer copy.
    """

    generation: int = 0
    time: datetime = EPOCH
    security_counter: int = 0
    release_counter: int = 0
    repositories: Mapping[str, RoleVersions] = field(default_factory=dict)

    def versions(self, repository: str) -> RoleVersions:
        """The role versions of one repository; all 0 for one never seen."""
        return self.repositories.get(repository, RoleVersions())

    def with_versions(self, repository: str, versions: RoleVersions) -> Self:
        """A copy in which one repository's versions are replaced."""
        return replace(self, repositories={**self.repositories, repository: versions})


def encode(values: FloorValues) -> bytes:
    """One copy as bytes; `decode` is its inverse."""
    line = json.dumps(
        {
            "format_version": FORMAT_VERSION,
            "generation": values.generation,
            "time": values.time.strftime(_TIME_FORM),
            "security_counter": values.security_counter,
            "release_counter": values.release_counter,
            "repositories": {name: asdict(versions) for name, versions in values.repositories.items()},
        },
        sort_keys=True,
        separators=(",", ":"),
    ).encode("ascii")
    return line + b"\n" + digest_of(line).encode("ascii") + b"\n"


def decode(data: bytes) -> FloorValues:
    """Read one copy; `CorruptError` for a checksum or content that is not right, `FormatVersionError` for a newer format."""
    line, _, checksum = data.partition(b"\n")
    if checksum != digest_of(line).encode("ascii") + b"\n":
        raise CorruptError(f"a copy of the floor ({len(data)} bytes) fails its checksum")
    try:
        fields = json.loads(line)
        if fields["format_version"] > FORMAT_VERSION:
            raise FormatVersionError(
                f"the floor was written in format {fields['format_version']}, this release reads up to {FORMAT_VERSION}; "
                "install the newer release again"
            )
        return FloorValues(
            generation=int(fields["generation"]),
            time=datetime.strptime(fields["time"], _TIME_FORM).replace(tzinfo=UTC),
            security_counter=int(fields["security_counter"]),
            release_counter=int(fields["release_counter"]),
            repositories={name: RoleVersions(**versions) for name, versions in fields["repositories"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptError("a copy of the floor has a good checksum but not the floor's content") from error
