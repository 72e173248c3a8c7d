"""Upstreams as they are met in the field, for `UpstreamServer`: what each makes of ranges, and how each of them fails.

Each is a function, since `Faults` may be changed while the server runs. What they do was measured (nginx, squid, varnish,
minio) or is documented (S3: "Amazon S3 doesn't support retrieving multiple ranges of data per GET request").
"""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from gateway.simulators.upstream import Faults, Several

Character = Callable[[], Faults]


def honest() -> Faults:
    """Multipart for any ranges."""
    return Faults()


def s3_like() -> Faults:
    """An object store: one range, or the whole file."""
    return Faults(several=Several.WHOLE)


def minio_like() -> Faults:
    """An object store that calls several ranges an error."""
    return Faults(several=Several.ERROR)


def cdn_like() -> Faults:
    """A proxy with a cache, as nginx: the whole file while the cache is filled, then multipart."""
    return Faults(cold_answers=1)


def squid_like() -> Faults:
    """A proxy that quotes its boundary."""
    return Faults(quoted_boundary=True)


def varnish_like() -> Faults:
    """A cache that answers several ranges with 416."""
    return Faults(several=Several.NONE)


def covering() -> Faults:
    """One range from the first byte asked for to the last."""
    return Faults(several=Several.COVER)


def first_only() -> Faults:
    """The first of several ranges."""
    return Faults(several=Several.FIRST)


def ten_ranges() -> Faults:
    """A server with a limit, as nginx with `max_ranges 10`: the whole file beyond."""
    return Faults(most_ranges=10)


def without_ranges() -> Faults:
    """Always the whole file."""
    return Faults(ignore_ranges=True)


def resetting() -> Faults:
    """Resets every connection before it answers."""
    return Faults(reset=True)


def cutting(after_bytes: int = 50_000) -> Faults:
    """Resets every connection in the middle of its answer."""
    return Faults(cut_after_bytes=after_bytes, reset=True)


def hesitant(first_byte_after_s: float = 25.0) -> Faults:
    """Lets wait for the first byte."""
    return Faults(first_byte_after_s=first_byte_after_s)


def dripping(bytes_per_s: int = 200) -> Faults:
    """Never silent for long, and never done."""
    return Faults(bytes_per_s=bytes_per_s)


def misplacing() -> Faults:
    """Its Content-Range names another place than the bytes are from."""
    return Faults(place_off_by=1)


def announcing_too_much() -> Faults:
    """Its Content-Length is more than it sends."""
    return Faults(length_off_by=1000)


def announcing_too_little() -> Faults:
    """Its Content-Length is less than it sends."""
    return Faults(length_off_by=-1)


def corrupt() -> Faults:
    """One wrong byte in each range."""
    return Faults(flip_byte=True)


def gone() -> Faults:
    """Has nothing any more."""
    return Faults(status=HTTPStatus.GONE)


def overloaded() -> Faults:
    """Always busy."""
    return Faults(status=HTTPStatus.SERVICE_UNAVAILABLE)


LIMITED: Final[Mapping[str, Character]] = MappingProxyType(
    {
        "honest": honest,
        "s3": s3_like,
        "minio": minio_like,
        "cdn": cdn_like,
        "squid": squid_like,
        "varnish": varnish_like,
        "covering": covering,
        "first-only": first_only,
        "ten-ranges": ten_ranges,
        "without-ranges": without_ranges,
    }
)
"""Those from whom everything can be had."""

FAILING: Final[Mapping[str, Character]] = MappingProxyType(
    {
        "resetting": resetting,
        "hesitant": hesitant,
        "dripping": dripping,
        "misplacing": misplacing,
        "corrupt": corrupt,
        "gone": gone,
        "overloaded": overloaded,
    }
)
"""Those from whom nothing, or nothing right, can be had in time."""

TORN: Final[Mapping[str, Character]] = MappingProxyType(
    {"cutting": cutting, "announcing-too-much": announcing_too_much, "announcing-too-little": announcing_too_little}
)
"""Those from whom it can be had in pieces, or not."""
