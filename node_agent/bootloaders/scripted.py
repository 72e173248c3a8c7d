"""A bootloader that is a boot script and an environment of variables: U-Boot, and what simulates it.

The logic is `boot_script`'s; this class reads the environment, decides, and writes the difference in one step. What
differs between a real board and a simulated one is only where the environment lives.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from node_agent.bootloaders.boot_script import (
    UpdateState,
    confirmed,
    failed_trial,
    next_boot,
    open_trial,
    other_slot,
    read_state,
)
from update.errors import BootloaderError


class Environment(Protocol):
    """Variables that survive a restart."""

    def read(self) -> Mapping[str, str]:
        """Every variable; an absent one and an empty one are the same. Errors: `BootloaderError`."""
        ...

    def write(self, changes: Mapping[str, str]) -> None:
        """Set all of `changes` in one atomic write; an empty value removes. Errors: `BootloaderError`, `StoreError`."""
        ...


class ScriptedBootloader:
    """`Bootloader` on an `Environment`; `running` tells the booted slot, `started` hears of it on a board that is simulated."""

    def __init__(
        self, environment: Environment, running: Callable[[], str], started: Callable[[str], None] | None = None
    ) -> None:
        self._environment = environment
        self._running = running
        self._started = started

    def start(self) -> None:
        """Start a simulated board anew; `BootloaderError` for a real one, which its power starts."""
        if self._started is None:
            raise BootloaderError("this bootloader is a real one: it starts its board itself; use bootloader.kind simulated")
        self._started(start(self._environment))

    def booted(self) -> str:
        """The slot that runs now."""
        slot = self._running()
        other_slot(slot)
        return slot

    def primary(self) -> str:
        """The slot that the next start tries first."""
        return read_state(self._environment.read())["bootslot"]

    def trial(self) -> str | None:
        """The slot on trial, if one is."""
        state = read_state(self._environment.read())
        return state["bootslot"] if state["upgrade_available"] == "1" else None

    def failed(self) -> str | None:
        """The slot whose last trial failed."""
        state = read_state(self._environment.read())
        if state["upgrade_available"] == "1" or state["ustate"] != UpdateState.FAILED:
            return None
        return other_slot(state["bootslot"])

    def check(self, slot: str, extra: Mapping[str, str]) -> None:
        """Refuse now what `try_once` would refuse later, given that no trial is open then."""
        open_trial(slot, self._environment.read(), extra)
        if self.booted() == slot:
            raise BootloaderError(f"slot {slot} is running and cannot be tried; name the other one")

    def try_once(self, slot: str, extra: Mapping[str, str]) -> None:
        """Open a trial of `slot`; a trial of it that is open already keeps its count."""
        environment = self._environment.read()
        changes = open_trial(slot, environment, extra)
        trial = self.trial()
        if trial == slot and all(environment.get(name, "") == value for name, value in extra.items()):
            return
        if self.booted() == slot:
            raise BootloaderError(f"slot {slot} is running and cannot be tried; confirm or revert it")
        if trial not in {None, slot}:
            raise BootloaderError(f"slot {trial} is on trial; confirm or revert it before slot {slot} is tried")
        self._change(environment, changes)

    def mark_good(self, slot: str) -> None:
        """Close the trial of the running `slot` well."""
        booted, primary = self.booted(), self.primary()
        if not slot == booted == primary:
            raise BootloaderError(f"slot {slot} cannot be confirmed: slot {booted} is running and slot {primary} starts next")
        self._change(self._environment.read(), confirmed())

    def mark_bad(self, slot: str) -> None:
        """Leave `slot`; its failure is remembered."""
        other, trial = other_slot(slot), self.trial()
        if trial == other:
            raise BootloaderError(f"slot {slot} is what a failed trial of slot {other} returns to; it cannot be given up now")
        self._change(self._environment.read(), failed_trial(slot))

    def _change(self, before: Mapping[str, str], wanted: Mapping[str, str]) -> None:
        changes = {name: value for name, value in wanted.items() if before.get(name, "") != value}
        if changes:
            self._environment.write(changes)


def start(environment: Environment) -> str:
    """What the boot script does at one power-on: count, fall back, and say which slot is started."""
    before = environment.read()
    boot = next_boot(before)
    changes = {name: value for name, value in boot.environment.items() if before.get(name, "") != value}
    if changes:
        environment.write(changes)
    return boot.slot
