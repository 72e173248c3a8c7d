"""Bundles that no metadata lists: in which forms one release has come, as far as this process has proved it.

Where metadata lists bundles, it says which of them bring the same release (`catalogue.siblings`). For a bundle that only its own
signature proves nobody does; whoever brings two of them joins them here once they were found alike (`update.bundle.alike`).
Wanted is the whole one then: it can always be completed, and it is what is offered while nothing is known here, such as
after a start with the assigner away.
"""

from collections import OrderedDict
from typing import Final, TypeVar

from gateway.database.records import Release
from update.digest import Digest
from update.trust.verified import TargetCustom, TargetInfo

MAX_RELEASES: Final = 1024
_Value = TypeVar("_Value")


class Unlisted:
    """What is known of such bundles, by their content; the `MAX_RELEASES` that were told of last."""

    def __init__(self) -> None:
        self._is_delta: OrderedDict[Digest, bool] = OrderedDict()
        self._joined: OrderedDict[Digest, tuple[Release, Release]] = OrderedDict()

    def note(self, sha256: Digest, *, is_delta: bool) -> None:
        """A bundle was proved: whether it fetches by chunks is known now."""
        _put(self._is_delta, sha256, is_delta)

    def join(self, whole: Release, delta: Release) -> None:
        """Both install the same."""
        for each in (whole, delta):
            _put(self._joined, each.sha256, (whole, delta))

    def pairs(self) -> tuple[tuple[Release, Release], ...]:
        """Everything that was joined, each once: the whole bundle and the delta; the last one last."""
        return tuple(dict.fromkeys(self._joined.values()))

    def forms(self, release: Release) -> tuple[Release, ...]:
        """All bundles that install what `release` does, itself first."""
        others = (each for each in self.joined(release.sha256) if each.sha256 != release.sha256)
        return (release, *others)

    def joined(self, sha256: Digest) -> tuple[Release, ...]:
        """The two bundles, one of which has this content; nothing where it was joined with none."""
        return self._joined.get(sha256, ())

    def is_whole(self, release: Release) -> bool:
        """Whether a bundle is known to be whole, and to have come in no other form."""
        return self._is_delta.get(release.sha256) is False and release.sha256 not in self._joined


def unlisted_info(release: Release) -> TargetInfo:
    """The content of a release that no metadata describes."""
    return TargetInfo(release.repository, release.path, release.length, release.sha256, TargetCustom(), "")


def _put(kept: OrderedDict[Digest, _Value], key: Digest, value: _Value) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > MAX_RELEASES:
        kept.popitem(last=False)
