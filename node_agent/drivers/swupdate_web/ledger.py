"""Which slot of a device that cannot be asked runs, starts next and is on trial: what is known of it, kept durably.

The device has slots of its own, which nobody sees from outside. Here `a` and `b` stand for what it ran before and what it was
given last. This is a `Bootloader` that switches nothing: it notes what the device was seen to do. `starts` is the slot whose
bundle the device has said to have installed last; `unsure` is set while a bundle is on its way there, and stays when nobody
can tell what became of it. `boot_id` is the boot that it was in when the trial was opened, where it tells of that.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from update.durable import Disk
from update.errors import BootloaderError, CorruptError
from update.store.journal import Journal, JsonValue

SLOTS: Final = ("a", "b")
_Slot = Annotated[str, Field(pattern=r"^[ab]$")]


@checked_dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class Known:
    """All that is known."""

    running: _Slot = "a"
    primary: _Slot = "a"
    starts: _Slot = "a"
    unsure: bool = False
    trial: _Slot | None = None
    failed: _Slot | None = None
    boot_id: Annotated[str, Field(max_length=1000)] = ""


_KNOWN = TypeAdapter(Known)


def other(slot: str) -> str:
    """The other one."""
    return SLOTS[1 - SLOTS.index(slot)]


@dataclass(slots=True)
class Ledger:
    """`Bootloader` of one device, in one file; its folder must exist. Errors: `CorruptError` for damage, `BootloaderError`."""

    disk: Disk
    path: Path

    def known(self) -> Known:
        """As it stands; a device of which nothing is known runs `a`."""
        body = Journal(self.disk, self.path).read()
        try:
            return Known() if body is None else _KNOWN.validate_python(dict(body))
        except ValidationError as error:
            raise CorruptError(f"{self.path} says nothing of a device; remove it, and the next update begins anew") from error

    def note(self, **changes: object) -> None:
        """Change what is known, durably; nothing is written where nothing changes."""
        before = self.known()
        after = _KNOWN.validate_python({**_KNOWN.dump_python(before), **changes})
        if after != before or not self.path.exists():
            body: Mapping[str, JsonValue] = _KNOWN.dump_python(after, mode="json")
            Journal(self.disk, self.path).write(body)

    def saw(self, slot: str) -> None:
        """The device was seen to run `slot` after a start: a trial of another one is over, and what runs starts again."""
        before = self.known()
        fell_back = before.trial is not None and before.trial != slot
        after = replace(before, running=slot, primary=slot, starts=slot, unsure=False)
        after = replace(after, trial=None, failed=before.trial) if fell_back else after
        self.note(**_KNOWN.dump_python(after))

    def booted(self) -> str:
        """What it ran when it was last seen."""
        return self.known().running

    def primary(self) -> str:
        """What it is to start next."""
        return self.known().primary

    def trial(self) -> str | None:
        """What was activated and is not confirmed."""
        return self.known().trial

    def failed(self) -> str | None:
        """Whose trial failed last."""
        return self.known().failed

    def check(self, slot: str, extra: Mapping[str, str]) -> None:
        """A bundle's variables are set by the device's own SWUpdate."""

    def try_once(self, slot: str, extra: Mapping[str, str]) -> None:  # noqa: ARG002 - the device's own SWUpdate sets them
        """Open a trial."""
        self.note(trial=slot, primary=slot, failed=None)

    def mark_good(self, slot: str) -> None:
        """Close the trial of what runs."""
        known = self.known()
        if slot != known.running or slot != known.primary:
            raise BootloaderError(f"slot {slot} cannot be confirmed: {known.running} runs and {known.primary} starts next")
        self.note(trial=None, failed=None)

    def mark_bad(self, slot: str) -> None:
        """Leave a slot."""
        self.note(trial=None, failed=slot, primary=other(slot))
