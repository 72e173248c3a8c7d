"""How the running gateway logs: text for a person at a terminal, one JSON object per line for everything else."""

import json
import logging
from datetime import UTC, datetime
from typing import TextIO

from gateway.sections.log import LogFormat, LogSection
from update.errors import FieldrelayError

_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_QUIET = ("aiohttp", "aiosqlite", "alembic", "asyncio", "sqlalchemy", "zeroconf")


class JsonLines(logging.Formatter):
    """`{"time", "level", "logger", "message"}` and, where there is one, `"code"` and `"exception"`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; line breaks in messages are JSON's escapes, so nobody can forge a second entry."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
            if isinstance(record.exc_info[1], FieldrelayError):
                entry["code"] = record.exc_info[1].code
        return json.dumps(entry, ensure_ascii=False)


def set_up_logging(config: LogSection, stream: TextIO) -> None:
    """Log to `stream` as configured; the libraries' own talk only from warnings on, unless debugging."""
    as_text = config.format is LogFormat.TEXT or (config.format is LogFormat.AUTO and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter(_TEXT) if as_text else JsonLines())
    level = logging.getLevelNamesMapping()[config.level.upper()]
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING) if level > logging.DEBUG else level)
