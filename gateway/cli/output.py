"""The gateway's answers for people: tables that set what runs beside what is wanted."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from pydantic import TypeAdapter

from gateway.control.messages import AssignmentState
from gateway.fleet.catalogue import AssignerState, RepositoryState
from gateway.fleet.release_states import ReleaseState
from gateway.setup import Made
from gateway.status import GatewayState, NodeState, PrefetchState, RouteState
from gateway.words import duration, size

_Reply = TypeVar("_Reply")


def as_values(reply: TypeAdapter[_Reply], value: _Reply) -> object:
    """A message of the gateway as JSON values."""
    return json.loads(reply.dump_json(value))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their content, two blanks apart. What nodes said is printed without their control characters."""
    lines = [tuple(heads), *(tuple(map(printable, row)) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def show_status(state: GatewayState) -> str:
    """Everything about the gateway."""
    store = state.store
    quota = f", quota {size(store.quota_bytes)}" if store.quota_bytes else ""
    damaged = f", {store.damaged} pieces found damaged since the start: check the disk" if store.damaged else ""
    lines = [
        f"{state.name}, release {state.version}, running for {duration(state.now - state.started)}",
        f"store: {size(store.used_bytes)} used, {size(store.free_bytes)} free{quota}{damaged}",
        "",
        show_repositories(state.repositories, state.now),
        "",
        show_nodes(state.nodes, state.now),
        *(["", show_assigners(state.assigners, state.now)] if state.assigners else []),
        *(["", show_releases(state.releases, state.now)] if state.releases else []),
        *(["", show_prefetch(state.prefetch)] if state.prefetch else []),
        *(["", show_routes(state.routes)] if state.routes else []),
    ]
    return "\n".join(lines)


def show_repositories(repositories: Sequence[RepositoryState], now: datetime) -> str:
    """One line per repository."""
    rows = [
        (
            each.name,
            str(each.targets),
            ", ".join(f"{role} {number}" for role, number in each.versions.items()),
            f"STALE: {', '.join(each.stale)}" if each.stale else "fresh" if each.refreshed else "unknown",
            _ago(each.refreshed, now),
            f"{each.problem} ({each.code})" if each.problem else "",
        )
        for each in repositories
    ]
    return table(("REPOSITORY", "TARGETS", "VERSIONS", "STATE", "REFRESHED", "PROBLEM"), rows)


def show_assigners(assigners: Sequence[AssignerState], now: datetime) -> str:
    """One line per assigner elsewhere."""
    rows = [
        (
            each.name,
            str(each.nodes),
            _ago(each.contact, now),
            str(each.waiting),
            f"{each.problem} ({each.code})" if each.problem else "",
        )
        for each in assigners
    ]
    return table(("ASSIGNER", "NODES", "CONTACT", "WAITING", "PROBLEM"), rows)


def show_releases(releases: Sequence[ReleaseState], now: datetime) -> str:
    """One line per coordinated release."""
    rows = [
        (
            str(each.id),
            f"{each.plan} {each.version}",
            each.standing,
            f"{sum(member.place in {'holding', 'new'} for member in each.members)} of {len(each.members)}",
            _ago(each.created, now),
            "; ".join([*each.broken, *([each.why] if each.why else [])]),
        )
        for each in releases
    ]
    return table(("RELEASE", "PLAN", "STATE", "ON NEW", "BEGUN", "PROBLEM"), rows)


def show_prefetch(images: Sequence[PrefetchState]) -> str:
    """One line per image that is fetched before it is asked for."""
    rows = [
        (
            f"{each.repository}/{each.path}",
            each.mode,
            f"{size(each.done_bytes)} of {size(each.wanted_bytes)}",
            str(each.nodes),
            str(each.unknown),
            f"{each.problem} ({each.code})" if each.problem else "",
        )
        for each in images
    ]
    return table(("PREFETCH", "MODE", "HERE", "NODES", "UNKNOWN", "PROBLEM"), rows)


def show_routes(routes: Sequence[RouteState]) -> str:
    """One line per mirrored route; both limits are how old an answer may be."""
    rows = [
        (
            each.name,
            each.kind,
            str(each.objects),
            f"{size(each.used_bytes)} of {size(each.quota_bytes)}",
            duration(timedelta(seconds=each.revalidate_s)),
            duration(timedelta(seconds=each.stale_if_error_s)),
            str(each.stale_answers),
            each.trouble if each.served else "NOT SERVED: south.content.enabled is false",
        )
        for each in routes
    ]
    return table(("ROUTE", "KIND", "OBJECTS", "USED", "ASKS AFTER", "STALE FOR", "STALE ANSWERS", "PROBLEM"), rows)


def show_nodes(nodes: Sequence[NodeState], now: datetime) -> str:
    """One line per node: what runs, and beside it what is wanted, by whose word, and whose word it accepts."""
    rows = [
        (
            node.id,
            node.hardware or "unknown",
            node.running.version or "unknown",
            node.running.slot or "-",
            "-" if node.wanted is None else node.wanted.version or node.wanted.path,
            _progress(node),
            _proof(node),
            _ago(node.last_seen, now) + (" (late)" if node.late else ""),
        )
        for node in nodes
    ]
    attached = [f"{node.id}: attached: {printable(node.attached)}" for node in nodes if node.attached]
    return "\n".join([table(("NODE", "HARDWARE", "RUNS", "SLOT", "WANTED", "STATE", "PROOF", "SEEN"), rows), *attached])


def show_assignments(assignments: Sequence[AssignmentState]) -> str:
    """One line per node that was meant."""
    rows = [
        (each.node, each.verdict, str(each.action or "-"), f"{each.repository}/{each.path}", each.version) for each in assignments
    ]
    return table(("NODE", "ORDER", "ACTION", "TARGET", "VERSION"), rows)


def next_steps(made: Made) -> str:
    """What to do now, for a person."""
    return f"""\
The gateway is set up.
  configuration  {made.config}
  state          {made.state}
  site CA        {made.site_ca}
  its SHA-256    {made.site_ca_sha256}

Next:
  1. Put a [[repository]] with its pinned root into {made.config}.
  2. Start it: systemctl start fieldrelay-gateway, or: fieldrelay gateway --config {made.config} serve
  3. Give each node the site CA (or its SHA-256) and a one-time token: fieldrelay gateway token NAME
  4. Order a release: fieldrelay gateway assign VERSION --all"""


def printable(text: str) -> str:
    """`text` without control characters, which could draw over what is on the screen."""
    return "".join(each if each.isprintable() else "?" for each in text)


def _proof(node: NodeState) -> str:
    wanted = "-" if node.wanted is None else str(node.wanted.provenance)
    return f"{wanted} (accepts {node.accepts})"


def _progress(node: NodeState) -> str:
    if node.wanted is None:
        return "-"
    return f"{node.wanted.standing} ({node.wanted.code})" if node.wanted.code else node.wanted.standing


def _ago(moment: datetime | None, now: datetime) -> str:
    return "never" if moment is None else f"{duration(now - moment)} ago"
