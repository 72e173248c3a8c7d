"""`fieldrelay gateway node|account|cancel|confirm`: what people decide about single nodes of the running gateway."""

import asyncio

import click

from gateway.cli import output
from gateway.cli.places import Places, reason_option
from gateway.cli.show import as_json, emit
from gateway.control import node_messages as messages
from gateway.database.records import ClientKind
from update.trust.verified import Provenance

_KINDS = click.Choice([kind.value for kind in ClientKind])


@click.command()
@click.argument("name")
@click.option("--assigner", metavar="NAME", help="Who assigns for it: site, hawkbit:NAME or wfx:NAME as configured.")
@click.option("--client", type=_KINDS, help="What speaks for it, whatever it calls itself.")
@click.option("--accepts", type=click.Choice([each.value for each in Provenance]), help="The weakest proof it is offered.")
@reason_option
@as_json
@click.pass_obj
def node(
    places: Places, /, *, name: str, client: str | None, accepts: str | None, as_json: bool, reason: str, assigner: str | None
) -> None:
    """Decide about NODE; without an option, show what was decided."""
    request = messages.SettingsRequest(
        assigner=assigner,
        client=None if client is None else ClientKind(client),
        accepts=None if accepts is None else Provenance(accepts),
        reason=reason,
    )
    made = asyncio.run(places.client().set_node(name, request))
    lines = [output.table(("NODE", "ASSIGNER", "CLIENT", "ACCEPTS"), [(made.node, made.assigner, made.client, made.accepts)])]
    emit("fieldrelay.gateway.node/1", {"node": output.as_values(messages.SETTINGS_REPLY, made)}, lines, as_json=as_json)


@click.command()
@click.argument("name")
@click.option("--client", type=_KINDS, help="What speaks for it; needed for a new token.")
@click.option("--take-away", is_flag=True, help="Have its token open nothing any more.")
@as_json
@click.pass_obj
def account(places: Places, name: str, client: str | None, *, take_away: bool, as_json: bool) -> None:
    """Give NODE a token of its own (shown this once), for a stock client that cannot enrol."""
    if take_away == (client is not None):
        raise click.UsageError("say --client for a new token, or --take-away")
    asked = places.client()
    if client is None:
        made = asyncio.run(asked.take_token(name))
    else:
        made = asyncio.run(asked.give_token(name, messages.AccountRequest(client=ClientKind(client))))
    values = {"account": output.as_values(messages.ACCOUNT_REPLY, made)}
    emit("fieldrelay.gateway.account/1", values, [made.token or f"{name} has no token any more"], as_json=as_json)


@click.command()
@click.argument("name")
@reason_option
@as_json
@click.pass_obj
def cancel(places: Places, name: str, reason: str, *, as_json: bool) -> None:
    """Let go of what was ordered here for NODE; what it has begun ends with its own word."""
    made = asyncio.run(places.client().cancel(name, messages.CancelRequest(reason=reason)))
    told = ", ".join(map(str, made.actions)) or "nothing was ordered"
    values = {"cancelled": output.as_values(messages.CANCEL_REPLY, made)}
    emit("fieldrelay.gateway.cancel/1", values, [f"{name}: {told}"], as_json=as_json)


@click.command()
@click.argument("name")
@click.option("--deny", is_flag=True, help="Do not agree; it goes on waiting.")
@click.option("--beforehand/--ask-again", default=None, help="Agree to everything from now on, or no longer.")
@reason_option
@as_json
@click.pass_obj
def confirm(places: Places, name: str, reason: str, *, deny: bool, beforehand: bool | None, as_json: bool) -> None:
    """Agree to what waits to be confirmed on NODE."""
    if deny and beforehand is not None:
        raise click.UsageError("--deny is about what waits now, --beforehand and --ask-again about all that comes")
    request = messages.ConfirmRequest(confirmed=not deny, beforehand=beforehand, reason=reason)
    made = asyncio.run(places.client().confirm(name, request))
    what = f"action {made.action} {'denied' if deny else 'confirmed'}" if beforehand is None else ""
    all_of = "everything is confirmed beforehand" if made.beforehand else "every action is asked for"
    values = {"confirmed": output.as_values(messages.CONFIRM_REPLY, made)}
    emit("fieldrelay.gateway.confirm/1", values, [f"{name}: {what or all_of}"], as_json=as_json)


COMMANDS = (node, account, cancel, confirm)
