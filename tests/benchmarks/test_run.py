import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.measure import Row, Usage, interleave, run_child
from tests.benchmarks.run import GROUPS, line, run


def test_a_group_is_written_in_the_shape_that_all_share(tmp_path: Path) -> None:
    file = run("sample", lambda _work: iter([Row("thing", 1.0, 4.0, "peer 1.2", "s", goal=0.4)]), tmp_path)
    assert json.loads(file.read_text()) == {
        "name": "sample",
        "rows": [{"work": "thing", "ours": 1.0, "peer": 4.0, "peer_name": "peer 1.2", "unit": "s", "ratio": 0.25}],
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sample.json"]


def test_a_row_tells_whether_its_goal_is_reached() -> None:
    assert "reached" in line(Row("thing", 1.0, 4.0, "peer", "s", goal=0.25))
    assert "MISSED" in line(Row("thing", 1.1, 4.0, "peer", "s", goal=0.25))


def test_the_peak_of_a_child_is_its_own() -> None:
    ballast = bytes(100 << 20)
    small = run_child([sys.executable, "-c", "import time; time.sleep(0.1)"])
    large = run_child([sys.executable, "-c", "import time; x = bytes(range(256)) * (200 << 12); time.sleep(0.1)"])
    assert len(ballast) > small.peak_rss_mib * (1 << 20)
    assert large.peak_rss_mib > small.peak_rss_mib + 190


def test_a_child_that_fails_is_an_error_with_its_complaint() -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run_child([sys.executable, "-c", "import sys; sys.exit('no such thing')"])
    assert b"no such thing" in failed.value.stderr


def test_rounds_alternate_and_the_median_counts() -> None:
    order: list[str] = []

    def side(name: str, costs: list[float]) -> Usage:
        order.append(name)
        return Usage(costs[(len(order) - 1) // 2 - 1], 0.0, 0.0)

    ours, peer = interleave(lambda: side("a", [5.0, 1.0, 3.0]), lambda: side("b", [2.0, 9.0, 4.0]), rounds=3)
    assert order == ["a", "b"] * 4
    assert (ours.wall_s, peer.wall_s) == (3.0, 4.0)


def test_the_formats_are_compared() -> None:
    assert "formats" in GROUPS


def test_a_goal_may_be_the_least_and_a_note_explains() -> None:
    fast = line(Row("thing", 3.0, 1.0, "peer", "/s", goal=2.5, at_least=True, note="why"))
    assert "at least 2.5 reached" in fast
    assert fast.endswith("why")
    assert "MISSED" in line(Row("thing", 2.0, 1.0, "peer", "/s", goal=2.5, at_least=True))


def test_what_serves_is_compared() -> None:
    assert "serving" in GROUPS
