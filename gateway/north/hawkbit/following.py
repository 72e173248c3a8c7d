"""Following what one hawkBit server wants of one node.

1. What waits is taken over (`fleet.takeover`) before the node hears of it: fetched, proved, and admitted for this node. What is
   refused is told as a failure with its reason, once. Trouble that may pass is tried again at the next poll.
2. A document that was understood is not read again before its link changes.
3. What ended here and is open there was not understood there: its end is told again, unless that is under way; not for ever, for
   a server that has no room for it (a quota is used up) will not take it later.
4. A cancellation of what was never taken over, or has ended, is answered at once.
5. An action of ours that the server links no longer, with nothing else in its place, is asked for: where the server does not
   know it any more it is withdrawn here.
"""

import logging
from dataclasses import dataclass
from functools import partial

from gateway.database.engine import Database
from gateway.database.queries import actions, contacts, outgoing
from gateway.database.records import Action, ActionState, Node, Outgoing
from gateway.fleet.issuing import Assignment, Verdict, Wish
from gateway.fleet.takeover import Takeover
from gateway.north.hawkbit.client import HawkbitClient, Standing
from gateway.north.hawkbit.meaning import artifacts_of, terms_of, wanted_of
from gateway.north.hawkbit.obtain import Obtain
from gateway.north.hawkbit.telling import HawkbitTeller
from update.errors import (
    AssignerError,
    BundleError,
    FieldrelayError,
    LengthOrHashError,
    ProtocolError,
    TrustError,
    UnknownNodeError,
)
from update.wire import ddi

_LOG = logging.getLogger(__name__)
_TRIES_OF_END = 5
_TRIES_OF_CONTENT = 3
"""Bytes that are not those that were announced may have been damaged on their way; not for ever."""


@dataclass(frozen=True, slots=True)
class Server:
    """One server: its name as an assigner and as a receiver of messages, how to ask it, and what tells it."""

    assigner: str
    client: HawkbitClient
    obtain: Obtain
    teller: HawkbitTeller

    @property
    def name(self) -> str:
        """Its name among the messages that wait."""
        return self.assigner


