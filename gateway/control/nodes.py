"""The operator's commands about single nodes: who assigns, what speaks, what is accepted, tokens, cancelling, agreeing."""

from typing import Protocol

from aiohttp import web

from gateway.control import node_messages as messages
from gateway.control.peer import peer_of
from gateway.database.records import Action, ClientKind, Node
from gateway.edge import answer, read_message
from update.errors import NotFoundError
from update.trust.verified import Provenance


class _Ownership(Protocol):
    async def hand_over(self, node: str, assigner: str, reason: str) -> Node: ...
    async def set_kind(self, node: str, kind: ClientKind) -> Node: ...
    async def set_accepts(self, node: str, provenance: Provenance) -> Node: ...
    async def cancel(self, node: str, reason: str) -> tuple[Action, ...]: ...


class _Accounts(Protocol):
    async def give_token(self, node: str, kind: ClientKind) -> str: ...
    async def take_token(self, node: str) -> None: ...


class _Confirmations(Protocol):
    async def standing(self, node: str) -> tuple[Node, Action | None]: ...
    async def answer(self, node: str, action: int, *, confirmed: bool, details: tuple[str, ...]) -> None: ...
    async def agree_beforehand(self, node: str, initiator: str, remark: str) -> None: ...
    async def ask_again(self, node: str) -> None: ...


class NodeControl:
    """What people decide about a node."""

    def __init__(self, ownership: _Ownership, accounts: _Accounts, confirmations: _Confirmations) -> None:
        self._ownership = ownership
        self._accounts = accounts
        self._confirmations = confirmations

    def routes(self) -> list[web.RouteDef]:
        """Each command at its path."""
        return [
            web.patch(messages.SETTINGS, self._set),
            web.post(messages.ACCOUNT, self._give_token),
            web.delete(messages.ACCOUNT, self._take_token),
            web.post(messages.CANCEL, self._cancel),
            web.post(messages.CONFIRM, self._confirm),
        ]

    async def _set(self, request: web.Request) -> web.Response:
        name, wanted = request.match_info["name"], await read_message(request, messages.SETTINGS_REQUEST)
        if wanted.assigner is not None:
            await self._ownership.hand_over(name, wanted.assigner, _who(request, wanted.reason))
        if wanted.client is not None:
            await self._ownership.set_kind(name, wanted.client)
        if wanted.accepts is not None:
            await self._ownership.set_accepts(name, wanted.accepts)
        node, _ = await self._confirmations.standing(name)
        settings = messages.NodeSettings(node=node.id, assigner=node.assigner, client=node.kind, accepts=node.accepts)
        return answer(messages.SETTINGS_REPLY, settings)

    async def _give_token(self, request: web.Request) -> web.Response:
        name, wanted = request.match_info["name"], await read_message(request, messages.ACCOUNT_REQUEST)
        token = await self._accounts.give_token(name, wanted.client)
        return answer(messages.ACCOUNT_REPLY, messages.AccountReply(node=name, token=token))

    async def _take_token(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        await self._accounts.take_token(name)
        return answer(messages.ACCOUNT_REPLY, messages.AccountReply(node=name, token=""))

    async def _cancel(self, request: web.Request) -> web.Response:
        name, wanted = request.match_info["name"], await read_message(request, messages.CANCEL_REQUEST)
        ended = await self._ownership.cancel(name, f"cancelled by {_who(request, wanted.reason)}")
        return answer(messages.CANCEL_REPLY, messages.CancelReply(node=name, actions=tuple(each.id for each in ended)))

    async def _confirm(self, request: web.Request) -> web.Response:
        name, wanted = request.match_info["name"], await read_message(request, messages.CONFIRM_REQUEST)
        _, waiting = await self._confirmations.standing(name)
        number = wanted.action or (0 if waiting is None else waiting.id)
        if wanted.beforehand is True:
            await self._confirmations.agree_beforehand(name, _who(request, ""), wanted.reason)
        elif wanted.beforehand is False:
            await self._confirmations.ask_again(name)
        elif number:
            details = (_who(request, wanted.reason),)
            await self._confirmations.answer(name, number, confirmed=wanted.confirmed, details=details)
        else:
            raise NotFoundError(f"nothing waits to be confirmed on node {name}")
        node, _ = await self._confirmations.standing(name)
        done = messages.ConfirmReply(node=name, action=number, beforehand=node.auto_confirm is not None)
        return answer(messages.CONFIRM_REPLY, done)


def _who(request: web.Request, reason: str) -> str:
    return f"uid {peer_of(request).uid}: {reason}".removesuffix(": ")
