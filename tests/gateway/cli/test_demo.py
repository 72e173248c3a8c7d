"""A demo that is told to end leaves no process and no folder behind."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

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
