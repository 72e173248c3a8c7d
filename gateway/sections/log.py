"""The configuration of the gateway's log."""

from enum import StrEnum

from pydantic.dataclasses import dataclass

from update.provided import NO_OTHER_KEYS


class LogFormat(StrEnum):
    """`auto`: text on a terminal, JSON lines elsewhere."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least serious message that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class LogSection:
    """What is logged, and how it is written."""

    level: LogLevel = LogLevel.INFO
    format: LogFormat = LogFormat.AUTO
