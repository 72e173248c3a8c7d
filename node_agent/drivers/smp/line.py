"""The line to a microcontroller: SMP over UDP or a serial port, by smpclient.

A device in the field answers late, twice or not at all, so:

- Every request is asked again a bounded number of times, each time over a new connection: an answer that comes after its time
  stays in the queue and would be taken for the next one's.
- A connection proves nothing. It counts when an echo came back.
- An upload is begun again with the same bytes: a device that stayed up goes on where it was, one that restarted begins anew. The
  tries are counted from the last new byte.
- A restart is not asked again: its answer may be lost with the device.

The only module that imports smpclient and pyserial: the driver loads it late.
"""

import asyncio
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Final, cast

import serial
from smpclient import SMPClient
from smpclient.exceptions import SMPClientException, SMPUploadError
from smpclient.generics import SMPRequest, TEr1, TEr2, TRep, success
from smpclient.requests.image_management import ImageErase, ImageStatesRead, ImageStatesWrite
from smpclient.requests.os_management import EchoWrite, ResetWrite
from smpclient.transport import SMPTransport, SMPTransportDisconnected
from smpclient.transport.serial import SMPSerialTransport
from smpclient.transport.udp import SMPUDPTransport

from node_agent.drivers.smp.view import DeviceView, ImageSeen, make_view
from update.errors import BootloaderError, SilentError

_LOST: Final = (OSError, SMPClientException, SMPTransportDisconnected, ValueError, EOFError, struct.error)
"""What a request ends with when no answer, or none that makes sense, came: a lost or damaged frame is no answer."""

_PAUSE_S = 0.3
_TRY: Final = "check its power, its cable and that nothing else uses the port"
_ECHO: Final = "fieldrelay"
_SOCKET: Final = "socket://"
_UDP_MTU: Final = 1500


@dataclass(frozen=True, slots=True)
class Serial:
    """A serial port, or `socket://host:port` for one behind a serial device server."""

    port: str
    baudrate: int = 115_200


@dataclass(frozen=True, slots=True)
class Datagrams:
    """A device with a network of its own."""

    host: str
    port: int = 1337


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for an answer, how long for the first one of an upload (the device erases before it), and how often."""

    answer_s: float = 2.5
    erase_s: float = 40.0
    tries: int = 8


class _Udp(SMPUDPTransport):
    """With a port of its own: smpclient's client never hands one to `connect`."""

    def __init__(self, port: int) -> None:
        super().__init__(mtu=_UDP_MTU)
        self._port = port

    async def connect(self, address: str, timeout_s: float, port: int = 0) -> None:
        await super().connect(address, timeout_s, port or self._port)


class _Socket(SMPSerialTransport):
    """Over TCP instead of a port; smpclient means `connect` to be replaced for that."""

    async def connect(self, address: str, timeout_s: float) -> None:
        self._reset_state()
        async with asyncio.timeout(timeout_s):
            opened = await asyncio.to_thread(serial.serial_for_url, address, timeout=0, write_timeout=0)
        object.__setattr__(opened, "out_waiting", 0)  # pyserial's socket lacks it: nothing ever waits
        object.__setattr__(self, "_conn", opened)  # final there, and made for a local port


