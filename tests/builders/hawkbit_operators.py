"""The company's operator at a hawkBit, real or simulated: what tests of the north side want of either.

Names of targets and sets are the caller's to keep apart: a real server is shared by all tests of a run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import uuid4

from gateway.simulators.hawkbit import HawkbitSimulator
from gateway.simulators.hawkbit_actions import Kind
from tests.interop.hawkbit_management import Kind as RealKind
from tests.interop.hawkbit_management import Management, Window

_FAR = Window("0 0 3 1 1 ? 2099", "00:10:00")


@dataclass(frozen=True, slots=True)
class Seen:
    """An action as the operator sees it: `kinds` and `words` of all its entries, the oldest first."""

    status: str
    kinds: tuple[str, ...]
    words: str


class Operator(Protocol):
    """What an operator does."""

    async def publish(self, files: Mapping[str, bytes]) -> int:
        """A set of files, each in a module of its own; its number."""
        ...

    async def assign(self, target: str, number: int, kind: Kind = Kind.FORCED, *, closed_window: bool = False) -> int:
        """Assign a set; the number of the action. `closed_window`: its window opens in another century."""
        ...

    async def cancel(self, target: str, action: int) -> None:
        """Ask the device to stop."""
        ...

    async def seen(self, target: str, action: int) -> Seen:
        """One action."""
        ...

    async def update_status(self, target: str) -> str:
        """in_sync, pending, error, registered."""
        ...

    async def attributes(self, target: str) -> Mapping[str, str]:
        """What the device said of itself."""
        ...


class RealOperator:
    """Through the management API."""

    def __init__(self, management: Management) -> None:
        self._management = management

    async def publish(self, files: Mapping[str, bytes]) -> int:
        name, modules = f"firmware-{uuid4().hex}", []
        for kind, (filename, content) in zip(("os", "application"), files.items(), strict=False):
            modules.append(await self._management.create_module(f"{kind}-{name}", "1.2", kind))
            await self._management.upload(modules[-1], filename, content)
        return await self._management.create_set(name, "1.2", modules, "os" if len(modules) == 1 else "os_app")

    async def assign(self, target: str, number: int, kind: Kind = Kind.FORCED, *, closed_window: bool = False) -> int:
        window = _FAR if closed_window else None
        return await self._management.assign(target, number, RealKind(kind.value), window=window)

    async def cancel(self, target: str, action: int) -> None:
        await self._management.cancel(target, action)

    async def seen(self, target: str, action: int) -> Seen:
        found = await self._management.history(target, action)
        status = (await self._management.action(target, action)).status
        return Seen(status, tuple(each.type for each in found), _words([each.messages for each in found]))

    async def update_status(self, target: str) -> str:
        return (await self._management.target(target)).update_status

    async def attributes(self, target: str) -> Mapping[str, str]:
        return await self._management.attributes(target)


class SimulatedOperator:
    """In the simulator itself."""

    def __init__(self, simulator: HawkbitSimulator) -> None:
        self._holdings = simulator.holdings

    async def publish(self, files: Mapping[str, bytes]) -> int:
        return self._holdings.publish_all(f"firmware-{uuid4().hex}", "1.2", files)

    async def assign(self, target: str, number: int, kind: Kind = Kind.FORCED, *, closed_window: bool = False) -> int:
        return self._holdings.assign(target, number, kind, closed_window=closed_window)

    async def cancel(self, target: str, action: int) -> None:
        assert self._holdings.actions[action].target == target
        self._holdings.cancel(action)

    async def seen(self, target: str, action: int) -> Seen:
        found = self._holdings.of(target, str(action))
        return Seen(found.status, tuple(each.type for each in found.entries), _words([each.messages for each in found.entries]))

    async def update_status(self, target: str) -> str:
        return self._holdings.known(target).update_status

    async def attributes(self, target: str) -> Mapping[str, str]:
        return self._holdings.known(target).attributes


def _words(entries: Sequence[Sequence[str | None]]) -> str:
    return "\n".join(line or "" for messages in entries for line in messages)
