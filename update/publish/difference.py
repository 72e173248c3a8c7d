"""What would travel to a device that runs one release and is given another: a pure function of chunk indexes.

Deltas are matched image by image, by name, as a node does: chunks it runs are not fetched, zeros are written, chunks that
occur again are fetched once. An image that the older release does not have, or has not as a delta, travels as a whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from update.chunks.plan import Source, plan_delta
from update.chunks.zchunk import HeaderIndex


@dataclass(frozen=True, slots=True)
class Travel:
    """One image. Sizes in bytes, compressed; `total_bytes` is the `.zck` without its header."""

    image: str
    chunks: int
    total_chunks: int
    fetch_bytes: int
    total_bytes: int
    header_bytes: int
    ranges: int

    @property
    def share(self) -> float:
        """The part of the body that travels, 0 to 1."""
        return self.fetch_bytes / self.total_bytes if self.total_bytes else 0.0


def diff_headers(image: str, old: HeaderIndex | None, new: HeaderIndex) -> Travel:
    """What of `new` travels to a device that holds `old`; `UnsupportedError` for headers that deltas cannot use."""
    plan = plan_delta(new, Source.of_index(old) if old else Source())
    return Travel(
        image=image,
        chunks=plan.fetch_chunks,
        total_chunks=len(new),
        fetch_bytes=plan.fetch_bytes,
        total_bytes=new.total_length - len(new.raw),
        header_bytes=len(new.raw),
        ranges=len(plan.ranges),
    )


def diff_bundles(old: Mapping[str, HeaderIndex], new: Mapping[str, HeaderIndex]) -> tuple[Travel, ...]:
    """What travels, for every image of `new`; the mappings are from image names to headers."""
    return tuple(diff_headers(name, old.get(name), header) for name, header in new.items())
