"""The bundle of a deployment, obtained once, for however many targets it is meant: it is known by its SHA-256 beforehand."""

import asyncio

from gateway.north.hawkbit.client import HawkbitClient
from gateway.north.hawkbit.meaning import Wanted
from gateway.north.vouched import Obtained, Vouched
from gateway.single_flight import SingleFlight
from update.digest import Digest


class Obtain:
    """Obtains the bundles of one server."""

    def __init__(self, client: HawkbitClient, vouched: Vouched) -> None:
        self._client = client
        self._vouched = vouched
        self._flights: SingleFlight[Digest, Obtained] = SingleFlight()

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
