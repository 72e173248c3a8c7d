"""The agent of one attached device, in its own thread: made, and then turn after turn for ever."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from gateway.fleet.attached.bounded import BoundedDriver
from gateway.fleet.attached.crossing import Crossing
from gateway.fleet.attached.orders import Desk, DeskSource
from node_agent.agent import Agent, Pace, Turn
from node_agent.content import Transport
from node_agent.control import only_one
from node_agent.device import Equipment, make_device
from node_agent.record import Entry
from update.durable import Disk
from update.errors import StateError, WireError

LOOK_S: Final = 15.0
RETRY_S: Final = 5.0
HELD_S: Final = 1.5
"""A decision about several devices waits for the slowest of them to be heard: each ask is a word, and tests the trial."""
_PACE: Final = Pace(soon_s=1.0, look_s=5.0)
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Attached:
    """One device: what is configured of it, and what it has of the gateway."""

    equipment: Equipment
    stalled_after_s: float
    desk: Desk
    crossing: Crossing
    transport: Transport
    disk: Disk

    async def live(self, note_well: Callable[[], None]) -> None:
        """Carry out orders until something raises; the journal says where the next life goes on.

        Errors: those of `make_device`, `BusyError` beside another agent on the same folder, `DeviceError` for a device that does
        not say what it runs, `StoreError`; whatever a driver raises.
        """
        state = self.equipment.state
        self.disk.make_folder(state, mode=0o700)
        with only_one(state):
            device = make_device(self.equipment, self.disk)
            device = replace(device, driver=BoundedDriver(device.driver, self.stalled_after_s))
            source = DeskSource(self.crossing, self.desk, device.facts)
            agent = device.agent(source, self.transport, _PACE, _unwatched)
            while True:
                await source.describe()
                turn = await _turn(agent)
                note_well()
                if turn is not Turn.ENDED:
                    await self._pause(turn)

    async def _pause(self, turn: Turn) -> None:
        """Until there is something new, or it is time to look again."""
        longest_s = {Turn.NOTHING: LOOK_S, Turn.HELD: HELD_S}.get(turn, RETRY_S)
        if turn in {Turn.EXIT, Turn.GOING_DOWN}:
            raise StateError(f"the agent of an attached device ended with {turn}: its driver is none for a gateway")
        await self.crossing.call(lambda: self.desk.wait(longest_s))


async def _turn(agent: Agent) -> Turn:
    """One turn; a gateway that cannot answer now is waited for."""
    try:
        return await agent.turn()
    except WireError as error:
        _LOG.warning("cannot ask for orders: %s (%s)", error, error.code)
        return Turn.WAITING


def _unwatched(_entry: Entry, _done: int, _total: int) -> None:
    """What is done is reported."""
