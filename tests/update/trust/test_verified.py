"""The proofs and the signed custom object."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.peers import need_tool
from update.digest import Digest, digest_of
from update.errors import ChunkError, FieldrelayError, LengthOrHashError, MetadataError
from update.trust.verified import (
    MAX_COUNTER,
    MAX_LENGTH_BYTES,
    Provenance,
    Requirement,
    TargetCustom,
    TargetInfo,
    UpdateClass,
    ZckHeader,
    check_target_path,
    verify_chunk_index,
    verify_target,
)

CONTENT = b"the content of a bundle"
INFO = TargetInfo("plant", "line/app.swu", len(CONTENT), digest_of(CONTENT), TargetCustom(), "targets")

texts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=40)
words = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=12)
customs = st.builds(
    TargetCustom,
    hw_ids=st.lists(st.tuples(words, words).map(":".join), max_size=4).map(tuple),
    version=st.just("") | texts,
    release_counter=st.integers(0, MAX_COUNTER),
    security_counter=st.integers(0, MAX_COUNTER),
    update_class=st.sampled_from(UpdateClass),
    requires=st.dictionaries(words, texts, max_size=4).map(
        lambda each: tuple(Requirement(*pair) for pair in sorted(each.items()))
    ),
    delta_from=st.none() | st.binary(max_size=9).map(digest_of),
    delta_of=st.just("") | words.map("os/{}.swu".format),
    zck_header=st.none() | st.builds(ZckHeader, st.binary(max_size=9).map(digest_of), st.integers(0, MAX_LENGTH_BYTES)),
)


@given(customs)
@settings(max_examples=100, deadline=None)
def test_the_custom_object_reads_back_through_json(custom: TargetCustom) -> None:
    assert TargetCustom.parse(json.loads(json.dumps(custom.as_json()))) == custom


def test_absent_and_unknown_keys_are_no_fault() -> None:
    assert TargetCustom.parse(None) == TargetCustom.parse({}) == TargetCustom.parse({"colour": ["red"]}) == TargetCustom()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hwIds", "imx8:1"),
        ("hwIds", ["imx8"]),
        ("hwIds", [":1"]),
        ("hwIds", ["imx8:"]),
        ("hwIds", [1]),
        ("hwIds", ["a:1"] * 257),
        ("hwIds", ["a:\n"]),
        ("version", 1),
        ("version", ""),
        ("version", "1.0\n"),
        ("version", "x" * 301),
        ("releaseCounter", -1),
        ("releaseCounter", True),
        ("releaseCounter", "1"),
        ("releaseCounter", 2**31),
        ("releaseCounter", 10**400),
        ("securityCounter", None),
        ("securityCounter", -1),
        ("class", "urgent"),
        ("class", []),
        ("class", {}),
        ("requires", []),
        ("requires", {"a": 1}),
        ("requires", {"": ">=1"}),
        ("requires", {str(number): "=1" for number in range(65)}),
        ("zckHeader", None),
        ("zckHeader", {"sha256": "0" * 64}),
        ("zckHeader", {"length": 1}),
        ("zckHeader", {"sha256": "0" * 63, "length": 1}),
        ("zckHeader", {"sha256": "A" * 64, "length": 1}),
        ("zckHeader", {"sha256": "0" * 64, "length": -1}),
        ("deltaFrom", None),
        ("deltaFrom", "abc"),
        ("deltaOf", None),
        ("deltaOf", ""),
        ("deltaOf", "../os.swu"),
    ],
)
def test_a_key_that_is_not_of_its_type_is_named(key: str, value: object) -> None:
    with pytest.raises(MetadataError) as caught:
        TargetCustom.parse({key: value})
    assert key in str(caught.value) or "SHA-256" in str(caught.value)


@pytest.mark.parametrize("value", [1, "text", [], True, {1: 2}])
def test_a_custom_that_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(MetadataError):
        TargetCustom.parse(value)


def test_wire_names_follow_the_digest() -> None:
    assert INFO.file_name == f"{INFO.sha256}.app.swu"
    assert INFO.wire_path == f"targets/line/{INFO.sha256}.app.swu"
    top = TargetInfo("plant", "app.swu", 1, INFO.sha256, TargetCustom(), "targets")
    assert top.wire_path == f"targets/{INFO.sha256}.app.swu"


@given(st.text(max_size=30))
@settings(max_examples=100, deadline=None)
def test_an_accepted_path_stays_below_its_folder(path: str) -> None:
    try:
        accepted = check_target_path(path)
    except MetadataError:
        return
    assert Path("/base", accepted).resolve().is_relative_to("/base")
    assert os.path.normpath(accepted) == accepted


def test_long_and_deep_paths_are_refused() -> None:
    check_target_path("/".join(["a"] * 16))
    for path in ("/".join(["a"] * 17), "a" * 201):
        with pytest.raises(MetadataError):
            check_target_path(path)


def test_a_complete_file_is_proved(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    assert verify_target(INFO, file).file == file


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT + b"x", CONTENT.swapcase()])
def test_other_content_is_refused_with_both_values(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(LengthOrHashError) as caught:
        verify_target(INFO, file)
    found = digest_of(content) if len(content) == len(CONTENT) else str(len(content))
    assert found in str(caught.value)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    file, link, pipe = tmp_path / "file", tmp_path / "link", tmp_path / "pipe"
    file.write_bytes(CONTENT)
    link.symlink_to(file)
    os.mkfifo(pipe)
    for path in (link, pipe, tmp_path, tmp_path / "missing"):
        with pytest.raises(LengthOrHashError):
            verify_target(INFO, path)


@pytest.mark.interop
def test_the_header_of_a_real_zck_file_is_proved(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"".join(number.to_bytes(4, "big") for number in range(50_000)))
    subprocess.run([need_tool("zck"), "-u", "-h", "sha256", "-o", str(tmp_path / "image.zck"), str(image)], check=True)
    whole = (tmp_path / "image.zck").read_bytes()
    report = subprocess.run(
        [need_tool("zck_read_header"), str(tmp_path / "image.zck")], check=True, capture_output=True, text=True
    )
    length = int(next(line for line in report.stdout.splitlines() if line.startswith("Header size")).split(":")[1])
    raw = whole[:length]
    proved = verify_chunk_index(raw, sha256=digest_of(raw), provenance=Provenance.TUF, source="image.zck")
    assert (proved.header.image_size, proved.provenance, proved.sha256) == (200_000, Provenance.TUF, digest_of(raw))


def test_a_header_is_not_even_parsed_under_another_digest() -> None:
    with pytest.raises(LengthOrHashError):
        verify_chunk_index(b"anything", sha256=Digest("0" * 64), provenance=Provenance.CMS)
    with pytest.raises(ChunkError):
        verify_chunk_index(b"anything", sha256=digest_of(b"anything"), provenance=Provenance.CMS)


@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_signed_but_malformed_headers_raise_only_named_errors(raw: bytes) -> None:
    with pytest.raises(FieldrelayError) as caught:
        verify_chunk_index(raw, sha256=digest_of(raw), provenance=Provenance.TUF)
    assert caught.value.code.startswith("bundle.")
