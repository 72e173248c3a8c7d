"""What is seen of nodes that cannot prove anything: the headers of their RAUC, or a configured probe.

- A sighting says which version runs in which boot. That decides what was installed (`Progress.observe`).
- Serial number and variant become attributes of the node, like what it says itself.
- A RAUC says the same at every poll, and thousands of times while it streams: only what is new is looked at.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.database.engine import Database
from gateway.database.queries import nodes
from gateway.fleet.fitness import VARIANT, hardware_of
from gateway.fleet.progress import MAX_ATTRIBUTES, Progress
from update.wire.attributes import read_facts

SERIAL: Final = "rauc.serial"
_MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Sighting:
    """Empty texts for what was not said; `variant` None: nothing was said of it."""

    version: str = ""
    boot_id: str = ""
    serial: str = ""
    variant: str | None = None

    @property
    def attributes(self) -> Mapping[str, str]:
        """What is kept beside version and boot."""
        return {**({SERIAL: self.serial} if self.serial else {}), **({} if self.variant is None else {VARIANT: self.variant})}


class Sightings:
    """Takes what is seen to where it counts."""

    def __init__(self, database: Database, progress: Progress) -> None:
        self._database = database
        self._progress = progress
        self._last: dict[str, tuple[int, Sighting]] = {}

    async def seen(self, node: str, sighting: Sighting) -> None:
        """A node was seen. `NotFoundError` for one that was never here."""
        await self._describe(node, sighting)
        await self._progress.observe(node, sighting.version, sighting.boot_id)

    async def seen_again(self, node: str, action: int, sighting: Sighting) -> None:
        """The same, while it asks about this action (0: none): mostly it is no news, and costs nothing."""
        if self._last.get(node) == (action, sighting):
            return
        await self.seen(node, sighting)
        if len(self._last) >= _MOST_REMEMBERED:
            self._last.clear()
        self._last[node] = action, sighting

    async def _describe(self, node: str, sighting: Sighting) -> None:
        async with self._database.writing() as transaction:
            known = await nodes.find(transaction, node)
            if known is None:
                return
            attributes = {**known.attributes, **sighting.attributes}
            if attributes != known.attributes and len(attributes) <= MAX_ATTRIBUTES:
                hardware = read_facts(attributes).hardware or hardware_of(attributes)
                await nodes.note_attributes(transaction, node, attributes, hardware)
