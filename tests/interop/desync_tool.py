"""desync, which Debian does not have: built once from its Go module, and believed by the module's pinned digest only.

The digest is the `h1:` hash of the module's source; its own `go.sum` pins what it is built with in the same way. So no
checksum database is asked. v0.9.5 builds with the Go of Debian 12 (1.19).
"""

import fcntl
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.peers import need_tool

_MODULE, _VERSION = "github.com/folbricht/desync", "v0.9.5"
_H1 = "h1:rlupjKuNt7Uis/VCkrc7pFdIjmBH+Buep9OMETVVfaY="
_BUILT = Path(__file__).parents[2] / "build" / "tools"
_LIMIT_S = 500.0


def need_desync() -> Path:
    """The program, built at its first use in this checkout.

    Skips where no proxy delivers the module, also under REQUIRE_TOOLS=1: that is no matter of what is installed here.
    """
    go, program = need_tool("go"), _BUILT / f"desync-{_VERSION}"
    _BUILT.mkdir(parents=True, exist_ok=True)
    with _alone(_BUILT / "desync.lock"):
        if not program.exists():
            with tempfile.TemporaryDirectory(dir=_BUILT) as folder:
                _build(go, Path(folder), program)
    return program


def _build(go: str, folder: Path, program: Path) -> None:
    env = {
        **os.environ,
        "GOPATH": str(folder / "modules"),
        "GOCACHE": str(folder / "cache"),
        "GOFLAGS": "-modcacherw",
        "GOSUMDB": "off",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }
    asked = _run([go, "mod", "download", "-json", f"{_MODULE}@{_VERSION}"], env, folder)
    told = json.loads(asked.stdout or "{}")
    if asked.returncode != 0:
        pytest.skip(f"{_MODULE} {_VERSION} cannot be had: {told.get('Error', asked.stderr)}")
    assert told["Sum"] == _H1, f"what came as {_MODULE} {_VERSION} is {told['Sum']}, expected {_H1}"
    parts = _run([go, "mod", "download"], env, Path(told["Dir"]))
    if parts.returncode != 0 and "SECURITY ERROR" not in parts.stderr:
        pytest.skip(f"what {_MODULE} {_VERSION} is built with cannot be had: {parts.stderr}")
    built = folder / "desync"
    done = _run([go, "build", "-o", str(built), "./cmd/desync"], env, Path(told["Dir"]))
    assert done.returncode == 0, parts.stderr + done.stderr
    built.rename(program)


def _run(command: list[str], env: dict[str, str], folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False, timeout=_LIMIT_S)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One of several test processes builds, the others wait for it."""
    with lock.open("w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
