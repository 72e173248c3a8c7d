"""What receivers elsewhere were not told is shown to operators, and sent again when they say so."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from click.testing import CliRunner

from gateway.cli.gateway import gateway
from gateway.control.client import ControlClient
from gateway.control.report_messages import ReportStanding, ResendRequest
from gateway.control.reports import ReportControl
from gateway.control.server import allowed_peers, control_application, listen
from gateway.database.engine import Database
from gateway.database.queries import outgoing
from gateway.database.records import Matter
from update.durable import Disk
from update.errors import NotFoundError

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


@pytest.fixture
async def socket(database: Database) -> AsyncIterator[Path]:
    """Of a gateway with a message that was told, one that was given up, one that failed and one that is new."""
    async with database.writing() as transaction:
        for report in ("told", "given up", "failed", "new"):
            await outgoing.add(
                transaction,
                "hawkbit:company",
                "n1",
                source="17",
                matter=Matter.FEEDBACK,
                final=report == "new",
                report=report,
                body={},
                now=NOW,
            )
        told, given_up, failed, _ = await outgoing.waiting(transaction, "hawkbit:company")
        await outgoing.mark_delivered(transaction, told.id, now=NOW, trouble="it had arrived before")
        await outgoing.mark_delivered(transaction, given_up.id, now=NOW, trouble=f"{outgoing.GIVEN_UP}a quota is used up")
        await outgoing.mark_failed(transaction, failed.id, trouble="it is away", not_before=LATER)
    with tempfile.TemporaryDirectory() as folder:
        allowed = allowed_peers((), ())
        runner = web.AppRunner(control_application([ReportControl(database)], allowed))
        await runner.setup()
        await listen(runner, Path(folder) / "s", allowed, Disk())
        yield Path(folder) / "s"
        await runner.cleanup()


async def waiting(database: Database) -> list[tuple[str, datetime | None]]:
    async with database.reading() as transaction:
        return [(each.report, each.not_before) for each in await outgoing.waiting(transaction, "hawkbit:company")]


async def test_what_waits_and_what_was_given_up_is_shown_with_its_reason(socket: Path) -> None:
    given_up, failed, new = await ControlClient(socket).reports()
    assert (given_up.standing, given_up.trouble) == (ReportStanding.GIVEN_UP, "a quota is used up")
    assert (failed.standing, failed.trouble, failed.not_before) == (ReportStanding.WAITING, "it is away", LATER)
    assert (new.receiver, new.node, new.action, new.final, new.attempts) == ("hawkbit:company", "n1", "17", True, 0)


async def test_without_a_number_everything_that_waits_is_sent_now_and_nothing_else(socket: Path, database: Database) -> None:
    await ControlClient(socket).resend(ResendRequest(messages=None))
    assert await waiting(database) == [("failed", None), ("new", None)]


async def test_what_was_given_up_is_sent_again_by_its_number(socket: Path, database: Database) -> None:
    client = ControlClient(socket)
    given_up = (await client.reports())[0]
    (done,) = await client.resend(ResendRequest(messages=(given_up.id,)))
    assert done.id == given_up.id
    assert await waiting(database) == [("given up", None), ("failed", LATER), ("new", None)]


async def test_what_was_told_is_not_told_again(socket: Path, database: Database) -> None:
    client = ControlClient(socket)
    found = await client.reports()
    with pytest.raises(NotFoundError, match=f"no message {found[0].id - 1} waits"):
        await client.resend(ResendRequest(messages=(found[0].id - 1, found[1].id)))
    assert await waiting(database) == [("failed", LATER), ("new", None)]


async def command(socket: Path, *arguments: str) -> str:
    ran = await asyncio.to_thread(CliRunner().invoke, gateway, ["--socket", str(socket), *arguments])
    assert ran.exit_code == 0, ran.output
    return ran.output


async def test_the_command_line_shows_and_resends(socket: Path, database: Database) -> None:
    shown = await command(socket, "reports")
    assert all(word in shown for word in ("hawkbit:company", "given-up", "a quota is used up", "feedback, the last"))
    assert await command(socket, "reports", "--to", "wfx:plant") == "everything was told\n"
    values = json.loads(await command(socket, "resend", "--json"))
    assert (values["schema"], [each["standing"] for each in values["reports"]]) == (
        "fieldrelay.gateway.resend/1",
        ["waiting", "waiting"],
    )
    assert await waiting(database) == [("failed", None), ("new", None)]
