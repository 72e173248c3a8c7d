#!/usr/bin/python3
"""The program of an ECU that is flashed by UDS (ISO 14229-1), for the driver `command`, over the Python library udsoncan.

`address`: `isotp:can0:7e0:7e8` (interface, identifier of requests, of answers; the kernel's can-isotp and the library can-isotp),
or `udp:HOST:PORT` for a gateway or simulator that takes one message per datagram. Settings, numbers in hexadecimal:

- `version_did` (default f195, systemSupplierECUSoftwareVersionNumber): what the version is read from, as ASCII
- `memory_address`: where the image goes; `erase_routine` (ff00) and `check_routine` (0202): started before and after; empty: not
- `security_level` (odd; empty: none) and `key_program`: gets the seed as hexadecimal digits, prints the key
- `timeout_s` (decimal, default 5): of one request

One slot: what runs is overwritten. The sequence is the common one: programming session, security access, erase, request download,
transfer data, transfer exit, check, ECU reset (ISO 14229-1, sections 9.2, 9.4, 13, 14 and 9.3); ECUs differ, so adapt a copy.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from udsoncan import DidCodec, MemoryLocation
from udsoncan.client import Client
from udsoncan.connections import BaseConnection, IsoTPSocketConnection, SocketConnection
from udsoncan.exceptions import NegativeResponseException, TimeoutException
from udsoncan.services import DiagnosticSessionControl, ECUReset

Question = dict[str, Any]
Answer = dict[str, str]
DEFAULTS = {"version_did": "f195", "memory_address": "0", "erase_routine": "ff00", "check_routine": "0202", "timeout_s": "5"}


def connection(address: str) -> BaseConnection:
    """The line to the ECU."""
    kind, *rest = address.split(":")
    if kind == "udp":
        line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        line.connect((rest[0], int(rest[1])))
        return SocketConnection(line)
    if kind == "isotp":
        import isotp  # noqa: PLC0415 - only ECUs on a CAN bus need it

        return IsoTPSocketConnection(rest[0], isotp.Address(txid=int(rest[1], 16), rxid=int(rest[2], 16)))
    sys.exit(f"the address {address} begins with neither isotp: nor udp:")


@contextmanager
def ecu(question: Question) -> Iterator[tuple[Client, dict[str, str]]]:
    """A client, and the settings."""
    settings = {**DEFAULTS, **question["settings"]}
    timeout = float(settings["timeout_s"])
    config = {
        "data_identifiers": {int(settings["version_did"], 16): Text},
        "request_timeout": timeout,
        "p2_timeout": timeout,
        "use_server_timing": False,
        "security_algo": lambda seed, **_: key_of(settings, seed),
    }
    with Client(connection(question["address"]), config=config) as client:
        yield client, settings


class Text(DidCodec):
    """An identifier that holds text of any length."""

    def decode(self, did_payload: bytes) -> str:
        """Without what fills it up."""
        return did_payload.decode("ascii", "replace").rstrip("\0 ")

    def __len__(self) -> int:
        raise self.ReadAllRemainingData


def key_of(settings: dict[str, str], seed: bytes) -> bytes:
    """Ask the integrator's program."""
    done = subprocess.run([settings["key_program"], seed.hex()], capture_output=True, text=True, check=True, timeout=30)
    return bytes.fromhex(done.stdout.strip())


def probe(question: Question) -> Answer:
    """What it says of its version."""
    try:
        with ecu(question) as (client, settings):
            identifier = int(settings["version_did"], 16)
            found = client.read_data_by_identifier(identifier).service_data.values[identifier]
    except (TimeoutException, OSError) as error:
        return {"result": "ok", "state": "silent", "reason": f"no answer: {error}"}
    except NegativeResponseException as error:
        return {"result": "ok", "state": "stopped", "reason": str(error)}
    return {"result": "ok", "state": "running", "version": found}


def stage(question: Question) -> Answer:
    """Nothing is sent to an ECU with one slot before it is activated."""
    return {"result": "ok"} if question["image"]["size"] else {"result": "unsuitable", "reason": "it is empty"}


def activate(question: Question) -> Answer:
    """The whole sequence; begun anew, it writes everything again."""
    data = Path(question["image"]["path"]).read_bytes()
    with ecu(question) as (client, settings):
        client.change_session(DiagnosticSessionControl.Session.programmingSession)
        if settings.get("security_level"):
            client.unlock_security_access(int(settings["security_level"], 16))
        if settings["erase_routine"]:
            client.start_routine(int(settings["erase_routine"], 16))
        place = MemoryLocation(int(settings["memory_address"], 16), len(data), address_format=32, memorysize_format=32)
        granted = client.request_download(place).service_data.max_length - 2  # the answer counts service and sequence number
        for number, start in enumerate(range(0, len(data), granted), 1):
            client.transfer_data(number & 0xFF, data[start : start + granted])
        client.request_transfer_exit()
        if settings["check_routine"]:
            client.start_routine(int(settings["check_routine"], 16), data=bytes.fromhex(question["image"]["sha256"]))
        client.ecu_reset(ECUReset.ResetType.hardReset)
    return {"result": "ok"}


def confirm(_question: Question) -> Answer:
    """There is nothing to confirm."""
    return {"result": "ok"}


def main() -> None:
    """One question, one answer."""
    question = json.load(sys.stdin)
    words = {"probe": probe, "stage": stage, "activate": activate, "confirm": confirm}
    if question["contract"] != 1 or question["word"] not in words:
        sys.exit(f"contract {question['contract']}, word {question['word']}: not known here")
    try:
        answer = words[question["word"]](question)
    except (NegativeResponseException, TimeoutException, OSError, subprocess.SubprocessError, ValueError) as error:
        answer = {"result": "failed", "reason": f"{type(error).__name__}: {error}"[:1000]}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
