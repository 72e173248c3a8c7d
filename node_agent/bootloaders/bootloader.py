"""What a driver needs of a bootloader: which slot runs, which one starts next, and a trial that ends by itself.

The rules every implementation keeps (the contract suite in `tests/contract` pins them):

1. A trial is opened by one atomic write (`try_once`), together with the variables that the bundle brings: this is the
   commit point of an update. A power loss leaves all of it or nothing of it.
2. A trial ends by `mark_good` (from the running new slot), by `mark_bad`, or by the bootloader itself, which counts
   starts and returns to the previous slot when they exceed its limit.
3. Every call is idempotent, and a call that changes nothing writes nothing.
4. Nothing but the bootloader's environment is touched.

Calls block for milliseconds (they may run a tool): asynchronous callers use a thread. Errors: `BootloaderError`.
"""

from collections.abc import Mapping
from typing import Protocol


class Bootloader(Protocol):
    """Slot selection of one device with two slots."""

    def booted(self) -> str:
        """The slot that runs now, as the running kernel tells it."""
        ...

    def primary(self) -> str:
        """The slot that the next start tries first."""
        ...

    def trial(self) -> str | None:
        """The slot on trial (activated, whether started already or not, and not yet marked); None when no trial is open."""
        ...

    def failed(self) -> str | None:
        """The slot whose last trial failed, until the next `try_once` or `mark_good`; None when none did."""
        ...

    def check(self, slot: str, extra: Mapping[str, str]) -> None:
        """Refuse now what `try_once` would refuse later; called before the first byte of a slot is written."""
        ...

    def try_once(self, slot: str, extra: Mapping[str, str]) -> None:
        """Open a trial: the next start is `slot`, counted; `extra` variables travel in the same write."""
        ...

    def mark_good(self, slot: str) -> None:
        """Close the trial of the running `slot`: it stays primary. Refused for any slot that is not running and primary."""
        ...

    def mark_bad(self, slot: str) -> None:
        """Close the trial of `slot`, or leave it: the other slot is primary again, and `failed` names this one."""
        ...
