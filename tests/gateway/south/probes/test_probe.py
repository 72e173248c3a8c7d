"""One question to one node: what it runs, and what comes of answers that are none."""

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import parse_config
from gateway.fleet.sightings import Sighting
from gateway.sections.probes import ProbeSection
from gateway.south.probes.probe import MAX_BYTES, ask, read_answer
from update.errors import (
    ConfigurationError,
    FieldrelayError,
    ProtocolError,
    SlowError,
    TooLargeError,
    UnreachableError,
)

SEEN = Sighting("1.2", "boot-1")
GOOD = {"version": "1.2", "boot_id": "boot-1"}
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


def command(folder: Path, *lines: str) -> tuple[str, ...]:
    file = folder / "probe"
    file.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return (str(file), "{node}")


def by_command(folder: Path, *lines: str, timeout_s: int = 60) -> ProbeSection:
    return ProbeSection(name="p", nodes=("*",), command=command(folder, *lines), timeout_s=timeout_s)


async def asked(session: aiohttp.ClientSession, answer: Answer, *, timeout_s: int = 60, **places: str) -> Sighting:
    application = web.Application()
    application.add_routes([web.get("/{path:.*}", answer)])
    async with TestServer(application) as server:
        url = str(server.make_url("/")) + "of/{node}"
        section = ProbeSection(name="p", nodes=("*",), url=url, timeout_s=timeout_s, **places)  # type: ignore[arg-type]  # names
        return await ask(section, "n1", session)


async def test_a_node_is_asked_by_http(session: aiohttp.ClientSession) -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.path == "/of/n1"
        return web.json_response({"system": {"os": {"version": 12}, "boot": "b"}}, headers={"X-Version": "1.2"})

    assert await asked(session, answer, version="json:system.os.version", boot_id="json:system.boot") == Sighting("12", "b")
    assert await asked(session, answer, version="header:x-version", boot_id="json:system.boot") == Sighting("1.2", "b")


async def test_a_node_is_asked_by_a_command(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    section = by_command(tmp_path, """printf '{"version": "1.2", "boot_id": "of %s"}' "$1" """)
    assert await ask(section, "n1", session) == Sighting("1.2", "of n1")


async def test_a_command_gets_no_shell_and_nothing_of_the_environment(
    tmp_path: Path, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_SECRET", "known")
    lines = ("""printf '{"version": "%s", "boot_id": "%s"}' "$2" "${GATEWAY_SECRET:-unknown}" """,)
    section = ProbeSection(name="p", nodes=("*",), command=(*command(tmp_path, *lines), "$(id); *"), timeout_s=60)
    assert await ask(section, "n1", session) == Sighting("$(id); *", "unknown")


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        (b"", ProtocolError),
        (b"no JSON", ProtocolError),
        (b"[" * 60_000, ProtocolError),
        (b"\xff\xfe", ProtocolError),
        (b"[]", ProtocolError),
        (b'{"version": "1.2"}', ProtocolError),
        (b'{"version": true, "boot_id": "b"}', ProtocolError),
        (b'{"version": null, "boot_id": "b"}', ProtocolError),
        (b'{"version": {"a": 1}, "boot_id": "b"}', ProtocolError),
        (b'{"version": "", "boot_id": "b"}', ProtocolError),
        (b'{"version": "a\\u001bb", "boot_id": "b"}', ProtocolError),
        (json.dumps({"version": "v" * 301, "boot_id": "b"}).encode(), ProtocolError),
        (json.dumps({"version": "v", "boot_id": "b" * 65}).encode(), ProtocolError),
        (b" " * (MAX_BYTES + 1), TooLargeError),
        (b" " * (10 << 20), TooLargeError),
    ],
    ids=range(15),
)
async def test_answers_that_are_none_are_refused_by_name(
    tmp_path: Path, session: aiohttp.ClientSession, body: bytes, refusal: type[FieldrelayError]
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body)

    with pytest.raises(refusal):
        await asked(session, answer)
    (tmp_path / "body").write_bytes(body)
    with pytest.raises(refusal):
        await ask(by_command(tmp_path, f"cat {tmp_path}/body"), "n1", session)


@given(
    st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_any_answer_is_read_or_refused(body: bytes) -> None:
    section = ProbeSection(name="p", nodes=("*",), url="http://n1/")
    with pytest.raises(ProtocolError):
        read_answer(section, body, {})
    assert read_answer(section, json.dumps(GOOD).encode(), {}) == SEEN


@pytest.mark.parametrize("status", [204, 302, 404, 500])
async def test_only_200_is_an_answer_and_redirects_lead_nowhere(session: aiohttp.ClientSession, status: int) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/elsewhere":
            return web.json_response(GOOD)
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    with pytest.raises(ProtocolError, match=str(status)):
        await asked(session, answer)


async def test_who_does_not_answer_in_time_is_slow(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(SlowError, match="more than 1 s"):
        await asked(session, answer, timeout_s=1)
    with pytest.raises(SlowError):
        await ask(by_command(tmp_path, f"echo $$ > {tmp_path}/pid", "sleep 600", timeout_s=1), "n1", session)
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_who_cannot_be_asked_is_unreachable(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    async with TestServer(web.Application()) as server:
        url = str(server.make_url("/"))
    with pytest.raises(UnreachableError):
        await ask(ProbeSection(name="p", nodes=("*",), url=url), "n1", session)
    with pytest.raises(UnreachableError, match="ended with 3"):
        await ask(by_command(tmp_path, "exit 3"), "n1", session)
    with pytest.raises(UnreachableError, match="cannot be run"):
        await ask(ProbeSection(name="p", nodes=("*",), command=(str(tmp_path / "none"),)), "n1", session)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (('nodes = ["*"]',), "name either url or command"),
        (('nodes = ["*"]', 'url = "http://a/"', 'command = ["/bin/true"]'), "name either url or command"),
        (('nodes = ["*"]', 'command = ["true"]'), "whole path"),
        (('nodes = ["*"]', 'command = ["/bin/true"]', 'version = "header:X"'), "has no headers"),
        (('nodes = ["*"]', 'url = "ftp://a/"'), "http://HOST"),
        (('nodes = ["*"]', 'url = "http://a/"', 'version = "version"'), "json:NAME"),
        (("nodes = []", 'url = "http://a/"'), "nodes"),
    ],
)
def test_mistakes_of_a_section_are_named(tmp_path: Path, lines: tuple[str, ...], words: str) -> None:
    text = "\n".join(['format_version = 1\n[[probe]]\nname = "p"', *lines, ""])
    with pytest.raises(ConfigurationError, match=words):
        parse_config(text, tmp_path / "gateway.toml")


def test_each_probe_has_its_own_name(tmp_path: Path) -> None:
    section = '[[probe]]\nname = "p"\nnodes = ["*"]\nurl = "http://{node}/"\n'
    assert parse_config(f"format_version = 1\n{section}", tmp_path / "gateway.toml").probe[0].every_s == 30
    with pytest.raises(ConfigurationError, match="given twice: p"):
        parse_config(f"format_version = 1\n{section}{section}", tmp_path / "gateway.toml")
