"""Sending what was stored for one upstream: in order for each action, at least once, for as many days as it takes.

1. A message that cannot be sent for trouble of the server is tried again later, ever more rarely, and so is everything after
   it; one that the server refuses (malformed, beyond a quota) is given up with that reason, so that it does not hold back what
   comes after it.
2. What the server knows nothing of any more (`NotFoundError`) has been closed there: delivered.
3. What is gathered waits a little (`not_before`), but never holds up the last word of its action.
4. What was delivered is forgotten after `KEPT`.
5. What the server is not ready for (`Later`) waits, and with it what comes after it in the same action.
6. A message is read once more as its sending begins, which is stored: what was gathered into it since the round began goes with
   it, and what is said from then on goes into another. So nothing is added to what is on its way.

How a message is told, and how one that may have arrived before is told only once, each upstream's own delivery says.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

from gateway.database.engine import Database
from gateway.database.queries import outgoing
from gateway.database.records import Outgoing
from update.errors import ConfigurationError, FieldrelayError, ForbiddenError, NotFoundError, ProtocolError, StoreError, WireError

_LOG = logging.getLogger(__name__)
_EVERY_S = 2.0
_FIRST_S = 2.0
_LONGEST_S = 900.0
_FORGETS_EVERY = timedelta(days=1)
KEPT: Final = timedelta(days=90)
"""Long enough that nobody asks any more how an action ended."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What one round of sending did; `trouble` is of the first message that could not be sent."""

    sent: int
    left: int
    trouble: FieldrelayError | None = None


@dataclass(frozen=True, slots=True)
class Later:
    """A message whose time has not come at the server: why, and in how many seconds to ask again."""

    words: str
    wait_s: float


Tell = Callable[[Outgoing], Awaitable[str | Later]]
"""Tells one message; words where it did not go as it was meant. Errors: `WireError`, `ConfigurationError`."""


def _action(message: Outgoing) -> str:
    return message.source


class Outbox:
    """The messages of one upstream; `group` is what of an action's id keeps messages in order."""

    def __init__(
        self,
        database: Database,
        upstream: str,
        now: Callable[[], datetime],
        tell: Tell,
        *,
        chance: Callable[[], float] = random.random,
        group: Callable[[Outgoing], str] = _action,
    ) -> None:
        self._database = database
        self._upstream = upstream
        self._now = now
        self._tell = tell
        self._chance = chance
        self._group = group
        self._forgot: datetime | None = None

    async def run(self, note: Callable[[FieldrelayError], None]) -> None:
        """Send for ever; `note` is told of trouble."""
        while True:
            try:
                done = await self.deliver()
                if done.trouble is not None:
                    note(done.trouble)
            except StoreError as error:
                note(error)
            await asyncio.sleep(_EVERY_S)

    async def deliver(self) -> Delivered:
        """Send what is due. Errors: `StoreError`; those of the server are in the answer."""
        await self._forget()
        async with self._database.reading() as transaction:
            waiting = await outgoing.waiting(transaction, self._upstream)
        sent, trouble = 0, None
        for messages in self._by_action(waiting):
            done, error = await self._send_in_order(messages)
            sent, trouble = sent + done, trouble or error
            if isinstance(error, WireError):  # of the server, not of one node
                break
        return Delivered(sent, len(waiting) - sent, trouble)

    async def _forget(self) -> None:
        """Rule 4, once a day."""
        now = self._now()
        if self._forgot is None or now - self._forgot >= _FORGETS_EVERY:
            async with self._database.writing() as transaction:
                await outgoing.sweep(transaction, now - KEPT)
            self._forgot = now

    async def _send_in_order(self, messages: list[Outgoing]) -> tuple[int, FieldrelayError | None]:
        """Send the messages of one action until one is not due or cannot be sent; how many went."""
        for sent, message in enumerate(messages):
            if not self._is_due(message, hurried=any(each.final for each in messages[sent:])):
                return sent, None
            went, error = await self._send(message)
            if not went:
                return sent, error
        return len(messages), None

    def _is_due(self, message: Outgoing, *, hurried: bool) -> bool:
        gathering = message.attempts == 0 and hurried
        return gathering or message.not_before is None or message.not_before <= self._now()

    async def _send(self, waiting: Outgoing) -> tuple[bool, FieldrelayError | None]:
        """Send one message and note what came of it; whether it went."""
        if (message := await self._begun(waiting)) is None:
            return True, None
        try:
            words = await self._tell(message)
        except NotFoundError as error:
            words = f"closed there: {error}"
        except (ProtocolError, ForbiddenError) as error:
            _LOG.error("%s takes no message about action %s of %s: %s", self._upstream, message.source, message.node, error)
            words = f"{outgoing.GIVEN_UP}{error}"
        except (WireError, ConfigurationError) as error:
            await self._note_failure(message, error)
            return False, error
        if isinstance(words, Later):
            await self._put_off(message, words.words, words.wait_s)
            return False, None
        async with self._database.writing() as transaction:
            await outgoing.mark_delivered(transaction, message.id, now=self._now(), trouble=words)
        return True, None

    async def _begun(self, waiting: Outgoing) -> Outgoing | None:
        """Rule 6; None for what somebody else has delivered."""
        async with self._database.writing() as transaction:
            return await outgoing.begin(transaction, waiting.id)

    async def _note_failure(self, message: Outgoing, error: FieldrelayError) -> None:
        wait_s = min(_LONGEST_S, _FIRST_S * 2.0 ** min(message.attempts, 30)) * (0.5 + self._chance() / 2)
        _LOG.warning("%s cannot be told of action %s: %s (%s)", self._upstream, message.source, error, error.code)
        await self._put_off(message, f"{error} ({error.code})", wait_s)

    async def _put_off(self, message: Outgoing, trouble: str, wait_s: float) -> None:
        async with self._database.writing() as transaction:
            again = self._now() + timedelta(seconds=wait_s)
            await outgoing.mark_failed(transaction, message.id, trouble=trouble, not_before=again)

    def _by_action(self, messages: Iterable[Outgoing]) -> list[list[Outgoing]]:
        """The messages of each action in their order; actions in the order of their first message."""

        def key(message: Outgoing) -> tuple[str, str]:
            return message.node, self._group(message)

        groups = groupby(sorted(messages, key=key), key=key)
        return sorted([sorted(group, key=lambda each: each.id) for _, group in groups], key=lambda group: group[0].id)
