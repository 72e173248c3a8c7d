"""What stands before the page."""

import asyncio

import aiohttp
import pytest

from gateway.web.guard import BURST, MAX_ADDRESSES, PER_S, Budgets, is_ours
from tests.gateway.web.served import Shown
from update.errors import BusyError

OURS = {"gw.plant.example"}


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("192.168.1.4:8444", True),
        ("[fe80::1]:8444", True),
        ("[::1]", True),
        ("localhost:80", True),
        ("gw", True),
        ("GW.local:8444", True),
        ("GW.Plant.Example", True),
        ("evil.example", False),
        ("gw.plant.example.evil.com:8444", False),
        ("192.168.1.4.evil.com", False),
        ("evil.com.", False),
        ("xlocal.example", False),
    ],
)
def test_only_names_of_this_gateway_are_answered(host: str, ours: bool) -> None:
    assert is_ours(host, OURS) is ours


async def test_a_foreign_name_that_points_here_learns_nothing() -> None:
    async with Shown().served() as session:
        for path in ("/", "/api/status", "/api/events", "/static/page.css"):
            async with session.get(path, headers={"Host": "evil.example"}) as response:
                assert (response.status, (await response.json())["code"]) == (403, "wire.forbidden")


@pytest.mark.parametrize("path", ["/", "/api/status", "/nowhere", "/static/page.js"])
async def test_every_answer_has_the_strict_headers(path: str) -> None:
    async with Shown().served() as session, session.get(path) as response:
        headers = response.headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert (headers["X-Frame-Options"], headers["X-Content-Type-Options"], headers["Cache-Control"]) == (
        "DENY",
        "nosniff",
        "no-store",
    )
    assert (headers["Referrer-Policy"], headers["Server"]) == ("no-referrer", "Fieldrelay")


class Clock:
    now = 5.0

    def __call__(self) -> float:
        return self.now


async def test_who_asks_too_often_is_refused_and_answered_again_later() -> None:
    clock = Clock()
    async with Shown().served(budgets=Budgets(clock)) as session:
        for _ in range(int(BURST)):
            async with session.get("/api/status") as response:
                assert response.status == 200
        async with session.get("/api/status") as response:
            assert (response.status, (await response.json())["code"]) == (503, "usage.busy")
        clock.now += 1
        statuses = []
        for _ in range(int(PER_S) + 1):
            async with session.get("/api/status") as response:
                statuses.append(response.status)
        assert statuses == [200] * int(PER_S) + [503]


def test_each_address_has_its_own_budget_and_few_are_remembered() -> None:
    budgets = Budgets(Clock())
    for _ in range(int(BURST)):
        budgets.spend("10.0.0.1")
    with pytest.raises(BusyError):
        budgets.spend("10.0.0.1")
    for number in range(MAX_ADDRESSES * 2):
        budgets.spend(f"10.1.{number // 256}.{number % 256}")
    assert len(budgets._left) == MAX_ADDRESSES


async def test_a_connection_too_many_is_closed_and_the_others_go_on() -> None:
    async with Shown().served(most=2) as session, session.get("/api/events") as stream, session.get("/api/events"):
        await stream.content.readuntil(b"\n\n")
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get("/api/status")
        stream.close()
        async with asyncio.timeout(60):
            while True:
                try:
                    async with session.get("/api/status") as response:
                        assert response.status == 200
                        break
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.1)
