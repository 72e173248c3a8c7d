"""One webhook: every result is stored for it with the action's end, and sent until it has been taken.

1. 2xx: taken. 410: the receiver wants this no more; what it refuses as malformed (400, 422 and other 4xx) would be refused again:
   given up, with the reason, until an operator has it sent again.
2. 401 and 403: our signature is not accepted; 404, redirects, 5xx and silence: the receiver is not there. Everything waits.
3. A result may arrive twice where an answer was lost: its id is the same.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

import aiohttp

from gateway.database.engine import Database, Transaction
from gateway.database.queries import outgoing
from gateway.database.records import Action, End, Matter, Outgoing
from gateway.fleet.catalogue import AssignerState
from gateway.north.outbox import Delivered, Outbox
from gateway.north.webhook.messages import encoded, headers_of, read_secret, result_of
from update.errors import FieldrelayError, ProtocolError, UnauthorizedError, UnreachableError, WireError
from update.wire.http import Manner, exchange, refusal

_TAKEN: Final = range(200, 300)
_OURS: Final = frozenset({401, 403})
_AWAY: Final = frozenset({404, *range(300, 400)})


class WebhookWitness:
    """Stores results for the webhook `name`, which is told that they are of `gateway`."""

    def __init__(self, name: str, gateway: str, now: Callable[[], datetime]) -> None:
        self._name = name
        self._gateway = gateway
        self._now = now

    async def ended(self, transaction: Transaction, action: Action, end: End) -> None:
        """Store how an action ended."""
        await outgoing.add(
            transaction,
            self._name,
            action.node,
            source=str(action.id),
            matter=Matter.FEEDBACK,
            final=True,
            report=f"end {action.id}",
            body=result_of(self._gateway, action, end),
            now=self._now(),
        )


class Webhook:
    """Sends to `url` what was stored for `name`. `gateway` is in the ids of messages."""

    def __init__(
        self,
        name: str,
        database: Database,
        session: aiohttp.ClientSession,
        url: str,
        secret: Path,
        *,
        gateway: str,
        manner: Manner,
        now: Callable[[], datetime],
    ) -> None:
        self._name = name
        self._database = database
        self._session = session
        self._url = url
        self._secret = secret
        self._gateway = gateway
        self._manner = manner
        self._now = now
        self._outbox = Outbox(database, name, now, self._tell)
        self._contact: datetime | None = None
        self._trouble: FieldrelayError | None = None

    async def run(self) -> None:
        """Send for ever."""
        await self._outbox.run(self._note)

    async def deliver(self) -> Delivered:
        """Send what is due. Errors: `StoreError`; those of the receiver are in the answer."""
        return await self._outbox.deliver()

    async def state(self) -> AssignerState:
        """How the receiver stands; it has no nodes."""
        async with self._database.reading() as transaction:
            waiting = (await outgoing.count_waiting(transaction)).get(self._name, 0)
        code, problem = ("", "") if self._trouble is None else (self._trouble.code, str(self._trouble))
        return AssignerState(self._name, 0, self._contact, waiting, code, problem)

    def _note(self, error: FieldrelayError) -> None:
        self._trouble = error

    async def _tell(self, message: Outgoing) -> str:
        body = encoded(message.body)
        headers = headers_of(read_secret(self._secret), f"{self._gateway}.{message.source}", self._now(), body)
        asking = exchange(
            self._session, "POST", self._url, self._manner, headers=headers, body=body, small=True, redirects=False, once=True
        )
        async with asking as response:
            if response.status not in _TAKEN:
                raise _refusal(response)
        self._contact, self._trouble = self._now(), None
        return ""


def _refusal(response: aiohttp.ClientResponse) -> WireError:
    """Rules 1 and 2."""
    status, url = response.status, response.url
    if status in _OURS:
        return UnauthorizedError(f"{url} refuses our signature ({status}); compare the secret")
    if status in _AWAY:
        return UnreachableError(f"{url} is no receiver of webhooks ({status}); check the url")
    found = refusal(response)
    return found if isinstance(found, UnreachableError) else ProtocolError(f"{url} takes no such message ({status})")
