"""What all assigners elsewhere work with: this gateway's database, its line to them, its store, and what it can prove."""

from dataclasses import dataclass

import aiohttp

from gateway.database.engine import Database
from gateway.fleet.catalogue import Catalogue
from gateway.north.room import Room
from gateway.north.unlisted import UnlistedBundles
from gateway.north.vouched import Prove, Vouched
from update.trust.verified import TargetInfo
from update.wire.line import Line


@dataclass(frozen=True, slots=True)
class Common:
    """What all servers share."""

    database: Database
    session: aiohttp.ClientSession
    room: Room
    line: Line
    catalogue: Catalogue
    prove: Prove
    unlisted: UnlistedBundles

    def vouched(self, repository: str) -> Vouched:
        """Bundles for which `repository` vouches where no metadata does."""
        adoption = self.unlisted.adoption
        return Vouched(self.room, repository=repository, listed=self._listed, prove=self.prove, adoption=adoption)

    def _listed(self) -> list[TargetInfo]:
        return [info for name in self.catalogue.repositories() for info in self.catalogue.targets(name)]
