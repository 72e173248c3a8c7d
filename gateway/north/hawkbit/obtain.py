"""What a deployment wants, obtained once, for however many targets it is meant: it is known by its SHA-256 beforehand.

Two bundles are obtained both, and joined (`north.joining`). Where the release, or one form of it, is a delta that no metadata
lists, the other artifacts of the deployment may be what it fetches from (`bodies`); whether they are is found out before a node
hears of it, as far as that can be known soon.
"""

import asyncio

from gateway.north.hawkbit.bodies import HawkbitBodies
from gateway.north.hawkbit.client import HawkbitClient
from gateway.north.hawkbit.meaning import Wanted, artifacts_of, wanted_of
from gateway.north.joining import Joining
from gateway.north.vouched import Obtained, Vouched
from gateway.single_flight import SingleFlight
from update.digest import Digest
from update.wire import ddi


class Obtain:
    """Obtains the bundles of one server."""

    def __init__(self, client: HawkbitClient, vouched: Vouched, joining: Joining, bodies: HawkbitBodies) -> None:
        self._client = client
        self._vouched = vouched
        self._joining = joining
        self._bodies = bodies
        self._flights: SingleFlight[Digest, Obtained] = SingleFlight()

    async def release(self, controller: str, action: str, body: ddi.DeploymentBody) -> Obtained:
        """Have what a deployment wants.

        Errors: those of `bundle`; `UnsupportedError` and `ProtocolError` for a deployment of no such form.
        """
        found = [await self.bundle(controller, wanted) for wanted in wanted_of(body)]
        obtained = found[0] if len(found) == 1 else await self._joining.join(found)
        fetched_from = [each for bundle in found for each in bundle.bodies]
        self._bodies.note(self._client, controller, action, fetched_from, artifacts_of(body))
        for each in fetched_from:
            await self._bodies.look_for(each.header)
        return obtained

    async def bundle(self, controller: str, wanted: Wanted) -> Obtained:
        """Have it. Errors: `TrustError`, `BundleError` for what is refused for good; `WireError`, `StoreError` for now."""
        if (found := self._vouched.listed(wanted.sha256, wanted.length)) is not None:
            return found[1]
        return await self._flights.share(wanted.sha256, lambda: self._obtain(controller, wanted))

    async def close(self) -> None:
        """End what is under way; what came stays for the next time."""
        await self._flights.close()

    async def _obtain(self, controller: str, wanted: Wanted) -> Obtained:
        info = self._vouched.info(wanted.name, wanted.sha256, wanted.length, wanted.version)
        if (kept := await self._vouched.kept(info)) is not None:
            return kept
        room = self._vouched.room
        await room.admit(info)
        with await asyncio.to_thread(room.store.stage, info) as staged:
            await self._client.download(controller, wanted.href, staged, length=info.length)
        return await self._vouched.keep(info, staged)
