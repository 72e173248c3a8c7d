"""What goes with bundles that no metadata lists, built together: their forms, their signed URLs, and where their bodies are."""

from dataclasses import dataclass

from gateway.database.engine import Database
from gateway.fleet.unlisted import Unlisted
from gateway.north.adoption import Adoption, Urls
from gateway.north.hawkbit.bodies import HawkbitBodies
from gateway.north.joined import JoinedPairs
from gateway.north.joining import Joining
from gateway.north.vouched import Prove
from update.store.journal import Journal
from update.store.store import Store


@dataclass(frozen=True, slots=True)
class UnlistedBundles:
    """The parts; `bodies` is one more place of the relay."""

    forms: Unlisted
    adoption: Adoption
    joining: Joining
    bodies: HawkbitBodies

    async def run(self) -> None:
        """Follow what open actions want, for ever."""
        try:
            await self.adoption.run()
        finally:
            await self.bodies.close()


def make_unlisted(
    database: Database, store: Store, prove: Prove, urls: Urls, journal: Journal | None = None, *, expecting: bool = False
) -> UnlistedBundles:
    """All parts on one store; `urls` serves what is adopted.

    `journal` keeps what was joined; `expecting`: there are servers that will tell where bodies are.
    """
    forms = Unlisted()
    joining = Joining(store, prove, forms, JoinedPairs(journal))
    adoption = Adoption(database, store, prove, urls, forms)
    return UnlistedBundles(forms, adoption, joining, HawkbitBodies(expecting=expecting))
