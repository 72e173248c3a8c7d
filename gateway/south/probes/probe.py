"""One question to one node: which version does it run, in which boot. By HTTP, or by a command of the plant's people.

- Only what is configured is asked or run: of the node's own name alone, which has no other characters than names have
  (`update.identity`), something goes into the address or the arguments.
- No shell, no redirects, no proxy, no standard input, at most `MAX_BYTES` of an answer, and a time limit for all of it.
- A command gets PATH and nothing else of the gateway's environment; when its time is up, its whole process group is killed.
"""

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import aiohttp

from gateway.fleet.sightings import Sighting
from gateway.sections.probes import ProbeSection
from update.errors import ProtocolError, SlowError, TooLargeError, UnreachableError

MAX_BYTES: Final = 64 << 10
MAX_VERSION_CHARACTERS: Final = 300
MAX_BOOT_ID_CHARACTERS: Final = 64
_NODE: Final = "{node}"
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


async def ask(section: ProbeSection, node: str, session: aiohttp.ClientSession) -> Sighting:
    """What the node runs. Errors: `UnreachableError`, `SlowError`, `TooLargeError`, `ProtocolError`."""
    try:
        async with asyncio.timeout(section.timeout_s):
            body, headers = await (_fetch(section, node, session) if section.url else _run(section, node))
    except TimeoutError as error:
        raise SlowError(f"probe {section.name} of node {node} took more than {section.timeout_s} s") from error
    return read_answer(section, body, headers)


def read_answer(section: ProbeSection, body: bytes, headers: Mapping[str, str]) -> Sighting:
    """Version and boot id at their places in an answer. `ProtocolError` where they are not."""
    version = _text(section, section.version, body, headers, MAX_VERSION_CHARACTERS)
    return Sighting(version, _text(section, section.boot_id, body, headers, MAX_BOOT_ID_CHARACTERS))


async def _fetch(section: ProbeSection, node: str, session: aiohttp.ClientSession) -> tuple[bytes, Mapping[str, str]]:
    url = (section.url or "").replace(_NODE, node)
    try:
        async with session.get(url, allow_redirects=False) as response:
            if response.status != 200:
                raise ProtocolError(f"{url} answered {response.status}, and not 200")
            body = await response.content.read(MAX_BYTES + 1)
            while len(body) <= MAX_BYTES and (more := await response.content.read(MAX_BYTES + 1 - len(body))):
                body += more
            return _limited(body, url), response.headers
    except (aiohttp.ClientError, OSError) as error:
        raise UnreachableError(f"{url} cannot be asked: {error}") from error


async def _run(section: ProbeSection, node: str) -> tuple[bytes, Mapping[str, str]]:
    words = [word.replace(_NODE, node) for word in section.command]
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            *words, stdin=nothing, stdout=pipe, stderr=nothing, env={"PATH": _PATH}, cwd="/", start_new_session=True
        )
    except OSError as error:
        raise UnreachableError(f"{words[0]} cannot be run: {error.strerror or error}") from error
    try:
        body = await _read(process)
        status = await process.wait() if len(body) <= MAX_BYTES else 0
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await _drain(process)
            await process.wait()
    if status != 0:
        raise UnreachableError(f"{words[0]} ended with {status} for node {node}")
    return _limited(body, words[0]), {}


async def _read(process: asyncio.subprocess.Process) -> bytes:
    body, stream = b"", process.stdout
    while stream is not None and len(body) <= MAX_BYTES and (more := await stream.read(MAX_BYTES + 1 - len(body))):
        body += more
    return body


async def _drain(process: asyncio.subprocess.Process) -> None:
    """What was not read keeps the end of a process from being noticed."""
    while process.stdout is not None and await process.stdout.read(MAX_BYTES):
        pass


def _limited(body: bytes, whose: str) -> bytes:
    if len(body) > MAX_BYTES:
        raise TooLargeError(f"the answer of {whose} is longer than {MAX_BYTES} bytes")
    return body


def _text(section: ProbeSection, place: str, body: bytes, headers: Mapping[str, str], limit: int) -> str:
    kind, _, name = place.partition(":")
    found = headers.get(name) if kind == "header" else _within(section, body, name.split("."))
    if not isinstance(found, str | int) or isinstance(found, bool):
        raise ProtocolError(f"the answer to probe {section.name} has no text at {place}")
    text = str(found).strip()
    if not text or len(text) > limit or not text.isprintable():
        raise ProtocolError(f"the answer to probe {section.name} has no text of 1 to {limit} printable characters at {place}")
    return text


def _within(section: ProbeSection, body: bytes, names: list[str]) -> object:
    try:
        found: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the answer to probe {section.name} is no JSON") from error
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found
