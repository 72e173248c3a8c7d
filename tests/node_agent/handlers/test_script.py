from pathlib import Path

import pytest

from node_agent.handlers.script import MAX_SCRIPT_BYTES, Phase, Script, read_script, run_scripts
from tests.builders.bundles import DEMO, describe, script, signed, verified
from update.errors import HandlerError, HashMismatchError


async def _run(folder: Path, *scripts: Script, phase: Phase = Phase.BEFORE, timeout_s: float = 20.0) -> None:
    await run_scripts(scripts, phase, folder=folder, timeout_s=timeout_s, environment={"NOTES": str(folder / "notes")})


def _notes(folder: Path) -> list[str]:
    return (folder / "notes").read_text().splitlines()


@pytest.mark.parametrize(
    "first_line", [b"#!/bin/sh", b"#! /bin/sh -u", b"#!/usr/bin/env sh", b"# no interpreter is named", b"set -eu"]
)
async def test_a_script_gets_its_phase_and_its_data(tmp_path: Path, first_line: bytes) -> None:
    content = first_line + b'\nprintf "%s\\n" "$#" "$@" >> "$NOTES"\n'
    await _run(tmp_path, Script("a.sh", content, "two words; rm -rf $HOME"), phase=Phase.AFTER)
    assert _notes(tmp_path) == ["2", "postinst", "two words; rm -rf $HOME"]


async def test_scripts_run_in_order_and_the_first_failure_ends_it(tmp_path: Path) -> None:
    scripts = [Script(name, f'echo {name} >> "$NOTES"\n[ {name} != b ]\n'.encode()) for name in ("a", "b", "c")]
    with pytest.raises(HandlerError, match="script b preinst ended with status 1"):
        await _run(tmp_path, *scripts)
    assert _notes(tmp_path) == ["a", "b"]


async def test_nothing_of_a_script_stays(tmp_path: Path) -> None:
    await _run(tmp_path, Script("a", b'touch "$(dirname "$0")/rest"; echo "$0" >> "$NOTES"'))
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]
    assert not Path(_notes(tmp_path)[0]).parent.exists()


async def test_a_flood_of_output_is_cut_to_its_end(tmp_path: Path) -> None:
    flood = b'i=0; while [ $i -lt 20000 ]; do echo "line $i line $i line $i"; i=$((i+1)); done; echo the reason; exit 1'
    with pytest.raises(HandlerError) as caught:
        await _run(tmp_path, Script("a", flood))
    assert str(caught.value).endswith("the reason")
    assert len(str(caught.value)) < 4000


async def test_a_script_cannot_ask_the_terminal(tmp_path: Path) -> None:
    await _run(tmp_path, Script("a", b'read answer; echo "got [$answer]" >> "$NOTES"'))
    assert _notes(tmp_path) == ["got []"]


@pytest.mark.parametrize(
    "content", [b"#!\n", b"#!sh\n", b"#!relative/sh\n", b"#!/" + b"x" * 300, b"#!/nonexistent/interpreter\n"]
)
async def test_an_interpreter_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(HandlerError):
        await _run(tmp_path, Script("a", content))


async def test_a_program_that_is_no_text_is_refused_by_its_shell(tmp_path: Path) -> None:
    with pytest.raises(HandlerError):
        await _run(tmp_path, Script("a", b"\x7fELF" + bytes(100)))


def test_a_script_is_read_from_its_bundle(tmp_path: Path) -> None:
    description = describe(scripts=[script("a.sh", b"echo", data="more")])
    bundle = verified(signed(tmp_path, description, {"a.sh": b"echo"}))
    (entry,) = bundle.description.select(DEMO).scripts
    assert read_script(bundle, entry) == Script("a.sh", b"echo", "more")
    content = bytearray(bundle.file.read_bytes())
    content[bundle.members["a.sh"].offset] ^= 1
    bundle.file.write_bytes(content)
    with pytest.raises(HashMismatchError):
        read_script(bundle, entry)


def test_a_script_of_unreasonable_length_is_refused(tmp_path: Path) -> None:
    long = b"#" * (MAX_SCRIPT_BYTES + 1)
    bundle = verified(signed(tmp_path, describe(scripts=[script("a.sh", long)]), {"a.sh": long}))
    with pytest.raises(HandlerError, match="at most"):
        read_script(bundle, bundle.description.select(DEMO).scripts[0])
