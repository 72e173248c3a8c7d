import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.config import parse_config
from gateway.fleet.interlocks import SiteInterlocks
from gateway.sections.interlocks import InterlockSection
from update.errors import ConfigurationError

BEGIN = 'format_version = 1\n[[interlock]]\nname = "gate"\n'


def command(*arguments: str, timeout_s: int = 30) -> SiteInterlocks:
    return SiteInterlocks([InterlockSection(name="gate", command=(sys.executable, *arguments), timeout_s=timeout_s)])


@pytest.fixture
async def machine() -> AsyncIterator[TestServer]:
    """A controller that tells whether its machine stands still."""

    async def stopped(_: web.Request) -> web.Response:
        return web.Response(text=" stopped\n")

    async def away(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/stopped"})

    application = web.Application()
    application.add_routes([web.get("/stopped", stopped), web.get("/away", away)])
    server = TestServer(application, host="127.0.0.1")
    async with server:
        yield server


async def test_a_command_opens_by_status_0_alone() -> None:
    assert await command("-c", "pass").first_shut(["gate"]) == ""
    assert await command("-c", "raise SystemExit(1)").first_shut(["gate"]) == "gate"
    missing = SiteInterlocks([InterlockSection(name="gate", command=("/nowhere/at/all",))])
    assert await missing.first_shut(["gate"]) == "gate"


async def test_a_command_that_does_not_end_is_shut() -> None:
    assert await command("-c", "import time; time.sleep(600)", timeout_s=1).first_shut(["gate"]) == "gate"


async def test_an_input_is_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "value"
    gate = SiteInterlocks([InterlockSection(name="gate", input=file)])
    assert await gate.first_shut(["gate"]) == "gate"
    file.write_text("1\n")
    assert await gate.first_shut(["gate"]) == ""
    file.write_text("0\n")
    assert await gate.first_shut(["gate"]) == "gate"


async def test_an_url_opens_by_status_200_and_the_right_text(machine: TestServer) -> None:
    def at(path: str, wanted: str) -> SiteInterlocks:
        return SiteInterlocks([InterlockSection(name="gate", url=str(machine.make_url(path)), open=wanted)])

    assert await at("/stopped", "stopped").first_shut(["gate"]) == ""
    assert await at("/stopped", "running").first_shut(["gate"]) == "gate"
    assert await at("/away", "stopped").first_shut(["gate"]) == "gate"
    assert await at("/nothing", "stopped").first_shut(["gate"]) == "gate"


async def test_the_first_shut_one_is_named_and_an_unknown_one_is_shut(tmp_path: Path) -> None:
    (tmp_path / "open").write_text("1")
    sections = [InterlockSection(name=name, input=tmp_path / name) for name in ("open", "door", "press")]
    site = SiteInterlocks(sections)
    assert site.names == {"open", "door", "press"}
    assert await site.first_shut([]) == ""
    assert await site.first_shut(["open", "press", "door"]) == "press"
    assert await site.first_shut(["open", "gone"]) == "gone"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "gate: name exactly one of command, url and input"),
        ('command = ["/bin/true"]\ninput = "/dev/null"\n', "gate: name exactly one of command, url and input"),
        ('command = ["true"]\n', "gate: the command is named by its whole path, not 'true'"),
        ('input = "/dev/null"\n[[interlock]]\nname = "gate"\ninput = "/dev/null"\n', "each interlock has its own name"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        parse_config(BEGIN + text, Path("/etc/fieldrelay/gateway.toml"))
