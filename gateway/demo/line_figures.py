"""What the demo showed of a line of four devices that are updated as one, and what must be true of it."""

from collections.abc import Mapping
from dataclasses import dataclass

COMPLETE, REVERTED = "complete", "reverted"


@dataclass(frozen=True, slots=True)
class LineDevice:
    """A device after a release ended and its power was cut: `says` is its version by its own word, `sha256` of what it holds."""

    id: str
    driver: str
    says: str
    sha256: str


@dataclass(frozen=True, slots=True)
class LineRun:
    """One release of the line: how it ended, and `why` if not well; `order` are the steps of the plan."""

    release: str
    order: tuple[tuple[str, ...], ...]
    ending: str
    why: str
    seconds: float
    devices: tuple[LineDevice, ...]


@dataclass(frozen=True, slots=True)
class LineWish:
    """How a release shall end, with which version on each device; `blamed` must be named in the reason."""

    release: str
    ending: str
    version: str
    blamed: str = ""


def line_problems(run: LineRun, wish: LineWish, images: Mapping[tuple[str, str], str]) -> list[str]:
    """What is not as promised; `images` are digests by device and version."""
    found = []
    if (run.release, run.ending) != (wish.release, wish.ending):
        found.append(f"release {run.release} of the line ended as {run.ending}: {run.why}; expected {wish.ending}")
    if wish.blamed not in run.why:
        found.append(f"release {run.release} of the line does not blame {wish.blamed}, but says: {run.why}")
    for device in run.devices:
        wanted = images[device.id, wish.version]
        if device.sha256 != wanted:
            found.append(f"{device.id} holds {device.sha256[:16]}…, version {wish.version} is {wanted[:16]}…")
        if device.says not in {wish.version, f"{wish.version}.0"}:
            found.append(f"{device.id} says that it runs {device.says or 'nothing'}, expected {wish.version}")
    return found
