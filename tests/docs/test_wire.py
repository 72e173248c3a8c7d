"""The page on the wire names every resource, key and member that the code has."""

from dataclasses import fields
from pathlib import Path

from gateway.control import messages
from gateway.control.nodes import NodeControl
from gateway.north.uploads.resources import PushResources
from gateway.north.uploads.tus import Tus
from gateway.south.content import ContentServer
from gateway.south.ddi.agreement import Agreement
from gateway.south.ddi.artifacts import Artifacts
from gateway.south.ddi.resources import Ddi
from gateway.south.pairs.server import PairPatches
from update.chunks.pair import PatchForm
from update.digest import digest_of
from update.wire import attributes
from update.wire.assignment import Assignment, Commit, Lost
from update.wire.ddi import Report
from update.wire.est import CACERTS_PATH, ENROLL_PATH, REQUEST_TYPE, RESPONSE_TYPE
from update.wire.service import SERVICE_TYPE, text_record
from update.wire.tls import GATEWAY_IDENTITY

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "wire.md").read_text()


def named(*texts: str) -> list[str]:
    """What the page does not name as a word of its own."""
    return [text for text in texts if f"`{text}`" not in PAGE]


def test_every_ddi_resource_is_there() -> None:
    routes = [route for part in (Ddi, Artifacts, Agreement) for route in part.__new__(part).routes()]  # type: ignore[attr-defined]  # parts without their state
    assert len(routes) == 15
    assert named(*(f"{route.method} {route.path}" for route in routes)) == []


def test_every_content_resource_is_there() -> None:
    server = ContentServer.__new__(ContentServer)
    paths = [route.path.replace("{path:targets/.+}", "targets/{path}") for route in server.routes()]
    patches = [route.path.replace("{path:targets/.+}", "targets/{path}") for route in PairPatches.__new__(PairPatches).routes()]
    assert named(*(f"GET {path}" for path in (*paths, *patches)), *(form.media_type for form in PatchForm)) == []
    assert [route.path for route in server.stock_routes()] == ["/{path:targets/.+}"]
    assert "`GET http://NAME/targets/" in PAGE


def test_every_resource_for_pushers_is_there() -> None:
    routes = [*PushResources.__new__(PushResources).routes(), *Tus.__new__(Tus).routes()]
    assert len(routes) == 12
    assert named(*(f"{route.method} {route.path}" for route in routes)) == []


def test_first_contact_is_there() -> None:
    assert named(f"GET {CACERTS_PATH}", f"POST {ENROLL_PATH}", REQUEST_TYPE, RESPONSE_TYPE, GATEWAY_IDENTITY) == []


def test_every_chunk_metadata_and_attribute_is_there() -> None:
    some = Assignment("r", "t", digest_of(b""), 1, 0, Commit.HOLD, 600, Lost.KEEP)
    assert len(some.metadata()) == 8
    assert named(*(entry.key for entry in some.metadata()), *Commit, *Lost) == []
    assert named(attributes.HARDWARE, attributes.VERSION, attributes.SHA256, attributes.SLOT, attributes.CAN) == []
    assert len(fields(attributes.NodeFacts)) == 5


def test_every_member_of_a_report_is_there() -> None:
    assert named(*Report.model_fields) == []


def test_the_announcement_is_there() -> None:
    assert SERVICE_TYPE in PAGE
    record = text_record("gateway", path="/", fingerprint="")
    assert [key for key in record if f"`{key}`" not in PAGE and f"`{key}=" not in PAGE] == []


def test_every_operators_resource_is_there() -> None:
    gets, posts = (messages.STATUS, messages.NODES), (messages.ASSIGN, messages.TOKENS, messages.REFRESH)
    assert named(*(f"GET {path}" for path in gets), *(f"POST {path}" for path in posts)) == []
    routes = NodeControl.__new__(NodeControl).routes()
    assert named(*(f"{route.method} {route.path}" for route in routes)) == []
