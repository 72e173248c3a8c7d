"""RAUC's service on the D-Bus: what it says of the slots, `Mark`, and one installation at a time (RAUC manual, "D-Bus API").

Every word opens a connection of its own: the service may be restarted between two of them, and the bus starts it again.

An installation ends by the signal `Completed`, or by one of three other ways, because `Completed` may never come: the owner of
the name changes (the service ended), the connection ends (the bus did), or the time is up. The property `Operation` proves
nothing: RAUC 1.8 sets it to `idle` in the middle of an installation when another one is refused.

The only module that imports dbus-fast: the driver loads it late.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, assert_never, cast

from dbus_fast import BusType, Message, MessageFlag, MessageType, Variant
from dbus_fast.aio import MessageBus
from dbus_fast.errors import DBusError

from node_agent.drivers.installers.rauc_slots import RaucState, read_state
from update.errors import BootloaderError, HandlerError

NAME: Final = "de.pengutronix.rauc"
_INSTALLER: Final = "de.pengutronix.rauc.Installer"
_PROPERTIES: Final = "org.freedesktop.DBus.Properties"
_BUSY: Final = "already processing"
_BUSY_PAUSE_S = 2.0
_MATCHES: Final = (
    f"type='signal',sender='{NAME}',path='/'",
    f"type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='{NAME}'",
)

Percent = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class _Begun:
    """RAUC took the order, or not: `refusal` is its reason."""

    refusal: str | None


@dataclass(frozen=True, slots=True)
class _Completed:
    """RAUC is through; 0 is success."""

    result: int


@dataclass(frozen=True, slots=True)
class _Gone:
    """Who would have told the end ended itself."""

    who: str


_Event = _Begun | _Completed | _Gone


class RaucBus:
    """The service on the bus at `address`; empty: the system's. `timeout_s` is for one question.

    While it installs RAUC refuses every question: then it is asked again, for `busy_s` at most.
    """

    def __init__(self, address: str, timeout_s: float, busy_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._busy_s = busy_s

    async def look(self) -> RaucState:
        """Slots and identity as they are now. Errors: `BootloaderError`."""
        async with self._connected() as bus:
            (slots,) = await self._ask_idle(bus, "GetSlotStatus")
            (primary,) = await self._ask_idle(bus, "GetPrimary")
            (properties,) = await self._ask(bus, _PROPERTIES, "GetAll", "s", [_INSTALLER])
        return read_state(_plain(slots), _plain(primary), _plain(properties))

    async def mark(self, state: str, slot: str) -> None:
        """`good`, `bad` or `active` for the slot of RAUC's name `slot`. Errors: `BootloaderError`."""
        async with self._connected() as bus:
            await self._ask_idle(bus, "Mark", "ss", [state, slot])

    async def install(self, file: Path, percent: Percent, timeout_s: float) -> None:
        """Install `file`, waiting for an earlier installation to end; `HandlerError` with RAUC's reason, or for no end."""
        try:
            async with asyncio.timeout(timeout_s), self._connected() as bus:
                await self._install(bus, file, percent)
        except TimeoutError as error:
            raise HandlerError(
                f"rauc has not told the end of installing {file.name} within {timeout_s:g} s; look at its log, and restart it"
            ) from error
        except BootloaderError as error:
            raise HandlerError(f"rauc could not be asked to install {file.name}: {error}") from error

    async def _install(self, bus: MessageBus, file: Path, percent: Percent) -> None:
        events: asyncio.Queue[_Event] = asyncio.Queue()
        reader = _Reader(events, percent)
        bus.add_message_handler(reader.read)
        for rule in _MATCHES:
            await self._ask(bus, "org.freedesktop.DBus", "AddMatch", "s", [rule])
        ending = asyncio.create_task(_tell_end(bus, events))
        try:
            while (refusal := await self._begin(bus, file, reader)) is not None:
                if not _is_busy(refusal):
                    raise HandlerError(f"rauc refused to install {file.name}: {refusal}")
                with suppress(TimeoutError):
                    async with asyncio.timeout(_BUSY_PAUSE_S):
                        await _next_end(events)
            if await _next_end(events):
                raise HandlerError(f"rauc could not install {file.name}: {await self._last_error(bus)}")
        finally:
            ending.cancel()

    async def _begin(self, bus: MessageBus, file: Path, reader: "_Reader") -> str | None:
        """Ask for the installation; whatever was told before the answer is of an earlier one."""
        order = _message(_INSTALLER, "InstallBundle", "sa{sv}", [str(file), {}])
        order.serial = bus.next_serial()
        reader.order = order.serial
        await bus.send(order)
        while True:
            match await reader.events.get():
                case _Begun(refusal):
                    return refusal
                case _Gone(who):
                    raise HandlerError(f"{who} ended before rauc took the order; try again")
                case _Completed():
                    pass

    async def _last_error(self, bus: MessageBus) -> str:
        (value,) = await self._ask(bus, _PROPERTIES, "Get", "ss", [_INSTALLER, "LastError"])
        return str(_plain(value))[:1000] or "it gives no reason; look at its log"

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[MessageBus]:
        bus = MessageBus(bus_address=self._address or None, bus_type=BusType.SYSTEM)
        try:
            async with asyncio.timeout(self._timeout_s):
                await bus.connect()
        except (OSError, EOFError, TimeoutError, DBusError) as error:
            raise BootloaderError(f"the D-Bus at {self._address or 'its system address'} cannot be reached: {error}") from error
        try:
            yield bus
        finally:
            bus.disconnect()
            await _disconnected(bus)

    async def _ask_idle(self, bus: MessageBus, member: str, signature: str = "", body: Sequence[object] = ()) -> Sequence[object]:
        """A question that RAUC answers only while it does not install; an installation may outlive the agent that began it."""
        give_up = asyncio.get_running_loop().time() + self._busy_s
        while True:
            try:
                return await self._ask(bus, _INSTALLER, member, signature, body)
            except BootloaderError as error:
                if not _is_busy(str(error)) or asyncio.get_running_loop().time() > give_up:
                    raise
            await asyncio.sleep(_BUSY_PAUSE_S)

    async def _ask(
        self, bus: MessageBus, interface: str, member: str, signature: str = "", body: Sequence[object] = ()
    ) -> Sequence[object]:
        try:
            async with asyncio.timeout(self._timeout_s):
                reply = await bus.call(_message(interface, member, signature, body))
        except (OSError, EOFError, TimeoutError) as error:
            raise BootloaderError(f"rauc gave no answer to {member} within {self._timeout_s:g} s") from error
        if reply.message_type is not MessageType.METHOD_RETURN:
            raise BootloaderError(f"rauc refused {member}: {_reason(reply)}")
        return reply.body


