"""Sending what was stored: in order for each action, at least once, with exactly one last word.

1. A last word that was sent before, and whose answer was not seen, may have arrived: the server is asked first whether the
   action is still open. 404 and 410 mean that it has been closed there: delivered.
2. What is gathered waits a little (`not_before`), but never holds up the last word of its action.
3. A server that cannot be reached is tried again later, ever more rarely; days do no harm. A message that the server refuses
   as malformed is given up with that reason, so that it does not hold back what comes after it.
4. A cancellation that the server does not know of is told as a failure: here the action was let go of all the same.
5. A server without `installedBase` learns what came by hand from attributes.
"""

import logging
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import assert_never

from gateway.database.engine import Database
from gateway.database.queries import outgoing
from gateway.database.records import Matter, Outgoing
from gateway.north.hawkbit.client import HawkbitClient
from gateway.north.hawkbit.telling import closed, feedback_of
from update.errors import ConfigurationError, FieldrelayError, NotFoundError, ProtocolError, WireError
from update.wire import ddi
from update.wire.ddi_confirmation import ConfirmationFeedback

_LOG = logging.getLogger(__name__)
_FIRST_S = 2.0
_LONGEST_S = 900.0
INSTALLED_NAME = "fieldrelay.installed.name"
INSTALLED_VERSION = "fieldrelay.installed.version"


@dataclass(frozen=True, slots=True)
class Delivered:
    """What one round of sending did; `trouble` is of the first message that could not be sent."""

    sent: int
    left: int
    trouble: FieldrelayError | None = None


class Delivery:
    """Delivers to one server. `controller` gives the controller id of a node."""

    def __init__(
        self,
        database: Database,
        client: HawkbitClient,
        upstream: str,
        now: Callable[[], datetime],
        *,
        controller: Callable[[str], str],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._client = client
        self._upstream = upstream
        self._now = now
        self._controller = controller
        self._chance = chance

    async def deliver(self) -> Delivered:
        """Send what is due. Errors: `StoreError`; those of the server are in the answer."""
        async with self._database.reading() as transaction:
            waiting = await outgoing.waiting(transaction, self._upstream)
        sent, trouble = 0, None
        for messages in _by_action(waiting):
            done, error = await self._send_in_order(messages)
            sent, trouble = sent + done, trouble or error
            if isinstance(error, WireError):  # of the server, not of one target
                break
        return Delivered(sent, len(waiting) - sent, trouble)

    async def _send_in_order(self, messages: list[Outgoing]) -> tuple[int, FieldrelayError | None]:
        """Send the messages of one action until one is not due or cannot be sent; how many went."""
        for sent, message in enumerate(messages):
            if not self._is_due(message, hurried=any(each.final for each in messages[sent:])):
                return sent, None
            if (error := await self._send(message)) is not None:
                return sent, error
        return len(messages), None

    def _is_due(self, message: Outgoing, *, hurried: bool) -> bool:
        gathering = message.attempts == 0 and hurried
        return gathering or message.not_before is None or message.not_before <= self._now()

    async def _send(self, message: Outgoing) -> FieldrelayError | None:
        """Send one message and note what came of it."""
        try:
            words = await self._tell(message, self._controller(message.node))
        except NotFoundError as error:
            words = f"closed there: {error}"
        except ProtocolError as error:
            _LOG.error("%s takes no message about action %s of %s: %s", self._upstream, message.source, message.node, error)
            words = f"given up: {error}"
        except (WireError, ConfigurationError) as error:
            await self._note_failure(message, error)
            return error
        async with self._database.writing() as transaction:
            await outgoing.mark_delivered(transaction, message.id, now=self._now(), trouble=words)
        return None

    async def _tell(self, message: Outgoing, controller: str) -> str:
        """Send it; words where it did not go as it was meant."""
        if message.final and message.attempts and not await self._client.is_open(controller, message.source):
            return "it had arrived before"
        match message.matter:
            case Matter.FEEDBACK:
                await self._client.feedback(controller, message.source, feedback_of(message.body))
            case Matter.CANCEL_FEEDBACK:
                return await self._tell_cancelled(message, controller)
            case Matter.CONFIRMATION:
                answer = ConfirmationFeedback.model_validate(message.body)
                await self._client.confirm(controller, message.source, answer)
            case Matter.INSTALLED:
                return await self._tell_installed(message, controller)
            case _:
                assert_never(message.matter)
        return ""

    async def _tell_cancelled(self, message: Outgoing, controller: str) -> str:
        told = feedback_of(message.body)
        try:
            await self._client.feedback(controller, message.source, told, cancel=True)
        except (NotFoundError, ProtocolError):  # rule 4
            failed = feedback_of(closed(ddi.Finished.FAILURE, told.status.details or ()))
            await self._client.feedback(controller, message.source, failed)
            return "it was not being cancelled there"
        return ""

    async def _tell_installed(self, message: Outgoing, controller: str) -> str:
        name, version = str(message.body["name"]), str(message.body["version"])
        try:
            await self._client.installed(controller, name, version)
        except (NotFoundError, ProtocolError):  # rule 5
            said = {INSTALLED_NAME: name, INSTALLED_VERSION: version}
            await self._client.attributes(controller, said, ddi.Mode.MERGE)
            return "told by attributes"
        return ""

    async def _note_failure(self, message: Outgoing, error: FieldrelayError) -> None:
        wait_s = min(_LONGEST_S, _FIRST_S * 2.0 ** min(message.attempts, 30)) * (0.5 + self._chance() / 2)
        _LOG.warning("%s cannot be told of action %s: %s (%s)", self._upstream, message.source, error, error.code)
        async with self._database.writing() as transaction:
            again = self._now() + timedelta(seconds=wait_s)
            await outgoing.mark_failed(transaction, message.id, trouble=f"{error} ({error.code})", not_before=again)


def _by_action(messages: Iterable[Outgoing]) -> list[list[Outgoing]]:
    """The messages of each action in their order; actions in the order of their first message."""
    groups = groupby(sorted(messages, key=lambda each: (each.node, each.source)), key=lambda each: (each.node, each.source))
    return sorted([sorted(group, key=lambda each: each.id) for _, group in groups], key=lambda group: group[0].id)
