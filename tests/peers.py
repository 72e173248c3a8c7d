"""The real tools that interop tests run against, and the reason when one is absent."""

import os
import shutil

import pytest

_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def need_tool(name: str) -> str:
    """Path of a real tool; skips where it is absent, fails when REQUIRE_TOOLS=1 demands it."""
    found = shutil.which(name, path=_SEARCH_PATH)
    if found is None:
        need(present=False, reason=f"the real tool {name!r} is not installed")
    return str(found)


def need(*, present: bool, reason: str) -> None:
    """Skip with `reason` unless `present`; fail instead when REQUIRE_TOOLS=1."""
    if present:
        return
    if os.environ.get("REQUIRE_TOOLS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
