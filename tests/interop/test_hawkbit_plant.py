"""Unmodified swupdate behind a real gateway process behind a real hawkBit: what hawkBit is told is what happened, once.

Every way that an update can take is seen through to its one end: a proved success, a failure with its reason, a cancellation,
a window that was closed, a gateway that is killed in the middle, a server that is away from before until after.
"""

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.north.hawkbit.gathering import pieces
from tests.interop.hawkbit_management import Management, Window, management
from tests.interop.hawkbit_peer import MARKS, HawkbitServer, hawkbit_server
from tests.interop.overheard import Heard, listening
from tests.interop.plant import WRITTEN, Deployed, Plant, hurried, plant, until
from tests.interop.stock_node import BLANK, FELL_BACK, INSTALLED, TRIAL, StockNode

pytestmark = MARKS

IMAGE = b"the root file system of release 1.2 " * 1000
LARGE = IMAGE * 40
BEGUN, PROVED = "Installing Update Chunk Artifacts.", "Update Installed."
SKIPPED = "Skipped Update."
SLOWLY_BYTES_PER_S = 60_000
WINDOW_OPENS_IN_S = 12
NO_MORE_SAID = "No suitable .swu image found"
"""Always the last of what swupdate tells of such a failure, and at times all: two of its threads take the installer's log from
one queue, and one of them passes on nothing (2022.12: `process_notification_thread`, `server_update_status_callback`)."""


async def prove(node: StockNode, deployed: Deployed) -> None:
    """Restart a node that has installed, with a bootloader that tries it, until hawkBit has heard of it."""
    assert node.ustate == INSTALLED
    node.restart(TRIAL)
    async with node.running():
        assert await deployed.end() == ["finished"]


def is_blank(node: StockNode) -> bool:
    return not node.slot.read_bytes().strip(BLANK)


def in_order(words: str, *texts: str) -> bool:
    places = [words.find(text) for text in texts]
    return -1 not in places and places == sorted(places)


async def nodes_succeed_when_they_have_proved_it(site: Plant, operator: Management, names: Sequence[str]) -> dict[str, Deployed]:
    async with AsyncExitStack() as stack:
        for name in names:
            await stack.enter_async_context(site.nodes[name].running())
        deployed = await site.deploy_to(operator, names, site.bundle(IMAGE))
        for name, each in deployed.items():
            await each.says(WRITTEN)
            assert site.nodes[name].slot.read_bytes().startswith(IMAGE)
            assert await each.ends() == [], "nothing is proved before the restart"
    await asyncio.gather(*[prove(site.nodes[name], each) for name, each in deployed.items()])
    for each in deployed.values():
        assert in_order(await each.words(), BEGUN, WRITTEN, PROVED)
        assert (await operator.target(each.target)).update_status == "in_sync"
    return deployed


@dataclass(frozen=True, slots=True)
class Kept:
    """What the gateway has of one action: reports of the node in order, and those of them that came before it ended."""

    action: int
    reports: list[list[str]]
    in_time: list[list[str]]


def kept(site: Plant, deployed: Deployed) -> Kept:
    query = (
        "SELECT actions.id, reports.details, actions.ended IS NULL OR reports.received <= actions.ended "
        "FROM reports JOIN actions ON actions.id = reports.action WHERE actions.source = ? ORDER BY reports.id"
    )
    with closing(sqlite3.connect(site.appliance.state.database)) as database:
        rows = database.execute(query, (str(deployed.action),)).fetchall()
    assert rows, "the node told nothing"
    said = [json.loads(details) for _, details, _ in rows]
    return Kept(rows[0][0], said, [each for each, (_, _, in_time) in zip(said, rows, strict=True) if in_time])


async def nothing_told_is_lost(site: Plant, heard: Heard, deployed: Deployed) -> list[str]:
    """What went to the gateway is in its database, and what is there of a time before the end is at hawkBit; those lines."""
    found, at_hawkbit = kept(site, deployed), iter([line.strip() for line in (await deployed.words()).split("\n")])
    told = heard.feedback(found.action)
    taken, whole = ({tuple(said.details) for said in told if said.status in statuses} for statuses in ({200}, {0, 200}))
    assert {said.status for said in told} <= {0, 200}
    assert taken, "nothing was overheard"
    assert taken <= set(map(tuple, found.reports)) <= whole
    lines = pieces(line for report in found.in_time for line in report)
    missing = [line for line in lines if line.strip() not in at_hawkbit]  # which is used up: so they are there in this order
    assert not missing, f"{missing[0]!r} is not in its place at hawkBit: {await deployed.words()}"
    return lines


async def what_cannot_be_installed_fails_with_the_nodes_reason(
    site: Plant, heard: Heard, operator: Management, name: str
) -> None:
    node, place = site.nodes[name], site.folder / "no" / "such" / "device"
    async with node.running():
        deployed = await site.deploy(operator, name, site.bundle(IMAGE, place=place))
        assert await deployed.end() == ["error"]
    assert is_blank(node)
    told = await nothing_told_is_lost(site, heard, deployed)
    assert NO_MORE_SAID in told[-1]
    assert str(place) in node.log, "it failed for another reason"
    node.restart(FELL_BACK)
    async with node.running():
        better = await site.deploy(operator, name, site.bundle(IMAGE, "1.3"))
        await better.says(WRITTEN)
        assert await deployed.ends() == ["error"]
    await prove(node, better)
    await nothing_told_is_lost(site, heard, better)


