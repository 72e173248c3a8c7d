"""Descriptions: what the real swupdate reads is read the same; what it misreads, cuts or drops is refused."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.bundles import DEMO, describe, image, script
from update.bundle.description import Choice, Description, parse
from update.bundle.entries import BootVariable, Compression, Handler
from update.bundle.syntax import MAX_BYTES
from update.errors import ContainerError, DescriptionError, FieldrelayError, HardwareError, LimitError, UnsupportedError
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


def one_image(**attributes: object) -> Description:
    entry = image("img", DATA) | {key.replace("_", "-"): value for key, value in attributes.items()}
    return parse(describe(images=[entry]))


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


def nested_json(opening: str, closing: str) -> bytes:
    return b'{"software":' + opening.encode() * 10_000 + b"1" + closing.encode() * 10_000 + b"}"


@pytest.mark.parametrize(
    "data",
    [
        nested_json("[", "]"),
        nested_json('{"a":', "}"),
        nested_json("[", ""),
        b"[" * 10_000,
        b"software = " + b"( " * 10_000 + b") " * 10_000 + b";",
        b"a = { " * 10_000 + b"};" * 10_000,
        b"a = [ " * 10_000,
    ],
)
def test_ten_thousand_levels_are_refused_before_a_parser_sees_them(data: bytes) -> None:
    with pytest.raises((LimitError, DescriptionError)) as caught:
        parse(data)
    assert caught.type is LimitError or data.startswith(b"[")


def test_brackets_in_texts_are_no_nesting() -> None:
    text = '[{"\\' * 60
    assert parse(describe(images=[image("img", DATA)], description=text)).text == text


def test_the_text_for_people_is_made_fit_for_a_line() -> None:
    assert parse(describe(images=[image("img", DATA)], description="a\n\tb\x07" + "c" * 300)).text == "a b" + "c" * 252


def test_a_description_above_the_limit_is_refused_unread() -> None:
    with pytest.raises(LimitError):
        parse(b"{" + b" " * MAX_BYTES)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b"{}",
        b'{"software": 7}',
        b'{"software": {}}',
        b'{"software": {"version": "1", "version": "2"}}',
        b'{"software": {"version": NaN}}',
        b'{"software": {"version": ' + b"9" * 5000 + b"}}",
        b'{"software": {"version": "\\ud800"}}',
        b'{"software": {"version": "a\\u0000b"}}',
        b'{"software": {"version": null}}',
        b"software = { version = 1; };",
        b'software = { version = "1"; version = "2"; };',
        b'@include "/etc/passwd"\n',
        b'software = { @include "/etc/passwd"\n };',
        b'software = { version = "\\xzz"; };',
        b"software = { version = " + b"9" * 5000 + b"; };",
        b"software = { version = 1e999; };",
        b"software = {",
        b"software = };",
    ],
)
def test_a_malformed_description_is_refused(data: bytes) -> None:
    with pytest.raises(DescriptionError):
        parse(data)


@pytest.mark.parametrize(
    "attributes",
    [
        {"offset": "4K"},  # SWUpdate would write at 19,252
        {"offset": "4096"},
        {"offset": -1},
        {"offset": True},
        {"offset": 1.5},
        {"offset": 10**400},
        {"offset": 1 << 31},  # read as a 32-bit number
        {"compressed": "xz"},
        {"compressed": "true"},
        {"compressed": 1},
        {"installed-directly": "true"},
        {"install-if-different": 1},
        {"install-if-different": True},
        {"install-if-higher": True, "name": "x"},
        {"device": ""},
        {"device": 7},
        {"device": "/dev/a\n"},
        {"version": 1.2},
        {"name": "n" * 256},
        {"properties": {"max-ranges": 3}},  # SWUpdate would drop it silently
        {"properties": {"flag": True}},
        {"properties": {"nested": {"a": "b"}}},
        {"properties": {"list": ["a", 1]}},
        {"properties": ["a"]},
        {"sha256": ""},
        {"sha256": "0" * 63},
        {"sha256": None},
        {"filename": 7},
        {"filename": ""},
    ],
)
def test_what_swupdate_would_misread_is_refused(attributes: dict[str, object]) -> None:
    with pytest.raises(DescriptionError):
        parse(describe(images=[image("img", DATA) | attributes]))


@pytest.mark.parametrize("name", ["../x", "a/b", "-x", "a\x00b"])
def test_a_file_name_that_no_archive_may_hold_is_refused(name: str) -> None:
    with pytest.raises((ContainerError, DescriptionError)):
        parse(describe(images=[image(name, DATA)]))


def test_one_file_with_two_hashes_is_refused() -> None:
    with pytest.raises(DescriptionError):
        parse(describe(images=[image("img", DATA), image("img", b"other")]))


def test_one_file_for_several_entries_is_fine() -> None:
    entries = [image("img", DATA, device="/dev/a"), image("img", DATA, device="/dev/b", offset=4096)]
    assert len(parse(describe(images=entries)).select(DEMO).images) == 2


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


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"url": URL},
        {"source": "/dev/b"},
        {"url": "file:///x", "source": "/dev/b"},
        {"url": "http://plant", "source": "/dev/b"},
        {"url": URL + " x", "source": "/dev/b"},
        {"url": [URL, URL], "source": "/dev/b"},
        {"url": URL, "source": "/dev/b", "max-ranges": "0"},
        {"url": URL, "source": "/dev/b", "max-ranges": "many"},
        {"url": URL, "source": "/dev/b", "zckloglevel": "loud"},
    ],
)
def test_an_incomplete_delta_is_refused(properties: dict[str, object]) -> None:
    with pytest.raises(DescriptionError):
        one_image(type="delta", properties=properties)


@pytest.mark.parametrize("attributes", [{"installed_directly": True}, {"compressed": "zstd"}, {"offset": 512}])
def test_a_delta_cannot_be_streamed_compressed_or_moved(attributes: dict[str, object]) -> None:
    with pytest.raises(DescriptionError):
        one_image(type="delta", properties={"url": URL, "source": "/dev/b"}, **attributes)


@pytest.mark.parametrize("bootenv", [[{"name": "a"}], [{"name": "a=b", "value": ""}], [{"name": "", "value": ""}]])
def test_a_variable_needs_a_name_and_a_value(bootenv: list[dict[str, object]]) -> None:
    with pytest.raises(DescriptionError):
        parse(describe(bootenv=bootenv))


def test_a_variable_set_twice_is_refused() -> None:
    with pytest.raises(DescriptionError):
        parse(describe(bootenv=[{"name": "a", "value": "1"}, {"name": "a", "value": "2"}]))


def test_the_old_spelling_of_zlib_is_read() -> None:
    assert one_image(compressed=True).select(DEMO).images[0].compressed is Compression.ZLIB


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
