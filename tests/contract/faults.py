"""Faults at every step of any kind of device: a process that dies, or a device that refuses, at the given operation.

A kind joins by naming the attributes of its driver through which the device is reached (`Kind.reaches`): each coroutine function
of such an object is then an operation, like every primitive of the disk.

fuse = Fuse()
device = make_device(folder, Disk(fuse.disk))
tap(device.driver, kind.reaches, fuse)
fuse.arm(12, Fault.DIES_AFTER)
"""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from node_agent.drivers.driver import Driver, Restart, SlotState
from tests.contract.devices import Device, Release, quiet
from tests.replay import Killed
from update.durable import Operation
from update.errors import DeviceError, FieldrelayError, SilentError

ROUNDS = 12
"""So often the agent looks again before it gives up; an undisturbed update takes four."""


class Fault(StrEnum):
    """What happens at an operation."""

    DIES_BEFORE = "dies-before"  # the process is gone, nothing was done
    DIES_AFTER = "dies-after"  # the process is gone, the device did it
    REFUSES = "refuses"  # the device says no, once
    MUTE = "mute"  # the device does it, and its answer is lost


@dataclass(slots=True)
class Fuse:
    """Counts operations once armed, and burns at one of them."""

    count: int = 0
    at: int = -1
    fault: Fault = Fault.DIES_BEFORE
    live: bool = False

    def arm(self, at: int = -1, fault: Fault = Fault.DIES_BEFORE) -> None:
        """Count from now on; without `at` only that."""
        self.count, self.at, self.fault, self.live = 0, at, fault, True

    @property
    def burnt(self) -> bool:
        return self.at >= 0 and not self.live

    def disk(self, _operation: Operation) -> None:
        """An operation of the disk: it can only die."""
        if self._due() and self.fault in {Fault.DIES_BEFORE, Fault.DIES_AFTER}:
            raise Killed

    async def device(self, work: Callable[[], Awaitable[object]]) -> object:
        """An operation of the device."""
        if not self._due():
            return await work()
        match self.fault:
            case Fault.DIES_BEFORE:
                raise Killed
            case Fault.REFUSES:
                raise SilentError("this operation was told to fail")
            case Fault.DIES_AFTER | Fault.MUTE:
                await work()
        raise Killed if self.fault is Fault.DIES_AFTER else SilentError("the answer was told to be lost")

    def _due(self) -> bool:
        if not self.live:
            return False
        self.count += 1
        if self.count - 1 != self.at:
            return False
        self.live = False
        return True


class Tap:
    """Stands for an object through which a driver reaches its device; its coroutine functions are operations."""

    def __init__(self, inner: object, fuse: Fuse) -> None:
        self._inner = inner
        self._fuse = fuse

    def __getattr__(self, name: str) -> object:
        found = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def operation(*values: object, **named: object) -> object:
            return await self._fuse.device(lambda: found(*values, **named))

        return operation


def tap(driver: Driver, reaches: tuple[str, ...], fuse: Fuse) -> None:
    """Let every operation by way of these attributes of `driver` (`_line`, `_machine._flash`) go through `fuse`."""
    for place in reaches:
        *way, name = place.split(".")
        owner: object = driver
        for step in way:
            owner = getattr(owner, step)
        setattr(owner, name, Tap(getattr(owner, name), fuse))


async def forward(device: Device, release: Release) -> None:
    """What an agent does until `release` runs confirmed in slot b, looking anew after every failure."""
    for _ in range(ROUNDS):
        try:
            if await _advanced(device, release):
                return
        except DeviceError:
            continue
    raise AssertionError(f"no end after {ROUNDS} rounds: {await device.driver.slots()}")


async def back(device: Device) -> None:
    """What an agent does until slot a runs again and b is given up."""
    for _ in range(ROUNDS):
        try:
            if await _returned(device):
                return
        except DeviceError:
            continue
    raise AssertionError(f"no way back after {ROUNDS} rounds: {await device.driver.slots()}")


async def restarted(device: Device) -> None:
    """What follows the driver's word: the power switch, where the word does not do it."""
    if await device.driver.restart() is not Restart.DONE:
        device.board.power_on()


async def until_fault(word: Callable[[], Awaitable[None]]) -> FieldrelayError | None:
    """Do `word`; a fault of a `Fuse` ends it."""
    try:
        await word()
    except (Killed, FieldrelayError) as fault:
        return fault if isinstance(fault, FieldrelayError) else None
    return None


async def _advanced(device: Device, release: Release) -> bool:
    driver, target = device.driver, (await device.driver.slots())[1]
    if target.booted and target.state is SlotState.ACTIVE:
        return True
    if target.booted and target.trial:
        await driver.confirm()
    elif target.trial:
        await restarted(device)
    elif target.state is SlotState.PENDING:
        await driver.activate()
    else:
        await driver.write(release.bundle, release.chunks, quiet)
    return False


async def _returned(device: Device) -> bool:
    first, second = await device.driver.slots()
    if first.booted and not second.trial and first.state is SlotState.ACTIVE:
        return True
    await device.driver.revert()
    if not (await device.driver.slots())[0].booted:
        await restarted(device)
    return False
