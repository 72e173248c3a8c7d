"""Booking what a judgement says about an action: installed, or ended, with what it changes about the node.

- An end that a cancellation brought has its cause: superseded where something newer is wanted. What was installed by then
  cannot be undone by letting go of it: it ends as unverified.
- Only a success says what the node runs. Anything else has the node asked for its attributes, which say the rest.
- Stock clients say neither slot nor bundle: what they have been proved to run is the release of the action.
"""

from collections.abc import Mapping
from datetime import datetime

from gateway.database.engine import Transaction
from gateway.database.queries import actions, nodes
from gateway.database.records import Action, ActionOutcome, ActionState, End
from gateway.fleet.judgement import Judgement
from gateway.fleet.telling import Telling
from update.wire.attributes import MAX_SLOT_CHARACTERS


async def book(
    transaction: Transaction,
    telling: Telling,
    action: Action,
    judgement: Judgement,
    *,
    boot_id: str,
    now: datetime,
    body: Mapping[str, object] | None = None,
) -> None:
    """Book it; `boot_id` is the node's boot at this moment, empty if unknown. What is closed stays as it was closed."""
    if action.state is ActionState.CLOSED:
        return
    if judgement.installed:
        await actions.mark_installed(transaction, action.id, boot_id=boot_id, now=now)
        await telling.written(transaction, action)
    if judgement.outcome is None:
        return
    end = _end(action, judgement.outcome, judgement, now)
    await telling.close(transaction, action, end)
    if end.outcome is ActionOutcome.SUCCESS:
        slot = str((body or {}).get("slot", ""))[:MAX_SLOT_CHARACTERS]
        await nodes.ran(transaction, action.node, action.release, slot=slot)
    else:
        await nodes.ask_attributes(transaction, action.node)


def _end(action: Action, outcome: ActionOutcome, judgement: Judgement, now: datetime) -> End:
    message = judgement.message
    if outcome is ActionOutcome.CANCELLED and action.installed is not None:
        message = f"it was installed before it was let go of: {message}".removesuffix(": ")
        outcome = ActionOutcome.UNVERIFIED
    elif outcome is ActionOutcome.CANCELLED and action.superseded_by is not None:
        message = message or f"superseded by action {action.superseded_by}"
        outcome = ActionOutcome.SUPERSEDED
    return End(now, outcome, judgement.code, message)
