"""Quantities in words for people, in the same words wherever they are shown."""

from datetime import timedelta


def size(count: int) -> str:
    """A byte count for people: `2.3 MB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable: the last unit returns")


def duration(span: timedelta) -> str:
    """The two largest units of a time span: `2 d 3 h`, `4 min 5 s`."""
    left = max(0, int(span.total_seconds()))
    parts: list[tuple[int, str]] = []
    for seconds, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, seconds)
        parts.append((count, unit))
    first = next((number for number, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2])


def share(done: int, total: int) -> str:
    """How much of `total` (above 0) is done: `42 %`, and 100 % only for all of it."""
    return f"{max(0, min(100 * done // total, 100))} %"
