"""Where the relay gets chunks from: upstreams, and older files on this disk."""

from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Final, Protocol

from update.chunks.ranges import Range
from update.errors import BundleError, FieldrelayError, SlowError, TrustError, UnreachableError, WireError
from update.wire.ranged import Spare

UPSTREAM_FAULTS: Final = (WireError, TrustError, BundleError)
"""Gone, slow, or not what was signed: the next upstream may do better."""


class RangeSource(Protocol):
    """One upstream of one file."""

    @property
    def name(self) -> str:
        """For logs."""
        ...

    @property
    def ranged(self) -> bool:
        """Whether it is known to send a range when it is asked for one."""
        ...

    def read_ranges(self, ranges: Sequence[Range], spare: Spare | None = None) -> AsyncGenerator[tuple[int, bytes], None]:
        """Yield (offset, bytes) covering `ranges`, in any order of ranges, each range from its start. Errors: `WireError`.

        `spare` gets what comes besides.
        """
        ...

    def failed(self) -> None:
        """It did not do what it should: others are to be asked before it for a while."""
        ...


class Seeds(Protocol):
    """Older files that may hold some chunks of one file; used in threads."""

    def find(self, numbers: Iterable[int]) -> list[int]:
        """Those of `numbers` that may be at hand."""
        ...

    def read(self, numbers: Iterable[int]) -> list[tuple[int, bytes]]:
        """(number, stored bytes) of what could be read, not compared with anything yet."""
        ...


def unavailable(what: str, trouble: FieldrelayError) -> WireError:
    """What a node is told: our upstream's failures are neither its own, nor a refusal of it."""
    kind = SlowError if isinstance(trouble, SlowError) else UnreachableError
    return kind(f"no upstream could send {what}: {trouble} ({trouble.code})")
