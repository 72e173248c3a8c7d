"""Telling hawkBit what was stored for it (`north.outbox`), with exactly one last word.

1. A last word that was sent before, and whose answer was not seen, may have arrived: the server is asked first whether the
   action is still open. 404 and 410 mean that it has been closed there: delivered. Only from hawkBit: who knows no target at
   all is something in between, and is told nothing.
2. A cancellation that the server does not know of is told as a failure: here the action was let go of all the same.
3. A server without `installedBase` learns what came by hand from attributes.
"""

import random
from collections.abc import Callable
from datetime import datetime
from typing import assert_never

from gateway.database.engine import Database
from gateway.database.records import Matter, Outgoing
from gateway.north.hawkbit.client import HawkbitClient
from gateway.north.hawkbit.telling import closed, feedback_of
from gateway.north.outbox import Delivered, Outbox
from update.errors import FieldrelayError, NotFoundError, ProtocolError, UnreachableError
from update.wire import ddi
from update.wire.ddi_confirmation import ConfirmationFeedback

INSTALLED_NAME = "fieldrelay.installed.name"
INSTALLED_VERSION = "fieldrelay.installed.version"


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
        self._client = client
        self._controller = controller
        self._outbox = Outbox(database, upstream, now, self._tell, chance=chance)

    async def deliver(self) -> Delivered:
        """Send what is due. Errors: `StoreError`; those of the server are in the answer."""
        return await self._outbox.deliver()

    async def run(self, note: Callable[[FieldrelayError], None]) -> None:
        """Send for ever; `note` is told of trouble."""
        await self._outbox.run(note)

    async def _tell(self, message: Outgoing) -> str:
        """Send it; words where it did not go as it was meant."""
        controller = self._controller(message.node)
        try:
            return await self._send(message, controller)
        except NotFoundError:
            await self._check_that_it_is_hawkbit(controller)
            raise

    async def _check_that_it_is_hawkbit(self, controller: str) -> None:
        """HawkBit registers what it does not know."""
        try:
            await self._client.root(controller)
        except NotFoundError as error:
            raise UnreachableError(f"the server answers, but not as hawkBit would: {error}") from error

    async def _send(self, message: Outgoing, controller: str) -> str:
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
        except (NotFoundError, ProtocolError):  # rule 2
            failed = feedback_of(closed(ddi.Finished.FAILURE, told.status.details or ()))
            await self._client.feedback(controller, message.source, failed)
            return "it was not being cancelled there"
        return ""

    async def _tell_installed(self, message: Outgoing, controller: str) -> str:
        name, version = str(message.body["name"]), str(message.body["version"])
        try:
            await self._client.installed(controller, name, version)
        except (NotFoundError, ProtocolError):  # rule 3
            said = {INSTALLED_NAME: name, INSTALLED_VERSION: version}
            await self._client.attributes(controller, said, ddi.Mode.MERGE)
            return "told by attributes"
        return ""