async def an_earlier_update_is_not_taken_for_the_present_one(site: Plant, operator: Management, name: str) -> None:
    node = site.nodes[name]
    node.restart(TRIAL)  # it was updated by hand
    deployed = await site.deploy(operator, name, site.bundle(IMAGE))
    await site.is_taken_over(name)
    async with node.running():
        await deployed.says(WRITTEN)
        assert await deployed.ends() == []
    await prove(node, deployed)


async def a_cancellation_stops_the_download(site: Plant, operator: Management, name: str) -> None:
    node = site.nodes[name]
    node.link.bytes_per_s = SLOWLY_BYTES_PER_S
    async with node.running():
        deployed = await site.deploy(operator, name, site.bundle(LARGE))
        await deployed.says(BEGUN)
        await deployed.cancel()
        assert await deployed.end() == ["canceled"]
    assert WRITTEN not in await deployed.words()
    assert is_blank(node)


async def nothing_is_offered_while_the_window_is_closed(site: Plant, operator: Management, name: str) -> None:
    node, bundle = site.nodes[name], site.bundle(IMAGE)
    opens = datetime.now(UTC) + timedelta(seconds=WINDOW_OPENS_IN_S)
    schedule = f"{opens.second} {opens.minute} {opens.hour} {opens.day} {opens.month} ? {opens.year}"
    async with node.running():
        deployed = await site.deploy(operator, name, bundle, window=Window(schedule, "01:00:00"))
        while datetime.now(UTC) < opens - timedelta(seconds=1):
            assert BEGUN not in await deployed.words()
            await asyncio.sleep(0.2)
        await deployed.says(WRITTEN)
    await prove(node, deployed)
    assert SKIPPED not in node.log + await deployed.words()


async def several_succeed(site: Plant, heard: Heard, operator: Management, names: Sequence[str]) -> None:
    deployed = await nodes_succeed_when_they_have_proved_it(site, operator, names)
    for each in deployed.values():
        await nothing_told_is_lost(site, heard, each)


async def test_side_by_side_every_node_comes_to_its_own_true_end(
    tmp_path: Path, hawkbit: HawkbitServer, operator: Management
) -> None:
    several, single = ["n1", "n2", "n3"], ["fails", "earlier", "cancelled", "waits"]
    async with (
        hurried(operator),
        plant(tmp_path, hawkbit.url, [*several, *single], slot_bytes=len(LARGE)) as site,
        site.running(),
        listening(site.appliance.state, site.appliance.south_port) as heard,
        asyncio.TaskGroup() as group,
    ):
        for name in (*several, "fails"):
            site.nodes[name].link.port = heard.port
        for begun in (
            several_succeed(site, heard, operator, several),
            what_cannot_be_installed_fails_with_the_nodes_reason(site, heard, operator, "fails"),
            an_earlier_update_is_not_taken_for_the_present_one(site, operator, "earlier"),
            a_cancellation_stops_the_download(site, operator, "cancelled"),
            nothing_is_offered_while_the_window_is_closed(site, operator, "waits"),
        ):
            group.create_task(begun)


@pytest.mark.soak
async def test_twenty_nodes_at_once(tmp_path: Path, hawkbit: HawkbitServer, operator: Management) -> None:
    names = [f"n{number:02}" for number in range(20)]
    async with hurried(operator), plant(tmp_path, hawkbit.url, names) as site, site.running():
        await nodes_succeed_when_they_have_proved_it(site, operator, names)


async def test_a_gateway_that_is_killed_in_the_middle_loses_and_repeats_nothing(
    tmp_path: Path, hawkbit: HawkbitServer, operator: Management
) -> None:
    async with hurried(operator), plant(tmp_path, hawkbit.url, ["n1"], slot_bytes=len(LARGE)) as site:
        node = site.nodes["n1"]
        node.link.bytes_per_s = SLOWLY_BYTES_PER_S
        async with node.running():
            async with site.running():
                deployed = await site.deploy(operator, "n1", site.bundle(LARGE))
                await deployed.says(BEGUN)
                assert is_blank(node)
            await node.link.cut()
            node.link.bytes_per_s = 0
            async with site.running():
                await deployed.says(WRITTEN)
        assert node.slot.read_bytes() == LARGE
        async with site.running():
            await prove(node, deployed)
            assert in_order(await deployed.words(), BEGUN, WRITTEN, PROVED)


async def test_a_server_that_is_away_from_before_until_after_hears_of_it_once_and_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "hawkbit"
    folder.mkdir()
    async with AsyncExitStack() as stack:
        with hawkbit_server(folder) as server:
            async with management(server) as operator:
                await operator.admit_devices()
                await operator.configure("pollingTime", "00:00:01")
                site = await stack.enter_async_context(plant(tmp_path, server.url, ["n1"]))
                await stack.enter_async_context(site.running())
                deployed = await site.deploy(operator, "n1", site.bundle(IMAGE))
                await site.is_taken_over("n1")
        node = site.nodes["n1"]
        async with node.running():
            await until("the node has installed", lambda: asyncio.sleep(0, node.waits_for_its_restart))
        node.restart(TRIAL)
        async with node.running():
            await until("the gateway has the node's last word", lambda: asyncio.sleep(0, node.ustate == "0"))
        with hawkbit_server(folder, {"server.port": server.url.rpartition(":")[2]}) as again:
            async with management(again) as operator:
                deployed = Deployed(operator, deployed.target, deployed.action)
                assert await deployed.end() == ["finished"]
                assert in_order(await deployed.words(), BEGUN, WRITTEN, PROVED)
                assert [entry.type for entry in await deployed.history()].count("finished") == 1
