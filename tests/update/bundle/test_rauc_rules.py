"""Would a RAUC node take the bundle? The answers of its own rules."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.rauc import COMPATIBLE, manifest, payload
from update.bundle.rauc_layout import RaucFormat
from update.bundle.rauc_manifest import RaucManifest, parse_manifest
from update.bundle.rauc_rules import RaucNode, compare_semantic, hardware_ids, judge_rauc
from update.errors import DescriptionError, HardwareError, RollbackError, UnsupportedError
from update.identity import Hardware

NODE = RaucNode(COMPATIBLE)
DIGEST = "ab" * 32


def images(*names: str) -> RaucManifest:
    groups = [f"[image.{name}]\nfilename={name.replace('/', '-')}\nsha256={DIGEST}\n" for name in names]
    return parse_manifest(manifest(payload(3), more="".join(groups)))


def chosen(found: RaucManifest, variant: str) -> list[str]:
    return [image.filename for image in judge_rauc(found, replace(NODE, variant=variant))]


def test_the_same_compatible_is_accepted_and_any_other_text_is_not() -> None:
    assert chosen(images("rootfs"), "") == ["rootfs"]
    for other in ("Press-controller", "press-controller ", "press", ""):
        with pytest.raises(HardwareError, match="this node is"):
            judge_rauc(images("rootfs"), RaucNode(other))


def test_the_image_of_the_variant_goes_before_the_general_one() -> None:
    found = images("rootfs", "rootfs.big", "rootfs.small", "boot.big", "boot.small", "store/model")
    assert chosen(found, "big") == ["rootfs.big", "boot.big", "store-model"]
    for variant in ("", "other"):
        with pytest.raises(HardwareError, match=r"boot of the variants big, small"):
            chosen(found, variant)
    assert chosen(images("rootfs", "rootfs.big"), "other") == ["rootfs"]


def test_a_format_that_the_node_does_not_take_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="the node accepts crypt"):
        judge_rauc(images("rootfs"), replace(NODE, formats=frozenset({RaucFormat.CRYPT})))


def test_an_older_rauc_than_the_bundle_needs_is_refused_where_both_are_known() -> None:
    found = replace(images("rootfs"), min_rauc_version="1.12")
    with pytest.raises(UnsupportedError, match=r"needs RAUC 1\.12, the node has 1\.8"):
        judge_rauc(found, replace(NODE, rauc_version="1.8"))
    for version in ("", "1.12", "1.15.2"):
        assert judge_rauc(found, replace(NODE, rauc_version=version))


def test_several_signers_are_for_nodes_that_take_them() -> None:
    with pytest.raises(UnsupportedError, match="2 signers"):
        judge_rauc(images("rootfs"), NODE, signers=2)
    assert judge_rauc(images("rootfs"), replace(NODE, several_signers=True), signers=2)


@pytest.mark.parametrize(
    ("least", "accepted"), [("1.1", True), ("1.2.0", True), ("1.2.0-rc.1", True), ("1.2.1", False), ("2", False)]
)
def test_the_least_version_is_demanded(least: str, *, accepted: bool) -> None:
    node = replace(NODE, min_bundle_version=least)
    if accepted:
        assert judge_rauc(images("rootfs"), node)
    else:
        with pytest.raises(RollbackError, match=r"1\.2\.0"):
            judge_rauc(images("rootfs"), node)


def test_a_bundle_without_or_with_an_unreadable_version_is_refused_where_a_least_one_is_set() -> None:
    node = replace(NODE, min_bundle_version="1.0")
    with pytest.raises(RollbackError, match="no version"):
        judge_rauc(replace(images("rootfs"), version=""), node)
    with pytest.raises(DescriptionError, match="semantic"):
        judge_rauc(replace(images("rootfs"), version="v1.2"), node)
    assert judge_rauc(replace(images("rootfs"), version="anything"), NODE)


ORDER = [
    "0",
    "1.0.0-1.abc",
    "1.0.0-23",
    "1.0.0-123",
    "1.0.0-123.0.12",
    "1.0.0-1abc.3",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-beta",
    "1",
    "1.0.1",
    "1.2",
    "1.10",
    "10.0.0",
]


def test_versions_are_ordered_as_semver_orders_them() -> None:
    ranks = [(left, right, compare_semantic(left, right)) for left in ORDER for right in ORDER]
    assert [
        rank
        for rank in ranks
        if rank[2] != (ORDER.index(rank[0]) > ORDER.index(rank[1])) - (ORDER.index(rank[0]) < ORDER.index(rank[1]))
    ] == []
    assert compare_semantic("1.2", "1.2.0+build.7") == 0


@pytest.mark.parametrize("text", ["", "v1.2.3", "1.foo.3", "1..3", "..", "1.2.3.4", "1.2.3-", " 1", "9" * 30])
def test_what_is_no_semantic_version_is_refused(text: str) -> None:
    with pytest.raises(DescriptionError, match="semantic"):
        compare_semantic(text, "1.0.0")


@given(
    st.sampled_from(["", "a", "b", "c"]),
    st.lists(st.sampled_from(["r", "r.a", "r.b", "s", "s.a", "s.c", "t/x"]), min_size=1, unique=True),
)
def test_a_bundle_is_published_for_exactly_the_nodes_that_would_install_it(variant: str, names: list[str]) -> None:
    found, node = images(*names), replace(NODE, variant=variant)
    try:
        judge_rauc(found, node)
        accepted = True
    except HardwareError:
        accepted = False
    assert node.hardware.accepts(hardware_ids(found)) is accepted


def test_a_node_without_a_variant_has_a_revision_all_the_same() -> None:
    assert NODE.hardware == Hardware(COMPATIBLE, "-")


@pytest.mark.parametrize("compatible", ["a:b", "Größe"])
def test_a_compatible_that_hardware_ids_cannot_hold_is_refused(compatible: str) -> None:
    with pytest.raises(DescriptionError, match="name the hardware yourself"):
        hardware_ids(replace(images("rootfs"), compatible=compatible))
