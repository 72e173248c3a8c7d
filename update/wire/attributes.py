"""How a node says in its DDI attributes what it is and what it runs; every other attribute is the operator's own business.

    fieldrelay.hardware   board:revision
    fieldrelay.version    version of the release that runs, as signed
    fieldrelay.sha256     SHA-256 of that release's bundle
    fieldrelay.slot       name of the slot that runs
    fieldrelay.can        what it can do in a release of several devices: hold, revert, reflash; or "none"

A node that does not know one of them leaves it out: a message with one of them says all of them. They are the node's own
word: an order is aimed by them, and refused by the node itself if they are wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from update.digest import Digest, parse_digest
from update.errors import ConfigurationError, MetadataError, ProtocolError
from update.identity import Hardware

HARDWARE: Final = "fieldrelay.hardware"
VERSION: Final = "fieldrelay.version"
SHA256: Final = "fieldrelay.sha256"
SLOT: Final = "fieldrelay.slot"
CAN: Final = "fieldrelay.can"
MAX_HARDWARE_CHARACTERS = 160
MAX_VERSION_CHARACTERS = 300
MAX_SLOT_CHARACTERS = 64


class Ability(StrEnum):
    """What a node can do with a version on trial: wait for a decision, return by switching, return by writing the old image."""

    HOLD = "hold"
    REVERT = "revert"
    REFLASH = "reflash"


_NOTHING = "none"


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a node says of itself; None and empty texts where it has not said."""

    hardware: Hardware | None = None
    version: str = ""
    sha256: Digest | None = None
    slot: str = ""
    can: frozenset[Ability] | None = None

    def attributes(self) -> dict[str, str]:
        """The attributes that say this; `read_facts` is the inverse."""
        said = {
            HARDWARE: "" if self.hardware is None else str(self.hardware),
            VERSION: self.version,
            SHA256: self.sha256 or "",
            SLOT: self.slot,
            CAN: "" if self.can is None else ",".join(sorted(self.can)) or _NOTHING,
        }
        return {name: value for name, value in said.items() if value}


def read_facts(attributes: Mapping[str, str]) -> NodeFacts:
    """The facts among a node's attributes; `ProtocolError` names the one that is malformed."""
    hardware = _limited(attributes, HARDWARE, MAX_HARDWARE_CHARACTERS)
    sha256 = attributes.get(SHA256, "")
    try:
        return NodeFacts(
            hardware=Hardware.parse(hardware) if hardware else None,
            version=_limited(attributes, VERSION, MAX_VERSION_CHARACTERS),
            sha256=parse_digest(sha256) if sha256 else None,
            slot=_limited(attributes, SLOT, MAX_SLOT_CHARACTERS),
            can=_abilities(_limited(attributes, CAN, MAX_SLOT_CHARACTERS)),
        )
    except (ConfigurationError, MetadataError) as error:
        raise ProtocolError(f"an attribute of the node is malformed: {error}") from error


def without_facts(attributes: Mapping[str, str]) -> dict[str, str]:
    """The attributes that are the operator's own business."""
    return {name: value for name, value in attributes.items() if name not in {HARDWARE, VERSION, SHA256, SLOT, CAN}}


def _abilities(text: str) -> frozenset[Ability] | None:
    """None where nothing was said; a word of a later release is passed over."""
    known = {each.value: each for each in Ability}
    return frozenset(known[word] for word in text.split(",") if word in known) if text else None


def _limited(attributes: Mapping[str, str], name: str, limit: int) -> str:
    value = attributes.get(name, "")
    if len(value) > limit:
        raise ProtocolError(f"the attribute {name} has {len(value)} characters; at most {limit} are taken")
    return value
