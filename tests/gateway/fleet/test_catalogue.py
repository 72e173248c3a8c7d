from dataclasses import replace

import pytest

from gateway.fleet.catalogue import find_release, for_hardware, siblings
from tests.builders.fleet import Shelf, bundle
from update.errors import AmbiguousError, HardwareError, UnknownTargetError
from update.identity import Hardware
from update.trust.verified import TargetInfo


def test_a_version_means_all_bundles_of_that_version(shelf: Shelf) -> None:
    assert {target.custom.hw_ids for target in find_release(shelf, "1.2")} == {("board:1",), ("other:#RE:^[12]$",)}


def test_a_path_means_one_target_even_where_a_version_is_called_the_same(shelf: Shelf) -> None:
    shelf.content["plant"].append(bundle("os/board1-1.1.swu", "board:1", path="os/decoy.swu"))
    assert [target.path for target in find_release(shelf, "os/board1-1.1.swu")] == ["os/board1-1.1.swu"]


def test_parts_of_bundles_cannot_be_ordered(shelf: Shelf) -> None:
    shelf.content["plant"].append(bundle("9", "board:1", path="images/rootfs.zck"))
    for release in ("9", "images/rootfs.zck"):
        with pytest.raises(UnknownTargetError, match=r"versions known: 1\.1, 1\.2"):
            find_release(shelf, release)


def test_known_versions_are_listed_from_the_oldest_to_the_newest(shelf: Shelf) -> None:
    shelf.content["plant"] = [bundle(version, "board:1") for version in ("1.10", "1.9", "1.9-rc.1", "1.2")]
    with pytest.raises(UnknownTargetError, match=r"versions known: 1\.2, 1\.9-rc\.1, 1\.9, 1\.10"):
        find_release(shelf, "3")


def test_only_the_named_repository_is_searched(shelf: Shelf) -> None:
    shelf.content["vendor"] = [bundle("1.2", "board:1", repository="vendor")]
    assert {target.repository for target in find_release(shelf, "1.2")} == {"plant", "vendor"}
    assert {target.repository for target in find_release(shelf, "1.2", "vendor")} == {"vendor"}
    with pytest.raises(UnknownTargetError, match="configured: plant, vendor"):
        find_release(shelf, "1.2", "elsewhere")


@pytest.mark.parametrize(("hardware", "board"), [("board:1", "board:1"), ("other:2", "other:#RE:^[12]$")])
def test_each_hardware_gets_its_own_bundle(shelf: Shelf, hardware: str, board: str) -> None:
    assert for_hardware(find_release(shelf, "1.2"), Hardware.parse(hardware), "n1").custom.hw_ids == (board,)


@pytest.mark.parametrize("hardware", ["board:2", "other:3", "third:1"])
def test_a_release_for_other_hardware_is_refused_by_name(shelf: Shelf, hardware: str) -> None:
    with pytest.raises(HardwareError, match=rf"node n1 is {hardware}; the release is for board:1, other"):
        for_hardware(find_release(shelf, "1.2"), Hardware.parse(hardware), "n1")


def test_a_node_of_unknown_hardware_gets_nothing(shelf: Shelf) -> None:
    with pytest.raises(HardwareError, match="has not said"):
        for_hardware(find_release(shelf, "1.2"), None, "n1")


def test_a_bundle_that_names_no_hardware_is_for_none() -> None:
    with pytest.raises(HardwareError, match="no hardware at all"):
        for_hardware([bundle("1")], Hardware.parse("board:1"), "n1")


def test_two_bundles_for_one_hardware_must_be_told_apart(shelf: Shelf) -> None:
    shelf.content["vendor"] = [bundle("1.2", "board:1", repository="vendor")]
    with pytest.raises(AmbiguousError, match=r"plant/os/board1-1\.2\.swu, vendor/os/board1-1\.2\.swu"):
        for_hardware(find_release(shelf, "1.2"), Hardware.parse("board:1"), "n1")


def delta_of(path: str, **changes: object) -> TargetInfo:
    made = bundle("1.2", "board:1", path="os/delta.swu")
    return replace(made, custom=replace(made.custom, delta_of=path, **changes))  # type: ignore[arg-type]  # keys of the class


def test_a_delta_is_ordered_where_it_stands_for_the_whole() -> None:
    whole, delta = bundle("1.2", "board:1"), delta_of("os/board1-1.2.swu")
    assert for_hardware([whole, delta], Hardware.parse("board:1"), "n1") == delta
    assert siblings(whole, [whole, delta]) == siblings(delta, [whole, delta]) == (whole, delta)
    assert siblings(delta, [delta]) == (delta,)


@pytest.mark.parametrize(
    "unlike",
    [
        delta_of("os/other.swu"),
        delta_of(""),
        delta_of("os/board1-1.2.swu", release_counter=1),
        delta_of("os/board1-1.2.swu", security_counter=1),
        delta_of("os/board1-1.2.swu", hw_ids=("board:1", "board:2")),
        replace(delta_of("os/board1-1.2.swu"), repository="other"),
    ],
)
def test_what_differs_in_more_than_its_form_is_another_release(unlike: TargetInfo) -> None:
    whole = bundle("1.2", "board:1")
    with pytest.raises(AmbiguousError):
        for_hardware([whole, unlike], Hardware.parse("board:1"), "n1")
    assert siblings(whole, [whole, unlike]) == (whole,)


def test_a_release_is_never_meant_by_the_bundle_that_leads_from_a_certain_base() -> None:
    whole = bundle("1.2", "board:1")
    rdiff = delta_of(whole.path, delta_from=whole.sha256)
    chunks = replace(delta_of(whole.path), path="os/zz.swu")
    for offered, meant in (((rdiff, whole), whole), ((rdiff, whole, chunks), chunks), ((rdiff,), rdiff)):
        assert for_hardware(offered, Hardware("board", "1"), "n1") == meant
