"""Descriptions: sections are found where the real swupdate finds them, and a selection is what it would install."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.bundles import DEMO, describe, image, script
from update.bundle.description import Choice, parse
from update.bundle.entries import BootVariable, Compression, Handler
from update.errors import DescriptionError, FieldrelayError, HardwareError, UnsupportedError
from update.identity import Hardware

DATA = b"image"
SHA = hashlib.sha256(DATA).hexdigest()
URL = "http://plant/targets/" + "0" * 64 + ".rootfs.zck"

LIBCONFIG = """
// the form that most descriptions in the field have
software =
{
    version = "1.2";
    /* a comment */
    stable : {
        hardware-compatibility: [ "1.0", "#RE:^2[.]" ];
        copy1 : {
            images: (
                { filename = "rootfs.zst"; device = "/dev/a"; compressed = "zstd"; offset = "4K"; sha256 = "SHA"; },
                { filename = "delta"; type = "delta"; device = "/dev/a"; sha256 = "SHA";
                  properties: { url = [ "URL" ]; source = "/dev/b"; chain = "raw"; max-ranges = "7"; }; }
            );
            scripts: ( { filename = "post.sh"; type = "shellscript"; data = "x"; sha256 = "SHA"; } );
            uboot: ( { name = "slot"; value = "a"; } );
        };
        copy2 : { ref = "#./copy1"; };
    };
    hardware-compatibility: [ "1.0", "#RE:^2[.]" ];
}
""".replace("SHA", SHA).replace("URL", URL)


def software(**groups: object) -> bytes:
    return json.dumps({"software": {"version": "1", "hardware-compatibility": ["1.0"], **groups}}).encode()


def test_libconfig_is_read_with_its_suffixes_comments_and_lists() -> None:
    selection = parse(LIBCONFIG.encode()).select(DEMO, "stable", "copy1")
    rootfs, delta = selection.images
    assert (rootfs.offset, rootfs.compressed, rootfs.device) == (4096, Compression.ZSTD, "/dev/a")
    assert delta.delta is not None
    assert (delta.delta.url, delta.delta.source, delta.delta.max_ranges) == (URL, "/dev/b", 7)
    assert [(each.filename, each.type, each.data) for each in selection.scripts] == [("post.sh", Handler.SHELLSCRIPT, "x")]
    assert selection.bootenv == (BootVariable("slot", "a"),)


def test_a_link_stands_for_what_it_names() -> None:
    description = parse(LIBCONFIG.encode())
    assert description.select(DEMO, "stable", "copy2").images == description.select(DEMO, "stable", "copy1").images
    assert description.choices == (Choice("", "stable", "copy1"), Choice("", "stable", "copy2"))


def test_members_are_all_files_of_all_selections() -> None:
    other = image("other", b"other", type="ubivol")
    data = software(a={"m": {"images": [image("img", DATA)]}, "n": {"images": [other]}}, files=[image("f", b"f")])
    assert set(parse(data).members) == {"img", "other", "f"}


def test_sections_are_looked_up_board_set_mode_first() -> None:
    def at(name: str) -> dict[str, object]:
        return {"images": [image("img", DATA, name=name)]}

    nested = at("board") | {"s": {"m": at("board.set.mode")}}
    description = parse(software(demo=nested, s={"m": at("set.mode"), "o": at("set.other")}, **at("top")))

    def chosen(hardware: Hardware, *selection: str) -> str:
        return description.select(hardware, *selection).images[0].name

    other = Hardware("other", "1.0")
    assert chosen(DEMO, "s", "m") == "board.set.mode"
    assert chosen(DEMO, "s", "o") == "set.other"
    assert chosen(DEMO) == "board"
    assert chosen(other, "s", "m") == "set.mode"
    assert chosen(other) == "top"
    assert chosen(other, "unknown", "mode") == "top"


def test_each_section_is_looked_up_by_itself() -> None:
    data = software(s={"m": {"images": [image("img", DATA)]}}, scripts=[script("run", b"run")])
    selection = parse(data).select(DEMO, "s", "m")
    assert (len(selection.images), len(selection.scripts)) == (1, 1)


def test_the_text_for_people_is_made_fit_for_a_line() -> None:
    assert parse(describe(images=[image("img", DATA)], description="a\n\tb\x07" + "c" * 300)).text == "a b" + "c" * 252


@pytest.mark.parametrize(
    "groups",
    [
        {"images": [image("img", DATA, type="ubivol")]},
        {"images": [image("img", DATA) | {"volume": "rootfs"}]},
        {"images": [image("img", DATA, encrypted=True)]},
        {"images": [image("img", DATA, encrypted="aes-cbc")]},
        {"images": [image("img", DATA, hook="rewrite")]},
        {"images": [image("img", DATA, type="delta", properties={"url": URL, "source": "/dev/b", "chain": "ubivol"})]},
        {"files": [image("img", DATA, path="/etc/x")]},
        {"scripts": [{"filename": "lua", "sha256": SHA}]},
        {"bootenv": [{"filename": "script", "sha256": SHA}]},
        {"partitions": [{"name": "p", "device": "mtd0", "size": 1}]},
        {"vars": [{"name": "a", "value": "b"}]},
        {"embedded-script": "os.execute()", "images": [image("img", DATA)]},
    ],
)
def test_what_this_release_lacks_is_refused_only_where_it_is_selected(groups: Mapping[str, object]) -> None:
    description = parse(software(**groups))
    with pytest.raises(UnsupportedError):
        description.select(DEMO)


def test_hardware_is_matched_literally_or_by_pattern() -> None:
    description = parse(describe(images=[image("img", DATA)], hardware=["1.0", "#RE:^2[.]"]))
    assert len(description.select(Hardware("demo", "2.7")).images) == 1
    with pytest.raises(HardwareError):
        description.select(Hardware("demo", "1.1"))


def test_a_description_for_no_hardware_is_refused() -> None:
    with pytest.raises(HardwareError):
        parse(describe(images=[image("img", DATA)], hardware=[])).select(DEMO)
    without = json.dumps({"software": {"version": "1", "images": [image("img", DATA)]}}).encode()
    with pytest.raises(DescriptionError):
        parse(without).select(DEMO)


def test_nothing_to_install_is_refused_and_names_what_there_is() -> None:
    description = parse(software(stable={"copy1": {"images": [image("img", DATA)]}}))
    with pytest.raises(DescriptionError, match="stable/copy1"):
        description.select(DEMO, "stable", "copy2")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["images", "ref", "filename", "sha256", "type"]), inner)
    ),
    max_leaves=12,
)


def read_all(data: bytes) -> None:
    with suppress(FieldrelayError):
        description = parse(data)
        for choice in description.choices:
            with suppress(FieldrelayError):
                description.select(Hardware(choice.board or "demo", "1.0"), choice.software_set, choice.mode)


@settings(max_examples=100)
@given(st.dictionaries(st.sampled_from(["images", "scripts", "bootenv", "version", "stable", "ref"]), json_values))
def test_any_json_is_read_or_refused_by_name(groups: dict[str, object]) -> None:
    read_all(software(**groups))


@settings(max_examples=100)
@given(st.data())
def test_damaged_libconfig_is_read_or_refused_by_name(data: st.DataObject) -> None:
    text = bytearray(LIBCONFIG.encode())
    for _ in range(data.draw(st.integers(1, 5))):
        position = data.draw(st.integers(0, len(text) - 1))
        text[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    read_all(bytes(text))
