"""Interlocks of the site: read each time immediately before a device is told what has it restart, the way back included.

An interlock is open only if it says so now: one that cannot be read, answers late, or is not configured any more, is shut.
Nothing is kept of a reading.
"""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from gateway.sections.interlocks import InterlockSection
from node_agent.programs import run_program

_LOG = logging.getLogger(__name__)
_MAX_ANSWER_BYTES = 4096
_OK = 200


class SiteInterlocks:
    """The interlocks of the configuration."""

    def __init__(self, sections: Sequence[InterlockSection]) -> None:
        self._sections = {section.name: section for section in sections}

    @property
    def names(self) -> frozenset[str]:
        """What plans may name."""
        return frozenset(self._sections)

    async def first_shut(self, names: Sequence[str]) -> str:
        """The first of these that is shut or cannot be read; empty: all are open. All are read, at the same time."""
        why = await asyncio.gather(*map(self._why_shut, names))
        for name, reason in zip(names, why, strict=True):
            if reason:
                _LOG.info("interlock %s is shut: %s", name, reason)
                return name
        return ""

    async def _why_shut(self, name: str) -> str:
        section = self._sections.get(name)
        if section is None:
            return "it is not configured"
        try:
            async with asyncio.timeout(section.timeout_s):
                return await _read(section)
        except TimeoutError:
            return f"no answer within {section.timeout_s} s"


async def _read(section: InterlockSection) -> str:
    if section.input is not None:
        return await asyncio.to_thread(_read_input, section.input, section.open)
    if section.url is not None:
        return await _ask(section.url, section.open)
    ended = await run_program(section.command, timeout_s=section.timeout_s, environment={})
    return "" if ended.succeeded else f"the command {ended.describe()}"


def _read_input(file: Path, wanted: str) -> str:
    try:
        with file.open("rb") as opened:
            return _compared(opened.read(_MAX_ANSWER_BYTES), wanted)
    except OSError as error:
        return f"cannot read {file}: {error.strerror or error}"


async def _ask(url: str, wanted: str) -> str:
    try:
        async with aiohttp.ClientSession() as session, session.get(url, allow_redirects=False) as response:
            if response.status != _OK:
                return f"{url} answered with status {response.status}"
            return _compared(await response.content.read(_MAX_ANSWER_BYTES), wanted)
    except aiohttp.ClientError as error:
        return f"cannot ask {url}: {error}"


def _compared(answer: bytes, wanted: str) -> str:
    said = answer.decode("utf-8", "replace").strip()
    return "" if said == wanted else f"it says {said[:40]!r}, open is {wanted!r}"
