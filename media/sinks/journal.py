"""The system's journal, by its native protocol (systemd, "Native Journal Protocol"): one datagram for each change.

Fields are `KEY=value`, or, where the value has a line break, the key, a line break, its length (64 bits, little-endian) and the
value: nobody forges a field by the label of a stick. Each state has a `MESSAGE_ID`: `journalctl MESSAGE_ID=…` finds it, whatever
the words become. Where there is no journal, the same message goes to the log of the program.
"""

import logging
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from media.signals import Show, Signal
from media.words import Language, advice, big

_LOG = logging.getLogger(__name__)

JOURNAL: Final = Path("/run/systemd/journal/socket")
_NOTICE, _WARNING = "5", "4"
MESSAGE_IDS: Final[Mapping[Show, str]] = MappingProxyType({
    Show.FOUND: "7c397196712f4c6a940cdaf4e045548d",
    Show.CHECKING: "f57cbbeea6a34f82a7517cfead00730e",
    Show.COPYING: "01c420553f3a43f590a9b6f4edddc67d",
    Show.SAFE: "366b5ad3c88e4f468621ebddc1b619ed",
    Show.UPDATING: "49341106d9e641c7bb28b0121e186778",
    Show.DONE: "9b71d027e93a45c782212d14c21f6bae",
    Show.NOTHING_NEW: "c5d8b8d508a5447fbd20e9536b3b09e6",
    Show.IGNORED: "a0a1ddca8b4e438aa65e22836e71c721",
    Show.FAILED: "720bac0b37b54e8e944d63facff7ca29",
})  # fmt: skip
"""One for each state, made up once and for all."""


class SystemJournal:
    """Tells every change of state, not every per cent."""

    def __init__(self, journal: Path = JOURNAL) -> None:
        self._journal = journal
        self._told: tuple[Show, str, str, int] | None = None

    def show(self, signal: Signal | None) -> None:
        """Errors: `OSError` of a journal that takes nothing."""
        if signal is None:
            self._told = None
            return
        news = (signal.show, signal.label, signal.code, signal.done if signal.show is Show.UPDATING else 0)
        if news == self._told:
            return
        if self._journal.is_socket():
            _send(self._journal, encode(fields_of(signal)))
        else:
            _LOG.log(_level(signal), "%s", _sentence(signal))
        self._told = news


def fields_of(signal: Signal) -> dict[str, str]:
    """What the journal keeps of a signal."""
    return {
        "MESSAGE": _sentence(signal),
        "MESSAGE_ID": MESSAGE_IDS[signal.show],
        "PRIORITY": _WARNING if signal.show is Show.FAILED else _NOTICE,
        "SYSLOG_IDENTIFIER": "fieldrelay-media",
        "FIELDRELAY_STATE": signal.show,
        "FIELDRELAY_MEDIUM": signal.label,
        "FIELDRELAY_REMOVABLE": "1" if signal.removable else "0",
        "FIELDRELAY_CODE": signal.code,
        "FIELDRELAY_DONE": str(signal.done),
        "FIELDRELAY_TOTAL": str(signal.total),
    }


def encode(fields: Mapping[str, str]) -> bytes:
    """A datagram of the native protocol."""
    parts = []
    for key, text in fields.items():
        value = text.encode(errors="replace")
        if b"\n" in value:
            parts.append(key.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n")
        else:
            parts.append(key.encode() + b"=" + value + b"\n")
    return b"".join(parts)


def _sentence(signal: Signal) -> str:
    words = f"{signal.label}: {big(signal, Language.ENGLISH)}. {advice(signal, Language.ENGLISH)} {signal.message}"
    return " ".join(words.split())


def _level(signal: Signal) -> int:
    return logging.WARNING if signal.show is Show.FAILED else logging.INFO


def _send(journal: Path, datagram: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as line:
        line.sendto(datagram, os.fspath(journal))
