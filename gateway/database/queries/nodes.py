"""Nodes: who they are, what they run, and the fence that orders what they are told."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Row, insert, select, update

from gateway.database.engine import Transaction
from gateway.database.records import SITE, AutoConfirm, ClientKind, Node, Release, Running
from gateway.database.tables import as_utc
from gateway.database.tables import nodes as table
from update.digest import Digest
from update.identity import Hardware
from update.trust.verified import Provenance


async def find(transaction: Transaction, node: str) -> Node | None:
    """The node of that name."""
    row = (await transaction.execute(select(table).where(table.c.id == node))).one_or_none()
    return None if row is None else record_of(row)


async def everyone(transaction: Transaction) -> tuple[Node, ...]:
    """All nodes, by name."""
    return tuple(record_of(row) for row in await transaction.execute(select(table).order_by(table.c.id)))


async def several(transaction: Transaction, names: Sequence[str]) -> Mapping[str, Node]:
    """The nodes of these names, by name."""
    rows = await transaction.execute(select(table).where(table.c.id.in_(names)))
    return {row.id: record_of(row) for row in rows}


async def of_assigner(transaction: Transaction, assigner: str) -> tuple[Node, ...]:
    """The nodes of one assigner, by name."""
    rows = await transaction.execute(select(table).where(table.c.assigner == assigner).order_by(table.c.id))
    return tuple(record_of(row) for row in rows)


async def names_of_assigner(transaction: Transaction, assigner: str) -> tuple[str, ...]:
    """The same, by their names alone: for who looks often."""
    rows = await transaction.execute(select(table.c.id).where(table.c.assigner == assigner).order_by(table.c.id))
    return tuple(row.id for row in rows)


async def register(transaction: Transaction, node: str, *, kind: ClientKind, fingerprint: Digest, now: datetime) -> Node:
    """Add a node at its first contact: it runs something unknown, and is asked for its attributes."""
    values: dict[str, object] = {
        "id": node,
        "kind": kind,
        "assigner": SITE,
        "fingerprint": fingerprint,
        "hardware": "",
        "attributes": {},
        "attributes_wanted": True,
        "running_version": "",
        "running_sha256": "",
        "slot": "",
        "accepts": Provenance.TUF if kind is ClientKind.AGENT else Provenance.CMS,
        "fence": 0,
        "first_seen": as_utc(now),
        "last_seen": as_utc(now),
    }
    return record_of((await transaction.execute(insert(table).values(values).returning(table))).one())


async def seen(transaction: Transaction, node: str, *, fingerprint: Digest, now: datetime) -> None:
    """Note that a node was here, and with which certificate."""
    await _change(transaction, node, fingerprint=fingerprint, last_seen=as_utc(now))


async def describe(
    transaction: Transaction, node: str, *, attributes: Mapping[str, str], hardware: Hardware | None, running: Running
) -> None:
    """Replace what a node says of itself; its attributes are not asked for again until something changes."""
    await _change(
        transaction,
        node,
        attributes=dict(attributes),
        attributes_wanted=False,
        hardware="" if hardware is None else str(hardware),
        running_version=running.version,
        running_sha256=running.sha256,
        slot=running.slot,
    )


async def note_attributes(transaction: Transaction, node: str, attributes: Mapping[str, str], hardware: Hardware | None) -> None:
    """Replace a node's attributes by what was seen of it; what it says itself is asked for as before."""
    await _change(transaction, node, attributes=dict(attributes), hardware="" if hardware is None else str(hardware))


async def ran(transaction: Transaction, node: str, release: Release, *, slot: str) -> None:
    """Note what a node has confirmed to run, and where; it is asked for its attributes, which say the rest."""
    values = {"running_version": release.version, "running_sha256": release.sha256, "slot": slot}
    await _change(transaction, node, **values, attributes_wanted=True)


async def booted(transaction: Transaction, node: str, boot_id: str) -> None:
    """Note the boot that a node told of."""
    await _change(transaction, node, boot_id=boot_id)


async def set_kind(transaction: Transaction, node: str, kind: ClientKind, *, fixed: bool) -> None:
    """Note what speaks for the node; `fixed`: people said so."""
    await _change(transaction, node, kind=kind, kind_fixed=fixed)


async def set_token(transaction: Transaction, node: str, token: Digest | None) -> None:
    """Give a node its own token (its digest), or take it away."""
    await _change(transaction, node, token=token)


async def set_assigner(transaction: Transaction, node: str, assigner: str) -> None:
    """Hand a node to another assigner."""
    await _change(transaction, node, assigner=assigner)


async def set_accepts(transaction: Transaction, node: str, provenance: Provenance) -> None:
    """Set the weakest provenance that a node is offered."""
    await _change(transaction, node, accepts=provenance)


async def set_auto_confirm(transaction: Transaction, node: str, auto_confirm: AutoConfirm | None) -> None:
    """Confirm beforehand whatever will be wanted on a node, or no longer."""
    value = auto_confirm and {
        "initiator": auto_confirm.initiator,
        "remark": auto_confirm.remark,
        "activated": as_utc(auto_confirm.activated).isoformat(),
    }
    await _change(transaction, node, auto_confirm=value)


async def runs(transaction: Transaction, node: str, version: str) -> None:
    """Note a version that a node says to have got by hand; its bundle and slot are asked for."""
    await _change(transaction, node, running_version=version, running_sha256="", slot="", attributes_wanted=True)


async def ask_attributes(transaction: Transaction, node: str) -> None:
    """Ask the node for its attributes at its next poll."""
    await _change(transaction, node, attributes_wanted=True)


async def raise_fence(transaction: Transaction, node: str) -> int:
    """The next fence of a node: every later one is larger, for ever."""
    statement = update(table).where(table.c.id == node).values(fence=table.c.fence + 1).returning(table.c.fence)
    return int((await transaction.execute(statement)).scalar_one())


async def _change(transaction: Transaction, node: str, **values: object) -> None:
    await transaction.execute(update(table).where(table.c.id == node).values(values))


def record_of(row: Row[tuple[object, ...]]) -> Node:
    """The node of a row of its table."""
    return Node(
        id=row.id,
        kind=ClientKind(row.kind),
        assigner=row.assigner,
        fingerprint=Digest(row.fingerprint),
        hardware=Hardware.parse(row.hardware) if row.hardware else None,
        attributes=row.attributes,
        attributes_wanted=row.attributes_wanted,
        running=Running(row.running_version, row.running_sha256, row.slot),
        fence=row.fence,
        first_seen=as_utc(row.first_seen),
        last_seen=as_utc(row.last_seen),
        kind_fixed=row.kind_fixed,
        token=None if row.token is None else Digest(row.token),
        accepts=Provenance(row.accepts),
        auto_confirm=_auto_confirm(row.auto_confirm),
        boot_id=row.boot_id,
    )


def _auto_confirm(value: Mapping[str, str] | None) -> AutoConfirm | None:
    if value is None:
        return None
    return AutoConfirm(value["initiator"], value["remark"], datetime.fromisoformat(value["activated"]))
