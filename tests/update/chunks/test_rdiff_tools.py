"""The real rdiff reads what we write, and we read what it writes."""

import random
import subprocess
from pathlib import Path

import pytest

from tests.peers import need_tool
from tests.update.chunks.edits import edited
from tests.update.chunks.test_rdiff_delta import delta_of, patched
from tests.update.chunks.test_rdiff_signature import signature_of

pytestmark = pytest.mark.interop
SIZES = [0, 1, 255, 256, 257, 65_535, 65_537, 1_000_000, 3_000_001]


def rdiff(*arguments: str | Path) -> None:
    subprocess.run([need_tool("rdiff"), *arguments], check=True, capture_output=True)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("size", SIZES)
def test_signatures_are_those_of_rdiff_byte_for_byte(size: int, tmp_path: Path) -> None:
    data = random.Random(size).randbytes(size)
    rdiff("signature", written(tmp_path / "base", data), tmp_path / "theirs")
    assert (tmp_path / "theirs").read_bytes() == signature_of(data)


@pytest.mark.parametrize(("block", "strong"), [(1, 32), (100, 8), (4096, 17), (100_000, 32)])
def test_signatures_of_other_lengths_too(block: int, strong: int, tmp_path: Path) -> None:
    data = random.Random(block).randbytes(5_001)
    rdiff("-b", str(block), "-S", str(strong), "signature", written(tmp_path / "base", data), tmp_path / "theirs")
    assert (tmp_path / "theirs").read_bytes() == signature_of(data, block, strong)


@pytest.mark.parametrize("size", SIZES)
def test_each_applies_the_delta_of_the_other(size: int, tmp_path: Path) -> None:
    old = random.Random(size).randbytes(size)
    new = edited(old, size, 6, longest=max(size // 10, 2))
    base, wanted = written(tmp_path / "base", old), written(tmp_path / "new", new)
    ours = delta_of(old, new)
    rdiff("patch", base, written(tmp_path / "ours", ours), tmp_path / "result")
    assert (tmp_path / "result").read_bytes() == new
    rdiff("signature", base, tmp_path / "signature")
    rdiff("delta", tmp_path / "signature", wanted, tmp_path / "theirs")
    theirs = (tmp_path / "theirs").read_bytes()
    assert patched(old, theirs, len(new)) == new
    assert len(ours) <= len(theirs) * 1.01 + 16
