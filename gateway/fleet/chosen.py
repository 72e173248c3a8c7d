"""What single orders say of fetching beforehand, where that is otherwise than their repository's configuration says.

It is kept for the bundle that was ordered, whoever else has an order of it, and forgotten with the next choice after its
last order has ended.
"""

from collections.abc import Collection, Mapping

from gateway.config import PrefetchMode
from gateway.database.engine import Database, Transaction
from gateway.database.queries import settings
from gateway.database.queries.orders import open_orders
from update.digest import Digest, parse_digest

_KEY = "prefetch"


class ChosenModes:
    """Takes the choices."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def choose(self, bundles: Collection[Digest], mode: PrefetchMode) -> None:
        """From now on the images of `bundles` are fetched so."""
        async with self._database.writing() as transaction:
            ordered = {order.sha256 for order in await open_orders(transaction)}
            before = {bundle: kept for bundle, kept in (await chosen_modes(transaction)).items() if bundle in ordered}
            after = before | dict.fromkeys(ordered.intersection(bundles), mode)
            await settings.put(transaction, _KEY, {str(bundle): str(kept) for bundle, kept in after.items()})


async def chosen_modes(transaction: Transaction) -> Mapping[Digest, PrefetchMode]:
    """The choices, by bundle."""
    kept = await settings.find(transaction, _KEY)
    return {parse_digest(bundle): PrefetchMode(mode) for bundle, mode in kept.items()} if isinstance(kept, dict) else {}
