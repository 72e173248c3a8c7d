import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest

from gateway.cli.logs import set_up_logging
from gateway.sections.log import LogFormat, LogLevel, LogSection
from update.errors import HardwareError


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    quiet = {
        name: logging.getLogger(name).level for name in ("aiohttp", "sqlalchemy", "alembic", "aiosqlite", "asyncio", "zeroconf")
    }
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in quiet.items():
        logging.getLogger(name).setLevel(before)


class Terminal(io.StringIO):
    """A stream that says to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_what_is_no_terminal_gets_one_json_object_per_line() -> None:
    stream = io.StringIO()
    set_up_logging(LogSection(), stream)
    logging.getLogger("gateway.x").warning("two\nlines of %s", "text")
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["message"]) == ("warning", "gateway.x", "two\nlines of text")
    assert entry["time"].endswith("+00:00")


def test_an_exception_keeps_its_code_and_its_story() -> None:
    stream = io.StringIO()
    set_up_logging(LogSection(), stream)
    error = HardwareError("not for this board")
    logging.getLogger("gateway").error("refused", exc_info=error)
    entry = json.loads(stream.getvalue())
    assert entry["code"] == "trust.hardware"
    assert "not for this board" in entry["exception"]


@pytest.mark.parametrize(
    ("stream", "form", "as_json"),
    [
        (Terminal(), LogFormat.AUTO, False),
        (io.StringIO(), LogFormat.AUTO, True),
        (Terminal(), LogFormat.JSON, True),
        (io.StringIO(), LogFormat.TEXT, False),
    ],
)
def test_the_form_follows_the_configuration(stream: io.StringIO, form: LogFormat, *, as_json: bool) -> None:
    set_up_logging(LogSection(format=form), stream)
    logging.getLogger("gateway").info("hello")
    assert stream.getvalue().startswith("{") is as_json


def test_less_serious_messages_and_the_talk_of_libraries_are_left_out() -> None:
    stream = io.StringIO()
    set_up_logging(LogSection(level=LogLevel.INFO), stream)
    logging.getLogger("gateway").debug("debugging")
    logging.getLogger("sqlalchemy.engine").info("SELECT 1")
    assert not stream.getvalue()
    set_up_logging(LogSection(level=LogLevel.DEBUG), stream)
    logging.getLogger("sqlalchemy.engine").info("SELECT 1")
    assert "SELECT 1" in stream.getvalue()
    assert sys.stderr is not stream
