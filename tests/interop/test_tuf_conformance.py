"""The client's command line for tuf-conformance works; the suite itself runs where TUF_CONFORMANCE_DIR names a checkout.

The suite pins dependencies of its own: TUF_CONFORMANCE_PYTHON names an interpreter that has them, if this one does not.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.builders.repository import RepositoryBuilder
from tests.peers import need_tool

ROOT = Path(__file__).resolve().parents[2]
CLIENT = [sys.executable, str(ROOT / "tests" / "interop" / "conformance_client.py")]
NOT_MEANT = "tuf_conformance/test_file_download.py::test_download_with_hash_algorithms[hashes1]"
"""A target listed with SHA-512 alone: the specification names no algorithm, but here SHA-256 is the identity of a target."""


class Quiet(SimpleHTTPRequestHandler):
    """A static server without a log."""

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    folder = tmp_path / "repository"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield folder, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_command_line_refreshes_downloads_and_refuses(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = served
    builder = RepositoryBuilder(now=datetime.now(UTC).replace(microsecond=0))
    builder.delegate("vendor", ["vendor/*"])
    builder.add_target("vendor/a.swu", b"content", role="vendor")
    builder.publish()
    builder.write_to(folder)
    metadata, targets = tmp_path / "metadata", tmp_path / "targets"
    metadata.mkdir()
    targets.mkdir()
    (tmp_path / "root.json").write_bytes(builder.root_bytes)

    def client(*arguments: str) -> int:
        command = [*CLIENT, "--metadata-dir", str(metadata), *arguments]
        return subprocess.run(command, check=False, cwd=ROOT, env=environment(), timeout=60).returncode

    refresh = ["--metadata-url", f"{url}/metadata", "refresh"]
    download = ["--target-name", "vendor/a.swu", "--target-base-url", f"{url}/targets", "--target-dir", str(targets)]
    assert client("init", str(tmp_path / "root.json")) == 0
    assert client(*refresh) == 0
    assert (metadata / "timestamp.json").read_bytes() == builder.files["metadata/timestamp.json"]
    assert client("--metadata-url", f"{url}/metadata", *download, "download") == 0
    assert [file.read_bytes() for file in targets.iterdir()] == [b"content"]
    assert {file.name for file in metadata.glob("*.json")} == {
        "root.json",
        "timestamp.json",
        "snapshot.json",
        "targets.json",
        "vendor.json",
    }
    old = builder.files["metadata/timestamp.json"]
    builder.publish()
    builder.write_to(folder)
    (folder / "metadata" / "3.targets.json").unlink()
    assert client(*refresh) == 1
    shown = {file.name: file.read_bytes() for file in metadata.glob("*.json")}
    assert shown["timestamp.json"] == builder.files["metadata/timestamp.json"]
    assert shown["snapshot.json"] == builder.files["metadata/3.snapshot.json"]
    assert shown["targets.json"] == builder.files["metadata/2.targets.json"]
    (folder / "metadata" / "timestamp.json").write_bytes(old)
    assert client(*refresh) == 1
    assert {file.name: file.read_bytes() for file in metadata.glob("*.json")} == shown


@pytest.mark.interop
@pytest.mark.timeout(900)
def test_the_whole_conformance_suite_passes() -> None:
    suite = os.environ.get("TUF_CONFORMANCE_DIR")
    if not suite:
        pytest.skip("TUF_CONFORMANCE_DIR names no checkout of theupdateframework/tuf-conformance (it is in no package registry)")
    need_tool("faketime")
    python = os.environ.get("TUF_CONFORMANCE_PYTHON", sys.executable)
    command = [python, "-m", "pytest", "-q", "tuf_conformance", "--deselect", NOT_MEANT, "--entrypoint", " ".join(CLIENT)]
    found = subprocess.run(command, check=False, cwd=suite, env=environment(), capture_output=True, text=True, timeout=850)
    assert found.returncode == 0, found.stdout[-4000:]


def environment() -> dict[str, str]:
    """The product's tree on the path of the client's process."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}
