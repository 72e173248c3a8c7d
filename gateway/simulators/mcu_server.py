"""Puts a simulated microcontroller on UDP or on a pty (Zephyr, "SMP protocol" and "SMP over console").

A frame is version and op (a byte), flags, payload length u16, group u16, sequence u8, command u8, big endian, then a CBOR map. A
datagram is one frame. On a line: length u16 (of frame and CRC), frame, CRC16-XMODEM u16, all in base64, cut into lines that begin
with 06 09 (the first) or 04 14 and end with a line feed.
"""

import asyncio
import base64
import binascii
import os
import struct
import tty
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Final

import cbor2

from gateway.simulators.mcu import Mcu, McuFaults, Refusal

_HEADER: Final = struct.Struct("!BBHHBB")
_OS_GROUP, _RESET, _WRITE, _OP, _VERSION_2 = 0, 5, 2, 0x7, 0x8
_FIRST, _NEXT = b"\x06\x09", b"\x04\x14"
_LINE_CHARACTERS: Final = 124
_MAX_FRAME_BYTES: Final = 64 << 10
_BLOCK_BYTES: Final = 4096
_GARBAGE: Final = b"\xff" * 24

_Send = Callable[[bytes], None]


@asynccontextmanager
async def serve_udp(mcu: Mcu, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    """The device at `host`; yields its UDP port."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(mcu), local_addr=(host, port))
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


@asynccontextmanager
async def serve_pty(mcu: Mcu) -> AsyncIterator[str]:
    """The device behind a serial port; yields its path."""
    loop = asyncio.get_running_loop()
    inner, outer = os.openpty()
    lines = _Lines(mcu, lambda data: _write_all(inner, data))
    try:
        tty.setraw(outer)
        loop.add_reader(inner, lambda: lines.feed(os.read(inner, _BLOCK_BYTES)))
        yield os.ttyname(outer)
    finally:
        loop.remove_reader(inner)
        os.close(inner)
        os.close(outer)


class _Datagrams(asyncio.DatagramProtocol):
    """One frame each way per request."""

    def __init__(self, mcu: Mcu) -> None:
        self._mcu = mcu
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override] # what it is for datagrams
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        _serve(self._mcu, data, lambda answer: self._send(answer, addr))

    def _send(self, answer: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None:
            self._transport.sendto(answer, addr)


class _Lines:
    """Frames out of lines, and lines out of frames."""

    def __init__(self, mcu: Mcu, send: _Send) -> None:
        self._mcu = mcu
        self._send = send
        self._line = bytearray()
        self._packet = bytearray()

    def feed(self, data: bytes) -> None:
        """What came in; anything that is no frame is dropped, as a console would print it."""
        self._line += data
        while b"\n" in self._line:
            line, _, rest = bytes(self._line).partition(b"\n")
            self._line = bytearray(rest)
            self._take(line)
        if len(self._line) > _MAX_FRAME_BYTES:
            self._line.clear()

    def _take(self, line: bytes) -> None:
        kind, text = line[:2], line[2:]
        if kind == _FIRST:
            self._packet.clear()
        if kind not in {_FIRST, _NEXT} or len(self._packet) > _MAX_FRAME_BYTES:
            return
        try:
            self._packet += base64.b64decode(text, validate=True)
        except binascii.Error:
            return
        length = int.from_bytes(self._packet[:2], "big")
        if len(self._packet) >= length + 2 > 4:
            frame, check = bytes(self._packet[2:length]), bytes(self._packet[length : length + 2])
            if binascii.crc_hqx(frame, 0) == int.from_bytes(check, "big"):
                _serve(self._mcu, frame, lambda answer: self._send(to_lines(answer)))


def to_lines(frame: bytes) -> bytes:
    """A frame as it goes over a console."""
    packet = struct.pack("!H", len(frame) + 2) + frame + struct.pack("!H", binascii.crc_hqx(frame, 0))
    text = base64.b64encode(packet)
    pieces = [text[start : start + _LINE_CHARACTERS] for start in range(0, len(text), _LINE_CHARACTERS)]
    return b"".join((_NEXT if number else _FIRST) + piece + b"\n" for number, piece in enumerate(pieces))


def _serve(mcu: Mcu, frame: bytes, send: _Send) -> None:
    mcu.moment()
    _take(mcu, frame, send)
    mcu.moment()


def _take(mcu: Mcu, frame: bytes, send: _Send) -> None:
    """Answer one frame, or do what the device's faults say instead."""
    number, mcu.requests = mcu.requests, mcu.requests + 1
    faults = mcu.faults
    if number in faults.restart_at:
        mcu.start()
        return
    if mcu.is_silent() or _is_lost(number, faults) or len(frame) < _HEADER.size:
        return
    answer, resets = _answer(mcu, frame)
    if number in faults.damaged_answers:
        answer = _GARBAGE
    if number not in faults.lost_answers:
        if after_s := faults.answer_after_s + (faults.late_s if number in faults.late_answers else 0.0):
            asyncio.get_running_loop().call_later(after_s, send, answer)
        else:
            send(answer)
    if resets and not faults.keeps_running:
        mcu.start()


def _is_lost(number: int, faults: McuFaults) -> bool:
    return number in faults.lost_requests or Random(number).random() < faults.lost_share  # noqa: S311 - faults must repeat


def _answer(mcu: Mcu, frame: bytes) -> tuple[bytes, bool]:
    first, flags, _, group, sequence, command = _HEADER.unpack_from(frame)
    write = first & _OP == _WRITE
    granted = True
    try:
        body = mcu.answer(group, command, write=write, body=_read_map(frame[_HEADER.size :]))
    except Refusal as refusal:
        granted = False
        error = {"group": refusal.group, "rc": refusal.code}
        body = {"err": error} if first & _VERSION_2 else {"rc": refusal.code}
    payload = cbor2.dumps(body)
    head = _HEADER.pack(first + 1, flags, len(payload), group, sequence, command)
    return head + payload, granted and (group, command, write) == (_OS_GROUP, _RESET, True)


def _read_map(payload: bytes) -> dict[str, object]:
    """The request's body; empty where it is none."""
    try:
        body = cbor2.loads(payload)
    except (ValueError, EOFError):
        return {}
    return body if isinstance(body, dict) else {}


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
