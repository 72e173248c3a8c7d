"""`fieldrelay gateway release …`: a signed plan for several devices, carried out as one: all of them, or none."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from gateway.cli import output
from gateway.cli.places import Places, reason_option
from gateway.cli.show import as_json, emit
from gateway.control import release_messages as messages
from gateway.control.release_messages import CommandRequest, ReleaseCommand
from gateway.fleet.release_states import ReleaseState

_SCHEMA = "fieldrelay.gateway.release/1"
_NUMBER = click.argument("number", type=click.IntRange(1))


@click.group()
def release() -> None:
    """Carry out release plans: several devices as one."""


@release.command()
@click.argument("plan")
@click.option("--repository", default="", help="Where a plan of that name is in several.")
@reason_option
@as_json
@click.pass_obj
def start(places: Places, plan: str, repository: str, reason: str, *, as_json: bool) -> None:
    """Begin PLAN (its path, NAME-VERSION or version); refused in advance where it could not be carried out."""
    request = messages.StartRequest(release=plan, repository=repository, reason=reason)
    _show(asyncio.run(places.client().start_release(request)), as_json=as_json)


@release.command()
@click.argument("number", type=click.IntRange(1), required=False)
@as_json
@click.pass_obj
def status(places: Places, number: int | None, *, as_json: bool) -> None:
    """Show release NUMBER with its members, or the newest ones in a line each."""
    if number is not None:
        _show(asyncio.run(places.client().release(number)), as_json=as_json)
        return
    found = asyncio.run(places.client().releases())
    values = {"releases": output.as_values(messages.RELEASES_REPLY, found)}
    emit("fieldrelay.gateway.releases/1", values, [output.show_releases(found, datetime.now(UTC))], as_json=as_json)


@release.command()
@_NUMBER
@reason_option
@as_json
@click.pass_obj
def pause(places: Places, number: int, reason: str, *, as_json: bool) -> None:
    """Tell nobody anything new until it is resumed; what is under way ends, trials are held."""
    _command(places, number, ReleaseCommand.PAUSE, reason, as_json=as_json)


@release.command()
@_NUMBER
@reason_option
@as_json
@click.pass_obj
def resume(places: Places, number: int, reason: str, *, as_json: bool) -> None:
    """Go on with a release that was paused; the pause counts for no deadline."""
    _command(places, number, ReleaseCommand.RESUME, reason, as_json=as_json)


@release.command()
@_NUMBER
@reason_option
@as_json
@click.pass_obj
def abort(places: Places, number: int, reason: str, *, as_json: bool) -> None:
    """Take everybody back; refused once it was decided, because a decision never changes."""
    _command(places, number, ReleaseCommand.ABORT, reason, as_json=as_json)


def _command(places: Places, number: int, command: ReleaseCommand, reason: str, *, as_json: bool) -> None:
    request = CommandRequest(reason=reason)
    _show(asyncio.run(places.client().command_release(number, command, request)), as_json=as_json)


def _show(state: ReleaseState, *, as_json: bool) -> None:
    emit(_SCHEMA, {"release": output.as_values(messages.RELEASE_REPLY, state)}, _lines(state), as_json=as_json)


def _lines(state: ReleaseState) -> Sequence[str]:
    """The release, a line for each member, what happened, and what to do."""
    why = f": {state.why}" if state.why else ""
    rows = [
        (each.node, str(each.step), each.version, each.course, each.place, str(each.action or "-"), each.note)
        for each in state.members
    ]
    return [
        f"release {state.id}, plan {state.plan} {state.version}: {state.standing}{why}",
        "",
        output.table(("NODE", "STEP", "VERSION", "TOLD", "IS", "ACTION", "NOTE"), rows),
        *(["", *(f"{each.at:%Y-%m-%d %H:%M:%S} {each.words}" for each in state.remarks)] if state.remarks else []),
        *(["", *(f"FORBIDDEN BY THE PLAN: {each}" for each in state.broken)] if state.broken else []),
        *(["", *state.advice] if state.advice else []),
    ]


COMMANDS = (release,)
