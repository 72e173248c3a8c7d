"""What takes too long ends: a maintenance window that has passed, a node that never came back, a proof that never came.

- A window that closes before the node has installed cancels the action, as in hawkBit; a node that will not let go has until
  the deadline.
- What was installed and is not proved at its deadline ends as *unverified*: installed, and nobody can say that it runs.
- Anything else that has not ended at its deadline ends as *timed out*; what the node says later is kept, and
  changes nothing.
- Actions of a coordinated release that is under way have the deadlines of its plan instead.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from gateway.database.engine import Database, Transaction
from gateway.database.queries import actions, coordinations
from gateway.database.records import Action, ActionOutcome, ActionState, End
from gateway.fleet.issuing import withdraw
from gateway.fleet.telling import Telling
from update.errors import SlowError, StoreError

_LOG = logging.getLogger(__name__)
_EVERY_S = 15.0


class Deadlines:
    """Ends what is due.

    `stuck_after_s` counts from the order, for an action without a deadline of its own, 0: never; `verify_within_s` counts
    from the installation.
    """

    def __init__(
        self, database: Database, now: Callable[[], datetime], telling: Telling, *, stuck_after_s: int, verify_within_s: int
    ) -> None:
        self._database = database
        self._now = now
        self._telling = telling
        self._stuck_after = timedelta(seconds=stuck_after_s) if stuck_after_s else None
        self._verify_within = timedelta(seconds=verify_within_s)

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            try:
                await self.sweep()
            except StoreError as error:
                _LOG.error("cannot look for what is due: %s (%s)", error, error.code)
            await asyncio.sleep(_EVERY_S)

    async def sweep(self) -> int:
        """End what is due now; how many actions that were."""
        now = self._now()
        async with self._database.reading() as transaction:  # nearly always there is nothing to write
            if not await self._due(transaction, now):
                return 0
        async with self._database.writing() as transaction:
            due = await self._due(transaction, now)
            for action in due:
                await self._end(transaction, action, now)
        return len(due)

    async def _due(self, transaction: Transaction, now: datetime) -> list[Action]:
        due = [action for action in await actions.everything_unfinished(transaction) if self._is_due(action, now)]
        coordinated = await coordinations.held(transaction) if due else {}
        return [action for action in due if action.node not in coordinated]

    def _is_due(self, action: Action, now: datetime) -> bool:
        if action.installed is not None:
            return action.installed + self._verify_within <= now
        closes, deadline = action.terms.closes, action.terms.deadline
        if deadline is None and self._stuck_after is not None:
            deadline = max(action.created, _opening(action)) + self._stuck_after
        if action.state is ActionState.CANCELLING:
            closes = None
        return any(moment is not None and moment <= now for moment in (closes, deadline))

    async def _end(self, transaction: Transaction, action: Action, now: datetime) -> None:
        closes = action.terms.closes
        if action.installed is not None:
            words = "installed; it could not be verified that it runs"
            await self._telling.close(transaction, action, End(now, ActionOutcome.UNVERIFIED, "", words))
        elif closes is not None and closes <= now and action.state is not ActionState.CANCELLING:
            words = "the maintenance window closed before the node had installed"
            await withdraw(transaction, self._telling, action, End(now, ActionOutcome.CANCELLED, "", words))
        else:
            words = f"nothing came of it since {action.created:%Y-%m-%d %H:%M:%S} UTC"
            await self._telling.close(transaction, action, End(now, ActionOutcome.TIMED_OUT, SlowError.code, words))


def _opening(action: Action) -> datetime:
    """When it could begin: an action that waits for its window, or for its upstream, is not stuck."""
    return action.terms.opens or action.created
