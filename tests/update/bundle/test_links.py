"""Links lead where the real swupdate follows them; rings, dead ends and lists that multiply are refused."""

import json

import pytest

from tests.builders.bundles import DEMO, image
from update.bundle.description import parse
from update.errors import DescriptionError, LimitError

DATA = b"image"


def software(**groups: object) -> bytes:
    return json.dumps({"software": {"version": "1", "hardware-compatibility": ["1.0"], **groups}}).encode()


@pytest.mark.parametrize("link", ["#./../common", "#../common", "#software/common", "#/software/common", "#./m/../../common"])
def test_links_may_be_relative_or_from_the_root(link: str) -> None:
    data = software(s={"m": {"ref": link}}, common={"images": [image("img", DATA)]})
    assert parse(data).select(DEMO, "s", "m").images[0].filename == "img"


def test_only_the_end_of_a_path_that_is_looked_up_may_be_a_link() -> None:
    data = software(s={"ref": "#./common"}, common={"m": {"images": [image("img", DATA)]}})
    with pytest.raises(DescriptionError):
        parse(data).select(DEMO, "s", "m")


def test_a_linked_list_is_inserted_where_the_link_stands() -> None:
    entries = [image("a", DATA), {"ref": "#./shared"}, image("c", DATA)]
    selection = parse(software(images=entries, shared=[image("b", DATA)])).select(DEMO)
    assert [each.filename for each in selection.images] == ["a", "b", "c"]


def test_a_section_itself_and_the_version_may_be_links() -> None:
    data = software(version={"ref": "#./number"}, number="7", images={"ref": "#./shared"}, shared=[image("b", DATA)])
    description = parse(data)
    assert description.version == "7"
    assert description.select(DEMO).images[0].filename == "b"


@pytest.mark.parametrize(
    "groups",
    [
        {"images": {"ref": "#./images"}},
        {"images": {"ref": "#./other"}, "other": {"ref": "#./images"}},
        {"images": {"ref": "#./nowhere"}},
        {"images": [{"ref": "#./nowhere"}]},
        {"images": {"ref": "#../../../x"}},
        {"images": {"ref": "file"}},
        {"images": {"ref": 7}},
        {"images": {"ref": "#" + "/a" * 50}},
    ],
)
def test_a_link_that_leads_nowhere_or_in_a_ring_is_refused(groups: dict[str, object]) -> None:
    with pytest.raises(DescriptionError):
        parse(software(**groups))


@pytest.mark.parametrize(
    "groups",
    [
        {"images": [{"ref": "#./images"}]},
        {f"l{level}" if level else "images": [{"ref": f"#./l{level + 1}"}] * 40 for level in range(7)} | {"l7": []},
    ],
    ids=["a list that holds itself", "lists that multiply"],
)
def test_links_that_multiply_are_refused(groups: dict[str, object]) -> None:
    with pytest.raises(LimitError):
        parse(software(**groups))


def test_selections_that_multiply_are_refused() -> None:
    groups: dict[str, object] = {f"g{number}": {"ref": "#./g0"} for number in range(1, 60)}
    inner = {f"h{number}": {"images": [image("img", DATA)]} for number in range(60)}
    with pytest.raises(LimitError):
        parse(software(g0=inner, **groups))
