from datetime import UTC, datetime, timedelta

import pytest

from gateway.database.records import ClientKind, Handling, Terms
from gateway.fleet.windows import SHORTEST_S, UNTIL_TOLD, allowed, is_hidden_from, polling_s
from update.wire import ddi

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
BEFORE, AFTER = NOW - timedelta(hours=1), NOW + timedelta(hours=1)
FORCED, ATTEMPT, SKIP = ddi.Handling.FORCED, ddi.Handling.ATTEMPT, ddi.Handling.SKIP


@pytest.mark.parametrize(
    ("terms", "download", "update", "window"),
    [
        (Terms(), FORCED, FORCED, None),
        (Terms(Handling.SOFT), ATTEMPT, ATTEMPT, None),
        (Terms(Handling.TIME_FORCED, forced_at=AFTER), ATTEMPT, ATTEMPT, None),
        (Terms(Handling.TIME_FORCED, forced_at=NOW), FORCED, FORCED, None),
        (Terms(Handling.TIME_FORCED), ATTEMPT, ATTEMPT, None),
        (Terms(Handling.DOWNLOAD_ONLY), FORCED, SKIP, None),
        (Terms(opens=AFTER), FORCED, SKIP, ddi.Window.UNAVAILABLE),
        (Terms(opens=UNTIL_TOLD), FORCED, SKIP, ddi.Window.UNAVAILABLE),
        (Terms(opens=NOW), FORCED, FORCED, ddi.Window.AVAILABLE),
        (Terms(opens=BEFORE, closes=AFTER), FORCED, FORCED, ddi.Window.AVAILABLE),
        (Terms(opens=BEFORE, closes=NOW), FORCED, SKIP, ddi.Window.UNAVAILABLE),
        (Terms(Handling.SOFT, opens=BEFORE, closes=AFTER), ATTEMPT, ATTEMPT, ddi.Window.AVAILABLE),
        (Terms(Handling.DOWNLOAD_ONLY, opens=BEFORE), FORCED, SKIP, ddi.Window.AVAILABLE),
    ],
)
def test_what_terms_allow(terms: Terms, download: ddi.Handling, update: ddi.Handling, window: ddi.Window | None) -> None:
    may = allowed(terms, NOW)
    assert (may.download, may.update, may.window) == (download, update, window)


@pytest.mark.parametrize("terms", [Terms(Handling.DOWNLOAD_ONLY), Terms(opens=AFTER)])
def test_what_may_not_be_installed_is_hidden_from_swupdate_alone(terms: Terms) -> None:
    may = allowed(terms, NOW)
    assert [kind for kind in ClientKind if is_hidden_from(kind, may)] == [ClientKind.SWUPDATE]
    assert not is_hidden_from(ClientKind.SWUPDATE, allowed(Terms(), NOW))


@pytest.mark.parametrize(
    ("opens_in_s", "expected_s"), [(3600, 300), (600, 200), (91, 30), (60, SHORTEST_S), (1, SHORTEST_S), (0, 300), (-5, 300)]
)
def test_polls_come_closer_before_a_window_opens(opens_in_s: int, expected_s: int) -> None:
    assert polling_s(Terms(opens=NOW + timedelta(seconds=opens_in_s)), NOW, 300) == expected_s


@pytest.mark.parametrize("terms", [None, Terms(), Terms(opens=UNTIL_TOLD)])
def test_without_a_known_window_polls_are_as_usual(terms: Terms | None) -> None:
    assert polling_s(terms, NOW, 300) == 300


def test_a_node_that_polls_often_is_never_slowed_down() -> None:
    assert polling_s(Terms(opens=AFTER), NOW, 10) == 10