class Line:
    """One device; not for two tasks at once. `image` is the number of the image on devices that have several."""

    def __init__(self, place: Serial | Datagrams, patience: Patience, image: int = 0) -> None:
        self._place = place
        self._patience = patience
        self._image = image
        self._client: SMPClient | None = None

    async def view(self) -> DeviceView:
        """What the device says of its images. Errors: `SilentError`, `BootloaderError`."""
        answer = await self._ask("read the images", ImageStatesRead())
        images = [image for image in answer.images if (image.image or 0) == self._image]
        return make_view(
            ImageSeen(
                image.slot,
                image.version,
                bytes(image.hash or b""),
                pending=bool(image.pending),
                confirmed=bool(image.confirmed),
                active=bool(image.active),
                permanent=bool(image.permanent),
            )
            for image in images
        )

    async def upload(self, image: bytes, advance: Callable[[int], None]) -> None:
        """Bring `image` into place 1; `advance` hears how many bytes the device has. Errors: as `view`."""
        best, left = 0, self._patience.tries
        while True:
            try:
                client = await self._connected()
                async with aclosing(self._pieces(client, image)) as offsets:
                    async for offset in offsets:
                        advance(offset)
                        if offset > best:
                            best, left = offset, self._patience.tries
                return
            except SMPUploadError as error:
                await self.close()
                raise BootloaderError(f"{self._name} refused the image at byte {best}: {_shown(error)}") from error
            except _LOST as error:
                await self.close()
                left -= 1
                if left <= 0:
                    raise SilentError(f"{self._name}: the upload stopped at {best} of {len(image)} bytes; {_TRY}") from error

    async def try_once(self, image_hash: bytes) -> None:
        """The next start tries the image of that hash. Errors: as `view`."""
        await self._ask("mark an image for a trial", ImageStatesWrite(hash=image_hash, confirm=False))

    async def keep_next(self, image_hash: bytes) -> None:
        """The next start brings the image of that hash, and keeps it. Errors: as `view`."""
        await self._ask("mark an image for good", ImageStatesWrite(hash=image_hash, confirm=True))

    async def confirm(self) -> None:
        """The running image stays. Errors: as `view`."""
        await self._ask("confirm the running image", ImageStatesWrite(confirm=True))

    async def erase(self) -> None:
        """Empty place 1. Errors: as `view`."""
        await self._ask("erase an image", ImageErase(), timeout_s=self._patience.erase_s)

    async def reset(self) -> None:
        """Ask for a restart, once; whether it came is seen afterwards. Errors: `BootloaderError`."""
        try:
            client = await self._connected()
            self._granted("restart", await client.request(ResetWrite(), self._patience.answer_s))
        except _LOST:
            return
        finally:
            await self.close()

    async def answers(self) -> bool:
        """Whether an echo comes back over a new connection."""
        await self.close()
        try:
            await self._connected()
        except _LOST:
            return False
        return True

    async def close(self) -> None:
        """Give the port back."""
        client, self._client = self._client, None
        if client is not None:
            await _closed(client)

    @property
    def _name(self) -> str:
        match self._place:
            case Serial(port):
                return f"the device at {port}"
            case Datagrams(host, port):
                return f"the device at {host}, UDP port {port}"

    async def _ask(self, what: str, request: SMPRequest[TRep, TEr1, TEr2], *, timeout_s: float | None = None) -> TRep:
        left = self._patience.tries
        while True:
            try:
                client = await self._connected()
                return self._granted(what, await client.request(request, timeout_s or self._patience.answer_s))
            except _LOST as error:
                await self.close()
                left -= 1
                if left <= 0:
                    raise SilentError(f"{self._name} does not answer when asked to {what}; {_TRY}") from error
                await asyncio.sleep(_PAUSE_S)

    async def _connected(self) -> SMPClient:
        if self._client is not None:
            return self._client
        transport, address = self._transport()
        client = SMPClient(transport, address, self._patience.answer_s)
        try:
            await client.connect()
            _require_echo(await client.request(EchoWrite(d=_ECHO)))
        except BaseException:  # a cancelled contact, too, must not leave the port open
            await _closed(client)
            raise
        self._client = client
        return client

    def _transport(self) -> tuple[SMPTransport, str]:
        match self._place:
            case Datagrams(host, port):
                return _Udp(port), host
            case Serial(port, baudrate) if port.startswith(_SOCKET):
                return _Socket(baudrate=baudrate), port
            case Serial(port, baudrate):
                return SMPSerialTransport(baudrate=baudrate, exclusive=True), port

    def _pieces(self, client: SMPClient, image: bytes) -> AsyncGenerator[int, None]:
        offsets = client.upload(image, self._image, first_timeout_s=self._patience.erase_s)
        return cast("AsyncGenerator[int, None]", offsets)  # declared as an iterator, and a generator that must be closed

    def _granted(self, what: str, answer: TRep | TEr1 | TEr2) -> TRep:
        if success(answer):
            return answer
        raise BootloaderError(f"{self._name} refuses to {what}: {_shown(answer)}")


def _require_echo(answer: object) -> None:
    """Whatever else comes back is none, and so is no connection."""
    if getattr(answer, "r", None) != _ECHO:
        raise SMPClientException(f"an echo came back as {_shown(answer)}")


async def _closed(client: SMPClient) -> None:
    """Whatever state its transport is in."""
    with suppress(OSError, AttributeError):  # smpclient's UDP has no endpoint to close before it was connected
        await client.disconnect()


def _shown(refusal: object) -> str:
    """What a device or smpclient says, in few words: foreign text."""
    return str(refusal)[:300]
