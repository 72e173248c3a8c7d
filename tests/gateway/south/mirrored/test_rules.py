from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sections.routes import RouteKind
from gateway.south.mirrored.rules import CHANGING, Check, Proof, Rule, plain_path, quoted, rule_of
from update.errors import NotFoundError, ProtocolError

HEX = "0123456789abcdef" * 4
LASTING = Rule(lasting=True)


@pytest.mark.parametrize(
    ("kind", "path", "rule"),
    [
        (RouteKind.OSTREE, f"objects/{HEX[:2]}/{HEX[2:]}.commit", Rule(lasting=True, proof=Proof(Check.SHA256, HEX))),
        (RouteKind.OSTREE, f"objects/{HEX[:2]}/{HEX[2:]}.filez", Rule(lasting=True, proof=Proof(Check.OSTREE_FILE, HEX))),
        (RouteKind.OSTREE, f"objects/{HEX[:2]}/{HEX[2:]}.commitmeta", CHANGING),
        (RouteKind.OSTREE, "refs/heads/plant/main", CHANGING),
        (RouteKind.OSTREE, "summary.sig", CHANGING),
        (RouteKind.OSTREE, "deltas/ab/cdef/superblock", CHANGING),
        (
            RouteKind.CASYNC,
            f"images/default.castr/{HEX[:4]}/{HEX}.cacnk",
            Rule(lasting=True, proof=Proof(Check.CASYNC_CHUNK, HEX)),
        ),
        (RouteKind.CASYNC, "images/rootfs.caibx", CHANGING),
        (RouteKind.OCI, f"plant/app/blobs/sha256:{HEX}", Rule(lasting=True, proof=Proof(Check.SHA256, HEX))),
        (RouteKind.OCI, f"app/manifests/sha512:{HEX}{HEX}", Rule(lasting=True, proof=Proof(Check.SHA512, HEX + HEX))),
        (RouteKind.OCI, "plant/app/manifests/latest", CHANGING),
        (RouteKind.OCI, "plant/app/tags/list", CHANGING),
        (RouteKind.MENDER, "releases/app-1.mender", LASTING),
        (RouteKind.MENDER, "releases/latest.json", CHANGING),
        (RouteKind.IMMUTABLE, "any/thing", LASTING),
    ],
)
def test_a_name_has_the_rule_of_its_kind(kind: RouteKind, path: str, rule: Rule) -> None:
    assert rule_of(kind, path, ["*.mender"]) == rule


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (RouteKind.OSTREE, "etc/passwd"),
        (RouteKind.OSTREE, f"objects/{HEX[:2]}/{HEX[2:]}.file"),
        (RouteKind.OSTREE, f"objects/{HEX[:2]}/{HEX[2:].upper()}.commit"),
        (RouteKind.CASYNC, f"default.castr/ffff/{HEX}.cacnk"),
        (RouteKind.CASYNC, f"default.castr/{HEX[:4]}/{HEX}.part"),
        (RouteKind.OCI, "app/blobs/uploads"),
        (RouteKind.OCI, "app/blobs/sha256:short"),
        (RouteKind.OCI, "_catalog"),
        (RouteKind.OCI, f"App/blobs/sha256:{HEX}"),
    ],
)
def test_what_is_no_part_of_the_layout_is_refused(kind: RouteKind, path: str) -> None:
    with pytest.raises(NotFoundError):
        rule_of(kind, path)


@pytest.mark.parametrize("raw", ["", "/x", "x/", "a//b", "../x", "a/%2e%2e/b", "a%2f..%2fb", "a%5cb", "a%00b", "%ff", "a" * 1025])
def test_a_path_that_is_not_plain_is_refused(raw: str) -> None:
    with pytest.raises(ProtocolError):
        plain_path(raw)


@given(st.text(max_size=60))
def test_a_plain_path_survives_the_way_through_a_url(raw: str) -> None:
    try:
        path = plain_path(quote(raw, safe="/"))
    except ProtocolError:
        return
    assert plain_path(quoted(path)) == path == raw
    assert not {"", ".", ".."} & set(path.split("/"))


@given(st.text(max_size=80), st.sampled_from(RouteKind))
def test_any_text_is_judged_or_refused_by_name(path: str, kind: RouteKind) -> None:
    try:
        rule = rule_of(kind, path)
    except NotFoundError:
        return
    assert rule.proof is None or rule.lasting
