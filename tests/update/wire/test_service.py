"""Discovery with real multicast DNS, on loopback only."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zeroconf import IPVersion, ServiceInfo, ServiceStateChange
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from update.errors import ConfigurationError, FieldrelayError
from update.wire.service import (
    MAX_PENDING,
    SERVICE_TYPE,
    Candidate,
    Candidates,
    announce,
    browse,
    resolve_interfaces,
    text_record,
)

LOOPBACK = ["127.0.0.1"]
WAIT_S = 20.0
ANNOUNCER = Path(__file__).with_name("announcer.py")


async def find(candidates: Candidates, *names: str) -> dict[str, Candidate]:
    """The named candidates, in whatever order they turn up; others are passed over."""
    found: dict[str, Candidate] = {}
    async for candidate in candidates:
        if candidate.name in names:
            found[candidate.name] = candidate
        if len(found) == len(names):
            return found
    raise AssertionError(f"found only {sorted(found)} of {sorted(names)}")


@asynccontextmanager
async def stranger(name: str, *, addresses: list[str], port: int, text: dict[str, str | bytes]) -> AsyncIterator[None]:
    """Anybody in the LAN, announcing what he likes."""
    info = ServiceInfo(
        SERVICE_TYPE,
        f"{name}.{SERVICE_TYPE}",
        port=port,
        addresses=[socket.inet_aton(each) for each in addresses],
        properties=text,
    )
    zeroconf = AsyncZeroconf(interfaces=LOOPBACK, ip_version=IPVersion.V4Only)
    try:
        await (await zeroconf.async_register_service(info))
        yield
        await (await zeroconf.async_unregister_service(info))
    finally:
        await zeroconf.async_close()


async def test_an_announced_gateway_is_found_with_its_hints() -> None:
    async with (
        announce("gw-hints", 8443, interfaces=["lo"], path="/r", fingerprint="0123456789abcdef0123") as instance,
        browse(interfaces=LOOPBACK, wait_s=WAIT_S) as candidates,
    ):
        assert instance == "gw-hints"
        found = (await find(candidates, "gw-hints"))["gw-hints"]
    assert found == Candidate("gw-hints", ("127.0.0.1",), 8443, gateway="gw-hints", path="/r", fingerprint="0123456789abcdef")
    assert found.host == "127.0.0.1"


async def test_a_gateway_that_comes_later_is_found_by_whoever_waits() -> None:
    async with browse(interfaces=LOOPBACK, wait_s=WAIT_S) as candidates:
        waiting = asyncio.create_task(find(candidates, "gw-later"))
        async with announce("gw-later", 8444, interfaces=LOOPBACK):
            assert (await waiting)["gw-later"].port == 8444


async def test_a_spoofed_gateway_is_one_more_candidate_not_the_only_one() -> None:
    spoof: dict[str, str | bytes] = {"txtvers": "1", "id": "gw-real", "path": "/evil"}
    async with (
        stranger("gw-spoof", addresses=LOOPBACK, port=1, text=spoof),
        announce("gw-real", 8445, interfaces=LOOPBACK),
        browse(interfaces=LOOPBACK, wait_s=WAIT_S) as candidates,
    ):
        found = await find(candidates, "gw-spoof", "gw-real")
    assert {each.port for each in found.values()} == {1, 8445}


async def test_a_taken_name_is_changed_and_both_are_found() -> None:
    async with announce("gw-twin", 8446, interfaces=LOOPBACK), announce("gw-twin", 8447, interfaces=LOOPBACK) as second:
        assert second != "gw-twin"
        async with browse(interfaces=LOOPBACK, wait_s=WAIT_S) as candidates:
            found = await find(candidates, "gw-twin", second)
    assert {each.port for each in found.values()} == {8446, 8447}
    assert {each.gateway for each in found.values()} == {"gw-twin"}


async def test_a_gateway_comes_again_only_after_it_left() -> None:
    async with browse(interfaces=LOOPBACK, wait_s=WAIT_S) as candidates:
        for _ in range(2):
            async with announce("gw-returns", 8448, interfaces=LOOPBACK):
                await find(candidates, "gw-returns")


async def test_addresses_outside_the_browsed_subnet_are_dropped() -> None:
    far = ["203.0.113.7", "127.0.0.1", "169.254.1.1"]
    async with (
        stranger("gw-far", addresses=far, port=443, text={}),
        browse(interfaces=LOOPBACK, wait_s=WAIT_S) as candidates,
    ):
        assert (await find(candidates, "gw-far"))["gw-far"].addresses == ("127.0.0.1",)


@pytest.mark.parametrize(("address", "port", "accepted"), [("203.0.113.7", 443, 0), ("127.0.0.1", 0, 0), ("127.0.0.1", 443, 1)])
async def test_a_candidate_without_a_usable_address_is_none(address: str, port: int, accepted: int) -> None:
    info = AsyncServiceInfo(SERVICE_TYPE, f"gw.{SERVICE_TYPE}", port=port, addresses=[socket.inet_aton(address)])
    async with browse(interfaces=LOOPBACK, wait_s=0) as candidates:
        assert (candidates._candidate(info) is not None) == bool(accepted)


async def test_mute_candidates_do_not_crowd_out_one_that_answers() -> None:
    async with announce("gw-loud", 8451, interfaces=LOOPBACK), browse(interfaces=LOOPBACK, wait_s=WAIT_S) as candidates:
        for index in range(3000):
            candidates.heard(candidates._zeroconf, SERVICE_TYPE, f"mute-{index}.{SERVICE_TYPE}", ServiceStateChange.Added)
        assert len(candidates._pending) == MAX_PENDING
        candidates._pending[f"gw-loud.{SERVICE_TYPE}"] = None
        assert (await find(candidates, "gw-loud"))["gw-loud"].port == 8451


async def test_hostile_text_becomes_short_printable_hints() -> None:
    text: dict[str, str | bytes] = {"id": "a\x1b[31m" + "x" * 200, "path": b"\xff\xfe", "fp": ""}
    async with (
        stranger("gw-rude", addresses=LOOPBACK, port=2, text=text),
        browse(interfaces=LOOPBACK, wait_s=WAIT_S) as candidates,
    ):
        found = (await find(candidates, "gw-rude"))["gw-rude"]
    assert found.gateway == ("a[31m" + "x" * 200)[:64]
    assert found.path.isprintable()


async def test_looking_ends_at_its_deadline() -> None:
    async with browse(interfaces=LOOPBACK, wait_s=0.2) as candidates:
        async for _ in candidates:
            pass
        assert [each async for each in candidates] == []


async def test_gateways_of_other_processes_are_found() -> None:
    names = ("gw-process-1", "gw-process-2")
    processes = [await _announcer(name, 9000 + index) for index, name in enumerate(names)]
    try:
        async with browse(interfaces=LOOPBACK, wait_s=WAIT_S) as candidates:
            found = await find(candidates, *names)
        assert [found[name].port for name in names] == [9000, 9001]
    finally:
        for process in processes:
            await process.communicate(b"")
    assert [process.returncode for process in processes] == [0, 0]


async def _announcer(name: str, port: int) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    root = str(Path(__file__).parents[3])
    return await asyncio.create_subprocess_exec(
        sys.executable, str(ANNOUNCER), name, str(port), stdin=pipe, stdout=pipe, cwd=root, env={"PYTHONPATH": root}
    )


def test_interfaces_are_known_by_name_and_by_address() -> None:
    (by_name,), (by_address,) = resolve_interfaces(["lo"]), resolve_interfaces(LOOPBACK)
    assert by_name == by_address
    assert str(by_name) == "127.0.0.1/8"


@pytest.mark.parametrize("interfaces", [[], ["no-such-if"], ["203.0.113.9"], [""], ["lo", "x" * 400]])
def test_an_unknown_interface_is_refused_with_those_that_exist(interfaces: list[str]) -> None:
    with pytest.raises(ConfigurationError):
        resolve_interfaces(interfaces)


async def test_nothing_is_announced_that_does_not_fit() -> None:
    for name, path in (("g" * 64, "/"), ("a b", "/"), ("gw", "/" + "p" * 251)):
        with pytest.raises(ConfigurationError):
            async with announce(name, 1, interfaces=LOOPBACK, path=path):
                pass


@given(st.text(max_size=300), st.text(max_size=300))
def test_text_that_is_accepted_fits_its_limits(path: str, fingerprint: str) -> None:
    try:
        pairs = text_record("gw", path=path, fingerprint=fingerprint)
    except FieldrelayError:
        assert len(path.encode()) > 250
        return
    assert next(iter(pairs)) == "txtvers"
    assert all(len(f"{key}={value}".encode()) <= 255 for key, value in pairs.items())