class _Reader:
    """Turns messages into events, in the order in which they come; `order` is the serial number of the order."""

    def __init__(self, events: "asyncio.Queue[_Event]", percent: Percent) -> None:
        self.events = events
        self.order = 0
        self._percent = percent

    def read(self, message: Message) -> None:
        """Called by dbus-fast for every message."""
        if message.reply_serial and message.reply_serial == self.order:
            good = message.message_type is MessageType.METHOD_RETURN
            self.events.put_nowait(_Begun(None if good else _reason(message)))
        elif message.message_type is MessageType.SIGNAL:
            self._signal(message)

    def _signal(self, message: Message) -> None:
        match message.member, message.body:
            case "Completed", [int(result)]:
                self.events.put_nowait(_Completed(result))
            case "NameOwnerChanged", [str(name), str(before), _] if name == NAME and before:
                self.events.put_nowait(_Gone("rauc's service"))
            case "PropertiesChanged", [_, dict(changed), _] if "Progress" in changed:
                match _plain(changed["Progress"]):
                    case [int(percent), *_]:
                        self._percent(percent)


async def _disconnected(bus: MessageBus) -> None:
    waiting = cast("Callable[[], Awaitable[None]]", bus.wait_for_disconnect)  # dbus-fast left it without types
    with suppress(OSError, EOFError):
        await waiting()


async def _tell_end(bus: MessageBus, events: "asyncio.Queue[_Event]") -> None:
    await asyncio.shield(_disconnected(bus))  # whoever is cancelled here must not cancel the connection's own future
    events.put_nowait(_Gone("the D-Bus"))


async def _next_end(events: "asyncio.Queue[_Event]") -> int:
    """The result of the installation under way. `HandlerError` if nobody can tell any more."""
    while True:
        event = await events.get()
        match event:
            case _Completed(result):
                return result
            case _Gone(who):
                raise HandlerError(f"{who} ended during the installation; the inactive slot holds nothing complete")
            case _Begun():
                pass
            case _:
                assert_never(event)


def _message(interface: str, member: str, signature: str, body: Sequence[object]) -> Message:
    """To RAUC, or to the bus itself."""
    of_bus = interface == "org.freedesktop.DBus"
    return Message(
        destination=interface if of_bus else NAME,
        path="/org/freedesktop/DBus" if of_bus else "/",
        interface=interface,
        member=member,
        signature=signature,
        body=list(body),
        flags=MessageFlag.NONE,
    )


def _is_busy(refusal: str) -> bool:
    return _BUSY in refusal.casefold()


def _reason(reply: Message) -> str:
    return f"{' '.join(map(str, reply.body))[:1000]} ({reply.error_name})"


def _plain(value: object) -> object:
    """`value` without the envelopes that D-Bus puts around values of any type."""
    match value:
        case Variant():
            return _plain(value.value)
        case dict():
            return {key: _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
    return value
