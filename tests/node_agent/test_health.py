"""A version is well when every check passes in several rounds in a row, before the deadline."""

import sys
from collections.abc import Mapping

import pytest
from aiohttp import web

from node_agent.health import CommandCheck, GatewayCheck, Health, HttpCheck, Patience
from update.errors import HealthError, UnreachableError

TOLD = {"FIELDRELAY_VERSION": "1.2", "FIELDRELAY_SLOT": "b"}
PATIENT = Patience(deadline_s=30, interval_s=0, passes=2)


class Scripted:
    """Answers by a list; the last answer stays."""

    name = "scripted"

    def __init__(self, *answers: str | None) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def failure(self, environment: Mapping[str, str]) -> str | None:
        del environment
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def test_one_bad_round_starts_the_count_again() -> None:
    check = Scripted(None, "down", None, None)
    await Health([check], PATIENT).require(TOLD)
    assert check.asked == 4


async def test_no_check_at_all_is_well() -> None:
    await Health([], PATIENT).require(TOLD)


async def test_the_deadline_ends_it_with_the_last_reason() -> None:
    with pytest.raises(HealthError, match=r"scripted always down"):
        await Health([Scripted("always down")], Patience(deadline_s=0.05, interval_s=0.01, passes=1)).require(TOLD)


async def test_a_check_that_hangs_is_ended_by_the_deadline() -> None:
    hanging = CommandCheck((sys.executable, "-c", "import time; time.sleep(600)"), timeout_s=600)
    with pytest.raises(HealthError, match="not well within"):
        await Health([hanging], Patience(deadline_s=0.5, interval_s=0, passes=1)).require(TOLD)


async def test_a_command_is_told_version_and_slot() -> None:
    code = "import os, sys; sys.exit(os.environ['FIELDRELAY_VERSION'] + os.environ['FIELDRELAY_SLOT'] != '1.2b')"
    assert await CommandCheck((sys.executable, "-c", code), 30).failure(TOLD) is None


async def test_a_failing_command_gives_its_status_and_its_last_words() -> None:
    code = "import sys; print('x' * 100_000); print('disk is missing'); sys.exit(3)"
    reason = await CommandCheck((sys.executable, "-c", code), 30).failure(TOLD)
    assert reason is not None
    assert "status 3" in reason
    assert reason.endswith("disk is missing")
    assert len(reason) < 3000


async def test_a_command_that_does_not_exist_is_a_reason_and_no_crash() -> None:
    assert "cannot start" in str(await CommandCheck(("/nowhere/program",), 1).failure(TOLD))


async def test_an_http_check_compares_the_status() -> None:
    async def teapot(_request: web.Request) -> web.Response:
        return web.Response(status=418)

    app = web.Application()
    app.router.add_get("/", teapot)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        assert await HttpCheck(url, 418, 10).failure(TOLD) is None
        assert "answered 418, expected 200" in str(await HttpCheck(url, 200, 10).failure(TOLD))
    finally:
        await runner.cleanup()


async def test_a_service_that_is_down_is_a_reason() -> None:
    assert "no answer" in str(await HttpCheck("http://127.0.0.1:1/", 200, 10).failure(TOLD))


async def test_a_gateway_that_cannot_be_reached_is_a_reason() -> None:
    async def away() -> None:
        raise UnreachableError("no route")

    async def there() -> int:
        return 1

    assert await GatewayCheck(there, 5).failure(TOLD) is None
    assert "no route" in str(await GatewayCheck(away, 5).failure(TOLD))
