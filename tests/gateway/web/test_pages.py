"""What browsers and programs are answered."""

import asyncio
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.web.pages import MAX_STREAMS_OF_ONE, Pages
from gateway.web.snapshot import Condition
from media.signals import Show
from tests.gateway.web.served import NODE, STICK, Shown

NASTY = "<script>alert(1)</script>\"><img src=x onerror=alert(2)> '{{7*7}}&"


class Tags(HTMLParser):
    """Every tag and attribute of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.names: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.names |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]

    def handle_data(self, data: str) -> None:
        self.text += data


async def text(session: aiohttp.ClientSession, path: str = "/", **headers: str) -> str:
    async with session.get(path, headers=headers) as response:
        assert response.status == 200
        return await response.text()


async def event(stream: aiohttp.ClientResponse) -> dict[str, object]:
    async with asyncio.timeout(60):
        lines = (await stream.content.readuntil(b"\n\n")).decode().splitlines()
    fields = dict(line.partition(": ")[::2] for line in lines)
    assert fields["event"] == "state"
    found: dict[str, object] = json.loads(fields["data"])
    return found | {"number": int(fields["id"])}


async def test_the_page_says_it_in_the_language_of_the_browser() -> None:
    async with Shown().served() as session:
        english = await text(session, **{"Accept-Language": "en-GB"})
        german = await text(session, **{"Accept-Language": "de-DE,de;q=0.9,en;q=0.5"})
    assert '<html lang="en">' in english
    assert all(words in english for words in ("Copying 42 %", "Do not remove the stick.", "Runs", "Wanted", "writing 42 %"))
    assert '<html lang="de">' in german
    assert all(words in german for words in ("Kopiert 42 %", "Stick nicht entfernen.", "Läuft", "Gewünscht"))


async def test_everything_it_loads_comes_from_the_gateway_and_is_there() -> None:
    async with Shown().served() as session:
        page = Tags(await text(session))
        assert {link.partition("?")[0] for link in page.links} == {"/static/icon.svg", "/static/page.css", "/static/page.js"}
        for link in page.links:
            assert await text(session, link)
    for file in (files("gateway.web") / "static").iterdir():
        assert not re.search(
            r"//(?!www\.w3\.org/2000/svg)[a-z]|url\(|@import", re.sub(r"^\s*//.*", "", file.read_text(), flags=re.MULTILINE)
        )


async def test_without_javascript_the_page_loads_itself_anew() -> None:
    async with Shown().served() as session:
        assert '<noscript><meta http-equiv="refresh"' in await text(session)
        assert "<!doctype" not in await text(session, "/live")


@pytest.mark.parametrize("path", ["/", "/live"])
async def test_what_comes_from_outside_is_text_and_nothing_else(path: str) -> None:
    shown = Shown()
    async with shown.served() as session:
        plain = Tags(await text(session, path))
        failed = {"show": Show.FAILED, "removable": True}
        node = replace(NODE, id=NASTY, runs=NASTY, slot=NASTY, wanted=NASTY, standing=NASTY, code=NASTY, message=NASTY, late=True)
        sticks = (replace(STICK, label=NASTY, code=NASTY, message=NASTY, **failed), replace(STICK, label=NASTY))  # type: ignore[arg-type]  # fields by name
        shown.change(gateway=NASTY, sticks=sticks, nodes=(node, replace(node, condition=Condition.FAILED)))
        page = Tags(await text(session, path))
    assert set(page.tags) == set(plain.tags)
    assert page.names <= plain.names | {"class"}
    assert NASTY in page.text
    assert "49" not in page.text, "a template is not filled twice"


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(max_size=30))
async def test_any_name_survives(name: str) -> None:
    shown = Shown()
    shown.change(nodes=(replace(NODE, id=name),), sticks=(replace(STICK, label=name),))
    async with shown.served() as session:
        page = Tags(await text(session))
        state = json.loads(await text(session, "/api/status"))
    assert page.tags.count("h3") == 1
    assert state["nodes"][0]["id"] == name


async def test_the_status_is_json_with_the_number_of_its_form() -> None:
    async with Shown().served() as session:
        state = json.loads(await text(session, "/api/status"))
    assert (state["schema"], state["gateway"]) == (1, "gw")
    assert state["sticks"][0]["show"] == "copying"
    assert {"id", "condition", "runs", "wanted", "late"} <= set(state["nodes"][0])
    assert "attributes" not in state["nodes"][0]


async def test_every_change_is_an_event_and_nothing_else_is() -> None:
    shown = Shown()
    async with shown.served() as session, session.get("/api/events") as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        first = await event(stream)
        async with asyncio.timeout(60):
            while shown.looks < 4:  # noqa: ASYNC110 - by the gateway
                await asyncio.sleep(0.05)
        shown.change(sticks=(replace(STICK, show=Show.SAFE, removable=True),), nodes=(NODE, replace(NODE, id="n2")))
        second = await event(stream)
    assert [each["show"] for each in (*first["sticks"], *second["sticks"])] == ["copying", "safe"]  # type: ignore[misc]  # of parsed JSON
    assert (first["number"], second["number"]) == (1, 2), "it looked several times, and said nothing in between"
    assert (first["nodes"], second["nodes"]) == ({"updating": 1}, {"updating": 2})


async def test_too_many_who_watch_are_told_so_and_those_who_went_make_room() -> None:
    async with Shown().served() as session:
        streams = [await session.get("/api/events") for _ in range(MAX_STREAMS_OF_ONE)]
        async with session.get("/api/events") as response:
            assert response.status == 503
            assert response.headers["Retry-After"]
        async with session.head("/api/events") as response:
            assert response.status == 503
        for stream in streams:
            stream.close()
        async with asyncio.timeout(60):
            while True:
                async with session.get("/live") as response:
                    assert response.status == 200
                response = await session.get("/api/events")
                response.close()
                if response.status == 200:
                    break
                await asyncio.sleep(0.2)


async def test_streams_end_with_the_gateway() -> None:
    async with aiohttp.ClientSession() as watcher:
        async with Shown().served() as session:
            stream = await watcher.get(f"{session._base_url}/api/events")
            await event(stream)
        async with asyncio.timeout(60):
            assert await stream.read() == b"", "it ended, and was not cut off"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/", "/api/status", "/api/events", "/static/page.css"])
async def test_nothing_can_be_done(method: str, path: str) -> None:
    async with Shown().served() as session, session.request(method, path, data=b"x") as response:
        assert response.status == 405
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("path", ["/", "/live", "/api/status", "/api/events", "/static/page.js"])
async def test_head_is_answered_without_a_body(path: str) -> None:
    async with Shown().served() as session, session.head(path) as response:
        assert (response.status, await response.read()) == (200, b"")


@pytest.mark.parametrize(
    "path", ["/static/../pages.py", "/static/%2e%2e/pages.py", "/static/nothing", "/templates/page.html", "/etc/passwd"]
)
async def test_nothing_else_is_there(path: str) -> None:
    async with Shown().served() as session, session.get(path) as response:
        assert response.status == 404


def test_the_guide_names_every_resource() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "how-to" / "see-the-state-on-the-spot.md").read_text()
    paths = {route.path for route in Pages.__new__(Pages).routes()}
    assert {path for path in paths if f"| `{path}` |" not in guide} == {"/static/{name}"}
