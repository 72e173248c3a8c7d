"""The floor on disk: two checksummed copies outside the slots, so that one lost or torn copy loses nothing.

Rules:

1. Every change writes the first copy completely (`Disk.write_file`), then the second. At any instant at least one copy is
   whole and says the old or the new state.
2. Reading takes the whole copy with the higher generation and heals the other.
3. Both copies lost is not a first start: without the floor an old, validly signed repository would be accepted again, so
   `FloorError` asks an operator. A first start is said explicitly, once, with `create` (when a device is commissioned).
4. Values only rise, with one exception that TUF demands (1.0, section 5.3.11, fast-forward recovery): a *new* root that
   rotates the keys of timestamp or snapshot lets the versions of timestamp, snapshot and targets start again.
5. The counters of a release rise only when that release was confirmed after booting it, so that a trial can still revert.

Put the copies into two folders, on two file systems where the device has them. One `Floor` serves all repositories of a
process (it locks); between processes the agent's own lock keeps writers apart.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from update.durable import Disk
from update.errors import CorruptError, FloorError, StateError
from update.trust.floor_values import EPOCH, MAX_COPY_BYTES, FloorValues, RoleVersions, decode, encode


class Floor:
    """What must never go back, on one device. Errors: `FloorError`, `FormatVersionError`, `StoreError` from the disk."""

    def __init__(self, disk: Disk, copies: tuple[Path, Path]) -> None:
        self._disk = disk
        self._copies = copies
        self._lock = Lock()

    def exists(self) -> bool:
        """Whether any copy is there, whole or not: whether this device was ever commissioned, as far as the disk remembers."""
        return any(copy.exists() for copy in self._copies)

    def create(self, time: datetime = EPOCH) -> FloorValues:
        """The explicit first start, at the build time of this release as the earliest `time`; `StateError` if a copy is there."""
        with self._lock:
            if self.exists():
                raise StateError(f"a floor is already there ({self._copies[0]}); it is created once in the life of a device")
            for copy in self._copies:
                self._disk.make_folder(copy.parent)
            return self._write(FloorValues(generation=1, time=_whole_seconds(time)))

    def load(self) -> FloorValues:
        """The values; a copy that is missing, damaged or older is written again."""
        with self._lock:
            return self._load()

    def read(self) -> FloorValues:
        """The values, without healing: for readers that may not write."""
        return self._best(self._read_copies())

    def raise_time(self, time: datetime) -> FloorValues:
        """Move the time floor forward; an earlier `time` changes nothing. Pass a clock only if it is known to be good."""
        return self._change(lambda values: replace(values, time=max(values.time, _whole_seconds(time))))

    def raise_versions(self, repository: str, versions: RoleVersions, issued: datetime | None = None) -> FloorValues:
        """Raise role versions of a repository, role by role, and the time to its signed `issued` time."""
        time = EPOCH if issued is None else _whole_seconds(issued)

        def change(values: FloorValues) -> FloorValues:
            raised = values.versions(repository).highest(versions)
            return replace(values.with_versions(repository, raised), time=max(values.time, time))

        return self._change(change)

    def follow_rotation(self, repository: str, root: int) -> FloorValues:
        """Fast-forward recovery (rule 4) at root version `root`; a root not newer than the recorded one changes nothing.

        The condition matters: a client that lost its files walks all rotations again and must not lose its floor by that.
        """

        def change(values: FloorValues) -> FloorValues:
            if root <= values.versions(repository).root:
                return values
            return values.with_versions(repository, RoleVersions(root=root))

        return self._change(change)

    def confirm(self, *, release_counter: int, security_counter: int) -> FloorValues:
        """Record a release that booted and was confirmed; lower counters (an operator's return) change nothing."""
        return self._change(
            lambda values: replace(
                values,
                release_counter=max(values.release_counter, release_counter),
                security_counter=max(values.security_counter, security_counter),
            )
        )

    def _change(self, change: Callable[[FloorValues], FloorValues]) -> FloorValues:
        with self._lock:
            before = self._load()
            after = change(before)
            if after == before:
                return before
            return self._write(replace(after, generation=before.generation + 1))

    def _load(self) -> FloorValues:
        found = self._read_copies()
        best = self._best(found)
        for copy, values in zip(self._copies, found, strict=True):
            if values != best:
                self._disk.make_folder(copy.parent)
                self._disk.write_file(copy, encode(best))
        return best

    def _write(self, values: FloorValues) -> FloorValues:
        data = encode(values)
        for copy in self._copies:
            self._disk.write_file(copy, data)
        return values

    def _read_copies(self) -> list[FloorValues | None]:
        found: list[FloorValues | None] = []
        for copy in self._copies:
            values = None
            with suppress(OSError, CorruptError), copy.open("rb") as file:
                values = decode(file.read(MAX_COPY_BYTES + 1))
            found.append(values)
        return found

    def _best(self, found: list[FloorValues | None]) -> FloorValues:
        whole = [values for values in found if values is not None]
        if whole:
            return max(whole, key=lambda values: values.generation)
        state = "both copies of the floor are lost or damaged" if self.exists() else "there is no floor"
        raise FloorError(
            f"{state} ({self._copies[0]}, {self._copies[1]}): without it an old release could pass as new; "
            "on a new device create it, else let an operator decide what this device may trust"
        )


def _whole_seconds(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(microsecond=0)
