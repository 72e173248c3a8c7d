"""What every contact of every node asks, and what is noted of it: prepared once, and read by a look (`Database.look`)."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import DateTime, Integer, String, bindparam, func, select, update

from gateway.database.engine import Transaction, View
from gateway.database.queries import actions, nodes
from gateway.database.records import Action, ActionOutcome, ActionState, Node
from gateway.database.tables import actions as _actions
from gateway.database.tables import as_utc
from gateway.database.tables import nodes as _nodes
from update.digest import Digest

_NODE, _TOKEN = bindparam("of_node", type_=String), bindparam("of_token", type_=String)
_ACTION, _MOMENT = bindparam("of_action", type_=Integer), bindparam("moment", type_=DateTime(timezone=True))
_INSTALLED = select(func.max(_actions.c.id)).where(_actions.c.node == _NODE, _actions.c.outcome == ActionOutcome.SUCCESS)
_FIRST = select(_actions.c.id).where(_actions.c.node == _NODE, _actions.c.state != ActionState.CLOSED)
_STANDING = select(
    _nodes,
    _INSTALLED.scalar_subquery().label("installed_action"),
    _FIRST.order_by(_actions.c.fence).limit(1).scalar_subquery().label("first_action"),
).where(_nodes.c.id == _NODE)
_ONE_ACTION = select(_actions).where(_actions.c.id == _ACTION)
_BY_TOKEN = select(_nodes).where(_nodes.c.token == _TOKEN).limit(1)
_SEEN = update(_nodes).where(_nodes.c.id == _NODE, _nodes.c.last_seen < _MOMENT).values(last_seen=_MOMENT)


def standing(view: View, node: str) -> tuple[Node, Action | None, int | None] | None:
    """A node, the oldest of its actions that is not closed, and the id of the last that succeeded; None: no such node."""
    row = view.execute(_STANDING, {"of_node": node}).one_or_none()
    if row is None:
        return None
    first = None if row.first_action is None else action(view, row.first_action)
    return nodes.record_of(row), first, row.installed_action


def action(view: View, number: int) -> Action | None:
    """The action of that id."""
    row = view.execute(_ONE_ACTION, {"of_action": number}).one_or_none()
    return None if row is None else actions.record_of(row)


def of_token(view: View, token: Digest) -> Node | None:
    """The node whose token has this digest."""
    row = view.execute(_BY_TOKEN, {"of_token": token}).one_or_none()
    return None if row is None else nodes.record_of(row)


async def seen(transaction: Transaction, moments: Mapping[str, datetime]) -> None:
    """Note when each of some nodes was here; what is stored as later stays."""
    values = [{"of_node": node, "moment": as_utc(moment)} for node, moment in moments.items()]
    if values:
        await transaction.execute(_SEEN, values)