class Following:
    """Does for a node what the server's root of its target says."""

    def __init__(self, database: Database, takeover: Takeover, server: Server) -> None:
        self._database = database
        self._takeover = takeover
        self._server = server
        self._understood: dict[str, tuple[str, str]] = {}
        self._bad_content: dict[tuple[str, str], int] = {}

    async def follow(self, node: Node, controller: str, standing: Standing) -> None:
        """Act on it. Errors: those of the server, `StoreError`; what was not done is done at the next poll."""
        if standing.cancellation:
            await self._cancel(node, standing.cancellation)
        elif standing.deployment or standing.confirmation:
            await self._want(node, controller, standing)
        else:
            await self._check_unlinked(node, controller)

    async def _want(self, node: Node, controller: str, standing: Standing) -> None:
        source = standing.deployment or standing.confirmation
        key = (source, f"{bool(standing.confirmation)} {standing.changes}")
        if standing.changes and self._understood.get(node.id) == key and await self._is_going(node, source):
            return
        ask = self._server.client.confirmation if standing.confirmation else self._server.client.deployment
        body = await ask(controller, source)
        if (wrong := _wrong_with(body)) is not None:
            await self._refuse(node, source, wrong)
            self._understood[node.id] = key
            return
        try:
            await self._take(node, controller, source, body, confirm=bool(standing.confirmation))
        except LengthOrHashError as error:
            tries = self._bad_content[node.id, source] = self._bad_content.get((node.id, source), 0) + 1
            if tries < _TRIES_OF_CONTENT:
                raise
            await self._refuse(node, source, error)
        except (AssignerError, BundleError, TrustError, UnknownNodeError) as error:
            await self._refuse(node, source, error)
        self._understood[node.id] = key

    async def _take(self, node: Node, controller: str, source: str, body: ddi.DeploymentBody, *, confirm: bool) -> None:
        obtained = await self._server.obtain.release(controller, source, body)
        wish = Wish(
            obtained.release,
            requested_by=self._server.assigner,
            assigner=self._server.assigner,
            source=source,
            terms=terms_of(body),
            confirm=confirm,
        )
        made = await self._takeover.take(node.id, wish, hardware=obtained.hardware)
        await self._settle(node, source, made)

    async def _settle(self, node: Node, source: str, made: Assignment) -> None:
        """Tell at once what needs no node."""
        match made.verdict:
            case Verdict.ALREADY_RUNNING:
                words = f"{made.release.path} runs already"
                await self._conclude(node, source, ddi.Finished.SUCCESS, words)
            case Verdict.ALREADY_ENDED if made.action is not None:
                await self._repeat(made.action)
            case Verdict.ORDERED:
                _LOG.info("%s wants %s on %s", self._server.assigner, made.release.path, node.id)

    async def _refuse(self, node: Node, source: str, error: FieldrelayError) -> None:
        _LOG.warning("%s: action %s for %s is refused: %s (%s)", self._server.assigner, source, node.id, error, error.code)
        await self._conclude(node, source, ddi.Finished.FAILURE, f"{error.code}: {error}")

    async def _cancel(self, node: Node, source: str) -> None:
        before = await self._takeover.withdraw(node.id, self._server.assigner, source, f"cancelled by {self._server.assigner}")
        if before is None or before.state is ActionState.CLOSED:  # rule 4
            words = "nothing of it was begun" if before is None or before.end is None else f"it had ended: {before.end.outcome}"
            await self._conclude(node, source, ddi.Finished.SUCCESS, words, cancel=True)

    async def _check_unlinked(self, node: Node, controller: str) -> None:
        found = await self._database.look(partial(contacts.standing, node=node.id))
        if found is None or found[1] is None:  # so it is at nearly every poll
            return
        async with self._database.reading() as transaction:
            unfinished = await actions.unfinished(transaction, node.id)
        for action in unfinished:
            own = action.assigner == self._server.assigner and action.state is not ActionState.CANCELLING
            if own and not await self._server.client.is_open(controller, action.source):
                words = f"{self._server.assigner} wants it no longer"
                await self._takeover.withdraw(node.id, self._server.assigner, action.source, words)

    async def _is_going(self, node: Node, source: str) -> bool:
        """Whether there is an open action of it, or a message that ends it is on its way."""
        known = await self._takeover.known(node.id, self._server.assigner, source)
        return (known is not None and known.end is None) or await self._is_told(node.id, source)

    async def _conclude(self, node: Node, source: str, finished: ddi.Finished, words: str, *, cancel: bool = False) -> None:
        async with self._database.writing() as transaction:
            told = await outgoing.of_action(transaction, self._server.name, node.id, source)
            if not any(each.delivered is None for each in told if each.final):
                await self._server.teller.concluded(transaction, node.id, source, finished, words, cancel=cancel)

    async def _repeat(self, action: Action) -> None:
        """Rule 3."""
        if action.end is None or len(await self._ends_told(action.node, action.source)) >= _TRIES_OF_END:
            return
        if await self._is_told(action.node, action.source):
            return
        async with self._database.writing() as transaction:
            await self._server.teller.repeated(transaction, action, action.end)

    async def _is_told(self, node: str, source: str) -> bool:
        return any(each.delivered is None for each in await self._ends_told(node, source))

    async def _ends_told(self, node: str, source: str) -> list[Outgoing]:
        async with self._database.reading() as transaction:
            told = await outgoing.of_action(transaction, self._server.name, node, source)
        return [each for each in told if each.final]


def _wrong_with(body: ddi.DeploymentBody) -> FieldrelayError | None:
    """What makes a deployment unusable: of the document, so that asking again would bring the same."""
    try:
        wanted_of(body)
        artifacts_of(body)
    except (ProtocolError, BundleError) as error:
        return error
    return None
