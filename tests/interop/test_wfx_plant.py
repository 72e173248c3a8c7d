"""Unmodified swupdate behind a real gateway process behind a real wfx: both jobs through all states, as seen there."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

from gateway.database.engine import Database, sqlite_url
from gateway.database.queries import nodes
from tests.builders.bundle_shelf import BundleShelf, bundle_shelf
from tests.interop.plant import Plant, plant, until
from tests.interop.stock_node import BLANK, FELL_BACK, INSTALLED, TRIAL, StockNode
from tests.interop.wfx_peer import DIRECT, MARKS, PHASED, Job, WfxNorth, WfxServer

pytestmark = MARKS

IMAGE = b"the root file system of release 1.2 " * 1000
NOWHERE = "http://127.0.0.1:1"
"""The plant's hawkBit, which has no node here."""


@asynccontextmanager
async def assigned(folder: Path, wfx: WfxServer) -> AsyncIterator[tuple[Plant, StockNode, BundleShelf, str]]:
    """A plant whose node n1 belongs to `wfx`, where its bundles lie, and its client id there; nothing runs yet."""
    async with plant(folder, NOWHERE, ["n1"]) as site, bundle_shelf(site.bundle(IMAGE)) as shelf:
        client = f"p{uuid4().hex[:12]}-"
        config = folder / "gateway.toml"
        config.write_text(
            f'{config.read_text()}[[wfx]]\nname = "plant"\nurl = "{wfx.south}"\nrepository = "plant"\n'
            f'client = "{client}{{node}}"\nartifact_hosts = ["127.0.0.1"]\n'
        )
        database = await Database.open(sqlite_url(site.appliance.state.database))
        async with database.writing() as transaction:
            await nodes.set_assigner(transaction, "n1", "wfx:plant")
        await database.close()
        yield site, site.nodes["n1"], shelf, f"{client}n1"


async def comes_to(jobs: WfxNorth, job: Job, state: str) -> None:
    async def is_there() -> bool:
        return (await jobs.job(job.id)).status.state == state

    await until(f"the job is in {state}", is_there)


async def test_a_direct_job_succeeds_once_the_node_has_restarted(tmp_path: Path, wfx: WfxServer, jobs: WfxNorth) -> None:
    async with assigned(tmp_path, wfx) as (site, node, shelf, client), site.running():
        job = await jobs.create(client, DIRECT, shelf.definition())
        async with node.running():
            await comes_to(jobs, job, "ACTIVATE")
            assert node.slot.read_bytes().startswith(IMAGE)
        assert node.ustate == INSTALLED
        node.restart(TRIAL)
        async with node.running():
            await comes_to(jobs, job, "ACTIVATED")
    assert (await jobs.job(job.id)).states() == ["INSTALL", "INSTALLING", "ACTIVATE", "ACTIVATING", "ACTIVATED"]


async def test_a_phased_job_is_installed_when_the_operator_says_so_and_its_failure_is_told(
    tmp_path: Path, wfx: WfxServer, jobs: WfxNorth
) -> None:
    async with assigned(tmp_path, wfx) as (site, node, shelf, client), site.running():
        job = await jobs.create(client, PHASED, shelf.definition())
        await jobs.advance(job.id, "DOWNLOAD")
        async with node.running():
            await comes_to(jobs, job, "DOWNLOADED")
            assert not node.slot.read_bytes().strip(BLANK)
            await jobs.advance(job.id, "INSTALL")
            await comes_to(jobs, job, "ACTIVATE")
        node.restart(FELL_BACK)
        async with node.running():
            await comes_to(jobs, job, "TERMINATED")
    seen = await jobs.job(job.id)
    assert seen.states()[:-1] == [
        "CREATED", "DOWNLOAD", "DOWNLOADING", "DOWNLOADED", "INSTALL", "INSTALLING", "ACTIVATE",
    ]  # fmt: skip
    assert "outcome: failure" in seen.status.message
    assert len([entry for entry in seen.history if entry.status and entry.status.state == "TERMINATED"]) == 0
