"""What a hawkBit server is told of a node: what the node says of itself, and by whom it is served.

hawkBit keeps 100 attributes of a target, with keys of 128 characters and values of 128 (`ControllerAttributes`): what does not
fit is left out, the node's own words first.
"""

from collections.abc import Mapping
from typing import Final

from gateway.database.records import Node
from update.digest import Digest, digest_of

GATEWAY: Final = "fieldrelay.gateway"
CLIENT: Final = "fieldrelay.client"
MOST: Final = 100
LONGEST_KEY: Final = 128
LONGEST_VALUE: Final = 128


def attributes_of(node: Node, gateway: str) -> dict[str, str]:
    """The attributes of a node's target."""
    ours = {
        GATEWAY: gateway,
        CLIENT: node.kind.value,
        "fieldrelay.hardware": "" if node.hardware is None else str(node.hardware),
        "fieldrelay.version": node.running.version,
        "fieldrelay.slot": node.running.slot,
    }
    return _fitting({**node.attributes, **{name: value for name, value in ours.items() if value}}, first=ours)


def attributes_of_gateway(gateway: str, version: str, nodes: int) -> dict[str, str]:
    """The attributes of the gateway's own target."""
    return {GATEWAY: gateway, CLIENT: "gateway", "fieldrelay.version": version, "fieldrelay.nodes": str(nodes)}


def fingerprint(attributes: Mapping[str, str]) -> Digest:
    """What tells whether the server knows them already."""
    return digest_of("\n".join(f"{name}={attributes[name]}" for name in sorted(attributes)).encode())


def _fitting(attributes: Mapping[str, str], first: Mapping[str, str]) -> dict[str, str]:
    ordered = sorted(attributes.items(), key=lambda item: (item[0] not in first, item[0]))
    short = ((name, value[:LONGEST_VALUE]) for name, value in ordered if 0 < len(name) <= LONGEST_KEY)
    return dict(list(short)[:MOST])
