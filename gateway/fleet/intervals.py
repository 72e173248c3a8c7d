"""How often each node shall ask: the site's usual interval, or that of the first pattern that its name fits."""

from collections.abc import Iterable
from fnmatch import fnmatchcase


class Intervals:
    """`patterns` are shell patterns of node names with seconds; the first that fits counts."""

    def __init__(self, usual_s: int, patterns: Iterable[tuple[str, int]] = ()) -> None:
        self._usual_s = usual_s
        self._patterns = tuple(patterns)

    def of(self, node: str) -> int:
        """The interval of a node, in seconds."""
        return next((seconds for pattern, seconds in self._patterns if fnmatchcase(node, pattern)), self._usual_s)
