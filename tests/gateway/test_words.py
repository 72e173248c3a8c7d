from datetime import timedelta

import pytest

from gateway.words import duration, share, size


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_345_678, "2.3 MB"), (7 * 10**12, "7000.0 GB")]
)
def test_a_size_has_its_unit(count: int, said: str) -> None:
    assert size(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(-5, "0 s"), (0, "0 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (183_600, "2 d 3 h")]
)
def test_a_time_span_is_said_in_its_two_largest_units(seconds: int, said: str) -> None:
    assert duration(timedelta(seconds=seconds)) == said


@pytest.mark.parametrize(("done", "total", "said"), [(0, 3, "0 %"), (2, 3, "66 %"), (999, 1000, "99 %"), (3, 3, "100 %")])
def test_a_share_is_whole_only_when_all_of_it_is_there(done: int, total: int, said: str) -> None:
    assert share(done, total) == said
