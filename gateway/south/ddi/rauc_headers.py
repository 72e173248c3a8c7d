"""What a node's RAUC says of itself in the headers of its own requests (RAUC manual, `send-headers`, 1.16).

    RAUC-System-Version   version that runs            RAUC-Variant          variant, empty where it has none
    RAUC-Boot-ID          the kernel's boot id         RAUC-Serial           serial number of the system
    RAUC-Transaction-ID   only while it installs

It reads them from the running system and not from its configuration, so they show what runs. Absent ones say nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.fleet.sightings import Sighting, Sightings
from update.errors import ProtocolError

_LIMITS: Final = {
    "RAUC-System-Version": 300,
    "RAUC-Boot-ID": 64,
    "RAUC-Serial": 128,
    "RAUC-Variant": 80,
    "RAUC-Transaction-ID": 128,
}


@dataclass(frozen=True, slots=True)
class RaucSaid:
    """What stands in the headers of one request; `transaction` is empty unless it installs."""

    sighting: Sighting
    transaction: str = ""


def read_headers(headers: Mapping[str, str]) -> RaucSaid | None:
    """What RAUC says; None where it says nothing. `ProtocolError` names the header that is malformed."""
    said = {name: _checked(name, headers[name].strip()) for name in _LIMITS if name in headers}
    if not said:
        return None
    sighting = Sighting(
        version=said.get("RAUC-System-Version", ""),
        boot_id=said.get("RAUC-Boot-ID", ""),
        serial=said.get("RAUC-Serial", ""),
        variant=said.get("RAUC-Variant"),
    )
    return RaucSaid(sighting, said.get("RAUC-Transaction-ID", ""))


class Streams:
    """Looks at who streams: thousands of requests say the same."""

    def __init__(self, sightings: Sightings) -> None:
        self._sightings = sightings

    async def note(self, node: str, action: int, headers: Mapping[str, str]) -> None:
        """Note what a RAUC that streams says. `ProtocolError`."""
        said = read_headers(headers)
        if said is not None:
            await self._sightings.seen_again(node, action, said.sighting)


def _checked(name: str, value: str) -> str:
    if len(value) > _LIMITS[name] or not value.isprintable():
        raise ProtocolError(f"{name} has at most {_LIMITS[name]} printable characters: got {value[:40]!r}")
    return value
