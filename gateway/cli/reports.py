"""`fieldrelay gateway reports|resend`: what receivers elsewhere were not told yet, and having it sent now."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from gateway.cli import output
from gateway.cli.places import Places
from gateway.cli.show import as_json, emit
from gateway.control import report_messages as messages
from gateway.words import duration

_HEAD = ("ID", "TO", "NODE", "ACTION", "WHAT", "STATE", "AGE", "TRIED", "PROBLEM")


@click.command()
@click.option("--to", "receiver", default="", metavar="RECEIVER", help="Only what this one does not have, as hawkbit:company.")
@as_json
@click.pass_obj
def reports(places: Places, receiver: str, *, as_json: bool) -> None:
    """Show what receivers elsewhere do not have: what waits, and what they refused for good."""
    found = asyncio.run(places.client().reports())
    _show("fieldrelay.gateway.reports/1", [each for each in found if receiver in {"", each.receiver}], as_json=as_json)


@click.command()
@click.argument("number", type=click.IntRange(1), nargs=-1)
@as_json
@click.pass_obj
def resend(places: Places, number: tuple[int, ...], *, as_json: bool) -> None:
    """Send the messages of each NUMBER now, also what was given up; without a number everything that waits."""
    request = messages.ResendRequest(messages=number or None)
    _show("fieldrelay.gateway.resend/1", asyncio.run(places.client().resend(request)), as_json=as_json)


def _show(schema: str, found: Sequence[messages.ReportState], *, as_json: bool) -> None:
    now = datetime.now(UTC)
    rows = [
        (
            str(each.id),
            each.receiver,
            each.node,
            each.action or "-",
            f"{each.matter}, the last" if each.final else each.matter,
            each.standing,
            duration(now - each.created),
            str(each.attempts),
            each.trouble,
        )
        for each in found
    ]
    values = {"reports": output.as_values(messages.REPORTS_REPLY, tuple(found))}
    emit(schema, values, [output.table(_HEAD, rows) if rows else "everything was told"], as_json=as_json)


COMMANDS = (reports, resend)
