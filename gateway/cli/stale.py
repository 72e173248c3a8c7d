"""`fieldrelay gateway accept-stale`: to take a medium past its expiry, once and for a reason."""

import asyncio

import click

from gateway.cli.places import Places
from gateway.cli.show import as_json, emit
from gateway.control.media_messages import StaleRequest


@click.command("accept-stale")
@click.argument("medium")
@click.option("--reason", required=True, help="Why; it goes into the log and into the report of the visit.")
@as_json
@click.pass_obj
def accept_stale(places: Places, medium: str, reason: str, *, as_json: bool) -> None:
    """Accept MEDIUM at its next visit although its timestamp or snapshot has expired; within media.stale_grace_s only."""
    reply = asyncio.run(places.client().accept_stale(medium, StaleRequest(reason=reason)))
    line = f"{reply.medium} is accepted at its next visit: pull it out and plug it in again"
    emit("fieldrelay.gateway.accept-stale/1", {"medium": reply.medium}, [line], as_json=as_json)


COMMANDS = (accept_stale,)
