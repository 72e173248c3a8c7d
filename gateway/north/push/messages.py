"""What SWUpdate's webserver says on its websocket, as far as a master understands it. Every value is a text.

`swuforward` knows an upload's end from `status` alone: `SUCCESS`, or `FAILURE`. It waits for one of them as long as the
websocket stands, whatever the answer to the upload was (SWUpdate 2022.12, `handlers/swuforward_handler.c`). The rest is shown to
people. A master reads whole messages into a small buffer, so texts are short.
"""

import json
from enum import StrEnum
from typing import Final

PROTOCOL: Final = "swupdate-status-protocol"
"""The websocket's subprotocol."""
LONGEST_TEXT: Final = 500


class Status(StrEnum):
    """Where an upload stands."""

    START = "START"
    RUN = "RUN"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"


class Level(StrEnum):
    """How serious a text is, as SWUpdate numbers it there: like syslog."""

    ERROR = "3"
    INFO = "6"


def status(value: Status) -> str:
    """Where the upload stands."""
    return json.dumps({"type": "status", "status": value})


def text(level: Level, words: str) -> str:
    """A line for people; what cannot be shown is left out."""
    shown = "".join(each for each in words if each.isprintable())
    return json.dumps({"type": "message", "level": level, "text": shown[:LONGEST_TEXT]})


def step(number: int, of: int, name: str, percent: int) -> str:
    """How far one node is: the `number`-th of `of`."""
    values = {"number": of, "step": number, "percent": max(0, min(percent, 100))}
    return json.dumps({"type": "step", "name": name[:LONGEST_TEXT], **{key: str(value) for key, value in values.items()}})
