"""Rates by the wall clock of the site, through summer time and over midnight."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from update.wire.timetable import LEAST_BYTES_PER_S, Span, checked_zone, rate_at, zone_of

BERLIN = ZoneInfo("Europe/Berlin")
SPAN = TypeAdapter(Span)


def span(begin: str, end: str, *days: str, rate: int = 5000) -> Span:
    values = {"from": begin, "to": end, "bytes_per_s": rate}
    return SPAN.validate_python(values | ({"days": list(days)} if days else {}))


def rate(moment: datetime, *spans: Span) -> int:
    return rate_at(moment, spans, otherwise=7, zone=BERLIN)


def local(text: str, *, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold)


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2026-03-02T05:59:59", 7),
        ("2026-03-02T06:00", 5000),
        ("2026-03-02T17:59:59.999999", 5000),
        ("2026-03-02T18:00", 7),
        ("2026-03-07T12:00", 7),  # a Saturday
    ],
)
def test_a_span_holds_from_its_begin_up_to_its_end_on_its_days(moment: str, expected: int) -> None:
    assert rate(local(moment), span("06:00", "18:00", "mon", "tue", "wed", "thu", "fri")) == expected


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2026-03-06T21:59", 7),
        ("2026-03-06T22:00", 5000),  # Friday
        ("2026-03-07T05:59", 5000),  # the same night
        ("2026-03-07T06:00", 7),
        ("2026-03-07T23:00", 7),  # Saturday
        ("2026-03-06T05:00", 7),  # Thursday's night
    ],
)
def test_a_span_over_midnight_belongs_to_the_day_on_which_it_began(moment: str, expected: int) -> None:
    assert rate(local(moment), span("22:00", "06:00", "fri")) == expected


def test_sunday_night_goes_on_into_monday() -> None:
    assert rate(local("2026-03-09T01:00"), span("22:00", "06:00", "sun")) == 5000


def test_the_time_is_that_of_the_site_whatever_zone_the_moment_is_in() -> None:
    day = span("06:00", "18:00")
    assert rate(datetime(2026, 1, 15, 5, 0, tzinfo=UTC), day) == 5000  # 06:00 in winter
    assert rate(datetime(2026, 7, 15, 4, 0, tzinfo=UTC), day) == 5000  # 06:00 in summer
    assert rate(datetime(2026, 1, 15, 4, 30, tzinfo=UTC), day) == 7


def test_the_hour_that_summer_time_leaves_out_does_not_come() -> None:
    night = span("02:00", "03:00")
    start = datetime(2026, 3, 28, 23, 0, tzinfo=UTC)  # 00:00 on 29 March
    assert all(rate(start + timedelta(minutes=minute), night) == 7 for minute in range(23 * 60))


def test_the_hour_that_comes_twice_counts_twice() -> None:
    night = span("02:00", "03:00")
    start = datetime(2026, 10, 24, 22, 0, tzinfo=UTC)  # 00:00 on 25 October
    held = [minute for minute in range(25 * 60) if rate(start + timedelta(minutes=minute), night) == 5000]
    assert held == list(range(120, 240))
    assert rate(local("2026-10-25T02:30", fold=0), night) == rate(local("2026-10-25T02:30", fold=1), night) == 5000


def test_a_working_day_begins_at_the_same_wall_time_before_and_after_the_change() -> None:
    day = span("06:00", "18:00")
    for date in ("2026-03-28", "2026-03-29", "2026-03-30", "2026-10-25"):
        assert rate(local(f"{date}T06:00"), day) == 5000
        assert rate(local(f"{date}T06:00") - timedelta(minutes=1), day) == 7


def test_the_first_of_several_spans_counts() -> None:
    assert rate(local("2026-03-02T12:30"), span("12:00", "13:00", rate=0), span("06:00", "18:00")) == 0


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(2000, 1, 1), max_value=datetime(2060, 1, 1)))  # noqa: DTZ001 - hypothesis adds the zone
def test_a_whole_day_always_holds(moment: datetime) -> None:
    assert rate(moment, span("00:00", "24:00")) == 5000


@given(
    st.datetimes(timezones=st.just(UTC), min_value=datetime(2000, 1, 1), max_value=datetime(2060, 1, 1)),  # noqa: DTZ001 - hypothesis adds the zone
    st.integers(0, 23),
    st.integers(1, 24),
)
def test_a_span_and_what_is_outside_of_it_are_the_whole_day(moment: datetime, begin: int, end: int) -> None:
    if begin != end:
        inside, outside = span(f"{begin:02}:00", f"{end:02}:00"), span(f"{end % 24:02}:00", f"{begin or 24:02}:00")
        if begin != end % 24:
            assert (rate(moment, inside) == 5000) != (rate(moment, outside) == 5000)


def test_the_machine_s_own_zone_is_taken_where_none_is_named() -> None:
    moment = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
    begin = moment.astimezone().strftime("%H:%M")
    assert rate_at(moment, (span(begin, "24:00"),), otherwise=7, zone=zone_of("")) == 5000


@pytest.mark.parametrize("text", ["6:00", "24:01", "06:60", "25:00", "", "06:00:00", "\u0660\u0666:00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="HH:MM"):
        span(text, "18:00")


@pytest.mark.parametrize("bytes_per_s", [-1, 1, LEAST_BYTES_PER_S - 1])
def test_a_rate_that_carries_nothing_is_refused(bytes_per_s: int) -> None:
    with pytest.raises(ValidationError):
        span("06:00", "18:00", rate=bytes_per_s)


def test_no_days_and_unknown_days_are_refused() -> None:
    with pytest.raises(ValidationError):
        span("06:00", "18:00", "monday")
    with pytest.raises(ValidationError):
        SPAN.validate_python({"from": "06:00", "to": "18:00", "bytes_per_s": 0, "days": []})


@pytest.mark.parametrize("name", ["Europe/Nowhere", "../etc/passwd", "/etc/localtime", "Europe", "a\0b"])
def test_what_is_no_time_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        checked_zone(name)
