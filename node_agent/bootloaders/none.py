"""No bootloader of the agent's own: for drivers whose installer switches slots itself (`rauc`).

`drivers.registry.check_pair` keeps it away from drivers that need one; so no word of it is ever said.
"""

from collections.abc import Mapping

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from update.durable import Disk
from update.errors import BootloaderError


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class NoBootloaderConfig:
    """Nothing to configure."""


class NoBootloader:
    """`Bootloader` that refuses every word."""

    def booted(self) -> str:
        """Nobody knows."""
        raise _refusal()

    def primary(self) -> str:
        """Nobody knows."""
        raise _refusal()

    def trial(self) -> str | None:
        """Nobody knows."""
        raise _refusal()

    def failed(self) -> str | None:
        """Nobody knows."""
        raise _refusal()

    def check(self, slot: str, extra: Mapping[str, str]) -> None:
        """Nothing is possible."""
        raise _refusal(slot, *extra)

    def try_once(self, slot: str, extra: Mapping[str, str]) -> None:
        """Nothing is possible."""
        raise _refusal(slot, *extra)

    def mark_good(self, slot: str) -> None:
        """Nothing is possible."""
        raise _refusal(slot)

    def mark_bad(self, slot: str) -> None:
        """Nothing is possible."""
        raise _refusal(slot)


def create(_config: NoBootloaderConfig, _disk: Disk) -> NoBootloader:
    """The absence as the registry makes it."""
    return NoBootloader()


def _refusal(*said: str) -> BootloaderError:
    about = f" about {', '.join(said)[:200]}" if said else ""
    return BootloaderError(f"this node has no bootloader that could be asked{about}; name one in [bootloader]")
