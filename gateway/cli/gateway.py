"""`fieldrelay gateway …`: set a gateway up, run it, and command the one that runs.

`init` and `serve` work on files; every other command asks the running gateway by its socket, so it shows and changes what
the gateway really does. Results go to stdout, everything else to stderr; `--json` gives the same for programs.
"""

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from gateway.cli import fleet, output, plan, releases, reports, stale
from gateway.cli.places import Places, reason_option
from gateway.cli.serve import serve as run_gateway
from gateway.cli.show import as_json, emit
from gateway.config import ControlSection, GatewaySection, PrefetchMode, SouthSection, StateFolder, load_config
from gateway.control import messages
from gateway.north.intake.report_key import public_half
from gateway.setup import Wishes, set_up
from update.durable import Disk

DEFAULT_CONFIG = Path("/etc/fieldrelay/gateway.toml")

_PATH = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group()
@click.option("--config", type=_PATH, default=DEFAULT_CONFIG, envvar="FIELDRELAY_CONFIG", show_default=True, show_envvar=True)
@click.option("--socket", type=_PATH, envvar="FIELDRELAY_SOCKET", show_envvar=True, help="Instead of the configured one.")
@click.pass_context
def gateway(context: click.Context, config: Path, socket: Path | None) -> None:
    """Set up, run and command a gateway."""
    context.obj = Places(config, socket)


for _command in (*fleet.COMMANDS, *plan.COMMANDS, *releases.COMMANDS, *reports.COMMANDS, *stale.COMMANDS):
    gateway.add_command(_command)


@gateway.command()
@click.option("--name", default=GatewaySection().name, show_default=True, help="In the certificate and in the announcement.")
@click.option("--state", type=_FOLDER, default=GatewaySection().state, show_default=True, help="What it must remember.")
@click.option("--port", type=click.IntRange(1, 65535), default=SouthSection().port, show_default=True, help="For nodes.")
@click.option("--host", "hosts", multiple=True, help="A further name or address for the certificate.")
@click.option("--interface", "interfaces", multiple=True, help="Where to announce the gateway by mDNS.")
@as_json
@click.pass_obj
def init(places: Places, /, *, as_json: bool, state: Path, name: str, port: int, **lists: tuple[str, ...]) -> None:
    """Make state folder, site CA, certificate, database and configuration; never overwrites."""
    socket = places.socket or ControlSection().socket
    wishes = Wishes(file=places.config, name=name, state=state, socket=socket, port=port, **lists)
    made = asyncio.run(set_up(wishes, Disk(), datetime.now(UTC)))
    emit("fieldrelay.gateway.init/1", asdict(made), [output.next_steps(made)], as_json=as_json)


@gateway.command("report-key")
@as_json
@click.pass_obj
def show_report_key(places: Places, *, as_json: bool) -> None:
    """Show the public half of what reports on sticks are signed with, for `fieldrelay repo ingest-reports` (as GATEWAY.pub)."""
    config = load_config(places.config)
    pem = public_half(StateFolder(config.gateway.state)).decode()
    values = {"gateway": config.gateway.name, "key": pem}
    emit("fieldrelay.gateway.report-key/1", values, [pem.rstrip()], as_json=as_json)


@gateway.command()
@click.pass_obj
def serve(places: Places) -> None:
    """Run until SIGTERM or SIGINT."""
    run_gateway(places.config)


@gateway.command()
@as_json
@click.pass_obj
def status(places: Places, *, as_json: bool) -> None:
    """Show nodes, repositories, store and mirrored routes."""
    state = asyncio.run(places.client().status())
    values = {"status": output.as_values(messages.STATUS_REPLY, state)}
    emit("fieldrelay.gateway.status/1", values, [output.show_status(state)], as_json=as_json)


@gateway.command()
@as_json
@click.pass_obj
def nodes(places: Places, *, as_json: bool) -> None:
    """Show what runs on every node, and what is wanted."""
    found = asyncio.run(places.client().nodes())
    values = {"nodes": output.as_values(messages.NODES_REPLY, found)}
    emit("fieldrelay.gateway.nodes/1", values, [output.show_nodes(found, datetime.now(UTC))], as_json=as_json)


@gateway.command()
@click.argument("release")
@click.argument("names", nargs=-1, metavar="[NODE]...")
@click.option("--all", "everyone", is_flag=True, help="Every node of this site's own rollouts.")
@click.option("--override", is_flag=True, help="Also for nodes that others assign for; needs --reason, which they are told.")
@click.option("--repository", default="", help="Where a version or path is in several.")
@click.option(
    "--prefetch",
    type=click.Choice([mode.value for mode in PrefetchMode]),
    help="Of its images; else as the repository is configured.",
)
@reason_option
@as_json
@click.pass_obj
def assign(
    places: Places,
    /,
    *,
    as_json: bool,
    everyone: bool,
    override: bool,
    names: tuple[str, ...],
    prefetch: str | None,
    **order: str,
) -> None:
    """Order RELEASE (a version, or a bundle's path) for nodes; all of them take the order, or none."""
    if bool(names) == everyone:
        raise click.UsageError("name the nodes, or say --all")
    mode = None if prefetch is None else PrefetchMode(prefetch)
    request = messages.AssignRequest(nodes=None if everyone else names, prefetch=mode, override=override, **order)
    made = asyncio.run(places.client().assign(request))
    values = {"assignments": output.as_values(messages.ASSIGN_REPLY, made)}
    emit("fieldrelay.gateway.assign/1", values, [output.show_assignments(made)], as_json=as_json)


@gateway.command()
@click.argument("node", default="")
@click.option("--valid", "hours", type=click.IntRange(1, 720), default=24, show_default=True, help="Hours until it ends.")
@reason_option
@as_json
@click.pass_obj
def token(places: Places, node: str, hours: int, reason: str, *, as_json: bool) -> None:
    """Make a one-time token for the first contact of NODE (or of any node)."""
    request = messages.TokenRequest(valid_s=hours * 3600, node=node, reason=reason)
    made = asyncio.run(places.client().token(request))
    values = {"token": output.as_values(messages.TOKEN_REPLY, made)}
    emit("fieldrelay.gateway.token/1", values, [made.token], as_json=as_json)


@gateway.command()
@click.argument("repository")
@as_json
@click.pass_obj
def refresh(places: Places, repository: str, *, as_json: bool) -> None:
    """Have the upstreams of REPOSITORY asked for news now."""
    state = asyncio.run(places.client().refresh(repository))
    values = {"repository": output.as_values(messages.REFRESH_REPLY, state)}
    emit("fieldrelay.gateway.refresh/1", values, [output.show_repositories((state,), datetime.now(UTC))], as_json=as_json)
