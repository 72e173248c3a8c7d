"""A demo that is told to end leaves no process and no folder behind."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gateway.cli.main import main
from update.errors import MissingExtraError, StateError

INTERRUPTED = 130


def processes_below(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended meanwhile
        if str(folder) in command:
            found.append(command)
    return found


@pytest.mark.timeout(300)
@pytest.mark.xdist_group("mdns")
def test_sigterm_ends_gateway_and_nodes_and_removes_the_folder() -> None:
    with tempfile.TemporaryDirectory() as place:  # short: a socket's name has 107 bytes
        end_a_demo(Path(place))


@pytest.mark.parametrize("way", ["TMPDIR", "--keep"])
def test_a_folder_too_long_for_sockets_is_refused_before_anything_is_built(tmp_path: Path, way: str) -> None:
    place = tmp_path / ("x" * 100)
    place.mkdir()
    more, variables = (["--keep", str(place / "kept")], {}) if way == "--keep" else ([], {"TMPDIR": str(place)})
    command = [str(Path(sys.executable).with_name("fieldrelay")), "demo", "--once", *more]
    ended = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False, timeout=100)
    assert (ended.returncode, "too long for the sockets" in ended.stderr) == (StateError.exit_status, True), ended.stderr
    assert "building" not in ended.stderr
    assert list(place.iterdir()) == []


def end_a_demo(folder: Path) -> None:
    command = [str(Path(sys.executable).with_name("fieldrelay")), "demo", "--once"]
    variables = {**os.environ, "TMPDIR": str(folder)}
    with subprocess.Popen(command, env=variables, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as demo:
        try:
            assert demo.stderr is not None
            assert any("look for the gateway" in line for line in demo.stderr), "it ended before it began"
            assert processes_below(folder), "there is nothing that could be left behind"
            demo.send_signal(signal.SIGTERM)
            demo.stderr.read()
            assert demo.wait(120) == INTERRUPTED
        finally:
            demo.kill()
    assert processes_below(folder) == []
    assert list(folder.iterdir()) == []


def test_a_machine_that_cannot_speak_to_the_motor_is_told_before_anything_is_built(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("gateway.cli.demo.find_spec", lambda _name: None)
    assert main(["demo", "--once", "--keep", str(tmp_path / "kept")]) == MissingExtraError.exit_status
    assert "needs fieldrelay[devices]" in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()
