"""Byte ranges from every kind of server: each wanted byte once, in order, or a named error."""

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.update.wire.scripted import (
    IMPATIENT,
    Answer,
    Asked,
    Scripted,
    Sleeps,
    content_range,
    multipart,
    quick,
    reply,
    serve,
    session,
)
from update.chunks.ranges import Range
from update.errors import (
    EndlessDataError,
    FieldrelayError,
    NotFoundError,
    ProtocolError,
    SlowError,
    UnreachableError,
    WireError,
)
from update.wire.habits import MOST_RANGES, Form, Manners, Peer
from update.wire.http import Manner
from update.wire.ranged import Spare, Wanted, read_ranges
from update.wire.rate import Retry

SIZE = 4000
CONTENT = bytes(index * 11 % 253 for index in range(SIZE))
THREE = [(100, 50), (1000, 700), (3990, 10)]
Events = list[tuple[int, bytes]]


async def run(
    answer: Answer,
    ranges: list[tuple[int, int]] = THREE,
    *,
    size: int | None = SIZE,
    retry: Retry | None = None,
    manner: Manner | None = None,
    max_ranges: int = 60,
    peer: Peer | None = None,
    spare: Spare | None = None,
) -> tuple[Events, FieldrelayError | None, Scripted]:
    events: Events = []
    failure: FieldrelayError | None = None
    async with serve(answer) as server, session() as client:
        reading = read_ranges(
            client,
            f"{server.url}/x",
            ranges,
            size=size,
            manner=manner or Manner(),
            retry=retry or quick(),
            max_ranges=max_ranges,
            peer=peer,
            spare=spare,
        )
        try:
            async with aclosing(reading):
                async for event in reading:
                    events.append(event)
        except FieldrelayError as error:
            failure = error
    return events, failure, server


def assert_exact(events: Events, ranges: list[tuple[int, int]] = THREE) -> None:
    """Every wanted byte, right, once, ascending, and no other."""
    wanted = sorted({position for start, length in ranges for position in range(start, start + length)})
    assert [offset + index for offset, data in events for index in range(len(data))] == wanted
    assert all(CONTENT[offset : offset + len(data)] == data for offset, data in events)


def assert_complete(events: Events, ranges: list[tuple[int, int]]) -> None:
    """Every wanted byte, right, once, and each range from its start, whatever the order of ranges."""
    assert_exact(sorted(events), ranges)
    for start, length in ranges:
        own = [offset for offset, _ in events if start <= offset < start + length]
        assert own == sorted(own)


def part(pair: tuple[int, int | None]) -> tuple[int, bytes]:
    first, last = pair
    return first, CONTENT[first : SIZE if last is None else last + 1]


def send_one(writer: asyncio.StreamWriter, pair: tuple[int, int | None]) -> None:
    first, body = part(pair)
    reply(writer, 206, body, content_range(first, body, SIZE))


def send_parts(
    writer: asyncio.StreamWriter, pairs: list[tuple[int, int | None]], *, quoted: bool = False, boundary: str = "b0"
) -> None:
    headers, body = multipart([part(pair) for pair in pairs], SIZE, boundary, quoted=quoted)
    reply(writer, 206, body, headers)


async def honest(asked: Asked, writer: asyncio.StreamWriter) -> None:
    pairs = asked.ranges()
    if len(pairs) == 1:
        send_one(writer, pairs[0])
    else:
        send_parts(writer, pairs)
    await writer.drain()


@pytest.mark.parametrize(("quoted", "boundary"), [(False, "b0"), (True, "squid/5.7:AB"), (True, "b0"), (False, "x" * 70)])
async def test_a_multipart_answer_is_read_whatever_its_boundary(quoted: bool, boundary: str) -> None:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        send_parts(writer, asked.ranges(), quoted=quoted, boundary=boundary)

    events, failure, server = await run(answer)
    assert failure is None
    assert_exact(events)
    assert [asked.headers["range"] for asked in server.asked] == ["bytes=100-149,1000-1699,3990-3999"]


async def test_neighbours_are_asked_for_as_one_and_many_in_several_requests() -> None:
    ranges = [(0, 10), (10, 10), (30, 1), (50, 1), (70, 1)]
    events, failure, server = await run(honest, ranges, max_ranges=2)
    assert failure is None
    assert_exact(events, ranges)
    assert [asked.headers["range"] for asked in server.asked] == ["bytes=0-19,30-30", "bytes=50-50,70-70"]


async def test_a_server_that_answers_only_the_first_range_is_asked_for_the_rest() -> None:
    async def first(asked: Asked, writer: asyncio.StreamWriter) -> None:
        send_one(writer, asked.ranges()[0])

    sleeps = Sleeps()
    events, failure, server = await run(first, retry=quick(sleeps))
    assert failure is None
    assert_exact(events)
    assert [len(asked.ranges()) for asked in server.asked] == [3, 2, 1]
    assert sleeps.delays == []


async def test_parts_that_a_server_leaves_out_silently_are_asked_for_again() -> None:
    async def truncating(asked: Asked, writer: asyncio.StreamWriter) -> None:
        send_parts(writer, asked.ranges()[:2]) if len(asked.ranges()) > 1 else send_one(writer, asked.ranges()[0])

    events, failure, server = await run(truncating)
    assert failure is None
    assert_exact(events)
    assert len(server.asked) == 2


async def test_one_range_that_covers_all_is_cut_down_to_what_was_asked_for() -> None:
    async def covering(asked: Asked, writer: asyncio.StreamWriter) -> None:
        send_one(writer, (asked.ranges()[0][0], asked.ranges()[-1][1]))

    events, failure, server = await run(covering)
    assert failure is None
    assert_exact(events)
    assert len(server.asked) == 1


async def test_parts_in_another_order_cost_more_requests_and_come_out_in_order() -> None:
    async def reordered(asked: Asked, writer: asyncio.StreamWriter) -> None:
        pairs = asked.ranges()
        send_parts(writer, pairs[::-1]) if len(pairs) > 1 else send_one(writer, pairs[0])

    events, failure, server = await run(reordered)
    assert failure is None
    assert_exact(events)
    assert [len(asked.ranges()) for asked in server.asked][1:] == [1] * (len(server.asked) - 1)


@pytest.mark.parametrize("status", [200, 416, 400, 501, 500])
async def test_a_server_that_takes_no_several_ranges_is_asked_one_by_one(status: int) -> None:
    async def single(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if len(asked.ranges()) > 1:
            reply(writer, status, CONTENT if status == 200 else b"")
        else:
            send_one(writer, asked.ranges()[0])

    events, failure, server = await run(single)
    assert failure is None
    assert_exact(events)
    assert [len(asked.ranges()) for asked in server.asked] == [3, 1, 1, 1]


async def test_a_server_without_ranges_is_read_from_the_start_once_and_only_the_asked_bytes_are_passed_on() -> None:
    async def whole(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        reply(writer, 200, CONTENT)
        await writer.drain()

    events, failure, server = await run(whole)
    assert failure is None
    assert_exact(events)
    assert [len(asked.ranges()) for asked in server.asked] == [3, 1]


async def test_reading_a_whole_file_ends_behind_the_last_byte_asked_for() -> None:
    async def endless(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        reply(writer, 200, CONTENT, announce=None)
        for _ in range(100_000):
            writer.write(bytes(1000))
            await writer.drain()

    events, failure, _ = await run(endless, [(5, 10)], size=None)
    assert failure is None
    assert_exact(events, [(5, 10)])


async def test_a_line_cut_in_the_middle_is_continued_where_it_broke() -> None:
    async def cut(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.number:
            await honest(asked, writer)
            return
        headers, body = multipart([part(pair) for pair in asked.ranges()], SIZE)
        reply(writer, 206, body[: len(body) // 2], headers, announce=len(body))

    events, failure, server = await run(cut)
    assert failure is None
    assert_exact(events)
    first = server.asked[1].ranges()[0][0]
    assert 1000 < first < 1700


async def test_a_multipart_answer_that_brings_nothing_is_not_asked_for_again() -> None:
    async def empty(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if len(asked.ranges()) == 1:
            await honest(asked, writer)
        else:
            reply(writer, 206, b"\r\n--b0--\r\n", {"Content-Type": "multipart/byteranges; boundary=b0"})

    events, failure, server = await run(empty)
    assert failure is None
    assert_exact(events)
    assert [len(asked.ranges()) for asked in server.asked] == [3, 1, 1, 1]


async def test_nothing_asked_for_costs_nothing() -> None:
    events, failure, server = await run(honest, [])
    assert (events, failure, server.asked) == ([], None, [])


LIES = {
    "another range": lambda writer: reply(writer, 206, CONTENT[:50], content_range(0, CONTENT[:50], SIZE)),
    "another size": lambda writer: reply(writer, 206, CONTENT[100:150], content_range(100, CONTENT[100:150], SIZE + 1)),
    "no range": lambda writer: reply(writer, 206, CONTENT[100:150]),
    "nonsense": lambda writer: reply(writer, 206, CONTENT[100:150], {"Content-Range": "bytes 5-1/2"}),
    "no boundary": lambda writer: reply(writer, 206, b"x", {"Content-Type": "multipart/byteranges"}),
    "bad multipart": lambda writer: reply(writer, 206, b"x" * 9000, {"Content-Type": "multipart/byteranges; boundary=b"}),
    "nothing": lambda writer: reply(writer, 206, b"", {"Content-Range": f"bytes 100-149/{SIZE}"}),
    "416": lambda writer: reply(writer, 416),
    "whole of another size": lambda writer: reply(writer, 200, CONTENT + b"x"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lying_server_is_given_up_with_nothing_passed_on(lie: str) -> None:
    async def answer(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        LIES[lie](writer)
        await writer.drain()

    events, failure, server = await run(answer)
    assert isinstance(failure, ProtocolError)
    assert failure.code == "wire.protocol"
    assert events == []
    assert len(server.asked) <= 5


async def test_more_bytes_than_announced_are_refused() -> None:
    async def longer(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        reply(writer, 206, CONTENT[100:151], content_range(100, CONTENT[100:150], SIZE), announce=None)

    _, failure, _ = await run(longer, [(100, 50)])
    assert isinstance(failure, EndlessDataError)


async def test_an_endless_multipart_answer_is_refused() -> None:
    async def endless(asked: Asked, writer: asyncio.StreamWriter) -> None:
        headers, body = multipart([(100, CONTENT[100:150])], SIZE)
        reply(writer, 206, body, headers, announce=None)
        for _ in range(100_000):
            writer.write(bytes(1000))
            await writer.drain()

    _, failure, _ = await run(endless, [(100, 50), (1000, 5)])
    assert isinstance(failure, EndlessDataError)


async def test_a_file_that_changes_while_it_is_read_is_noticed() -> None:
    async def changing(asked: Asked, writer: asyncio.StreamWriter) -> None:
        first, body = part(asked.ranges()[0])
        reply(writer, 206, body, {"ETag": f'"{asked.number}"', **content_range(first, body, SIZE)})

    _, failure, _ = await run(changing, max_ranges=1)
    assert isinstance(failure, ProtocolError)
    assert "changed" in str(failure)


async def test_a_missing_file_is_named_at_once_and_a_busy_server_is_asked_again() -> None:
    async def missing(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        reply(writer, 404)

    _, failure, server = await run(missing)
    assert isinstance(failure, NotFoundError)
    assert len(server.asked) == 1

    async def busy(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.number < 2:
            reply(writer, 503)
        else:
            await honest(asked, writer)

    events, failure, _ = await run(busy)
    assert failure is None
    assert_exact(events)


async def test_a_server_that_stalls_or_is_always_busy_is_given_up() -> None:
    async def stall(asked: Asked, writer: asyncio.StreamWriter) -> None:
        reply(writer, 206, b"", content_range(100, CONTENT[100:150], SIZE), announce=50)
        await asyncio.Event().wait()

    _, failure, _ = await run(stall, [(100, 50)], retry=quick(attempts=2), manner=Manner(IMPATIENT))
    assert isinstance(failure, SlowError)

    async def busy(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        reply(writer, 503)

    sleeps = Sleeps()
    _, failure, server = await run(busy, retry=quick(sleeps))
    assert isinstance(failure, UnreachableError)
    assert len(server.asked) == 4
    assert sleeps.delays == [0.5, 1, 2]


@pytest.mark.parametrize("ranges", [[(-1, 5)], [(0, 0)], [(5, -1)]])
async def test_what_is_no_range_is_refused_before_asking(ranges: list[tuple[int, int]]) -> None:
    _, failure, server = await run(honest, ranges)
    assert isinstance(failure, ProtocolError)
    assert server.asked == []


MANY = [(start, 20) for start in range(0, SIZE, 100)]


def side_by_side(gap_bytes: int = 0) -> Peer:
    return Peer(connections=6, gap_bytes=gap_bytes)


async def single(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """As S3 and minio: one range, or all."""
    if len(asked.ranges()) > 1:
        reply(writer, 200, CONTENT)
    else:
        send_one(writer, asked.ranges()[0])
    await writer.drain()


async def test_what_a_server_does_not_take_is_not_asked_again_by_the_next_reader() -> None:
    peer = side_by_side()
    for expected in ([40, 10, *[1] * 40], [1] * 40, [1] * 40):
        events, failure, server = await run(single, MANY, peer=peer)
        assert failure is None
        assert_complete(events, MANY)
        assert [len(asked.ranges()) for asked in server.asked] == expected


async def test_single_ranges_are_read_by_several_connections_and_no_more() -> None:
    under_way, most, enough = 0, 0, asyncio.Event()

    async def together(asked: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal under_way, most
        if asked.number >= 1:
            under_way += 1
            most = max(most, under_way)
            if under_way == 6:
                enough.set()
            await enough.wait()
            under_way -= 1
        send_one(writer, asked.ranges()[0])

    async with asyncio.timeout(30):
        events, failure, _ = await run(together, MANY, max_ranges=1, peer=side_by_side())
    assert failure is None
    assert_complete(events, MANY)
    assert most == 6


async def test_all_reads_of_a_server_share_its_connections() -> None:
    peer, under_way, most = side_by_side(), 0, 0
    peer.learn(peer.ask(1), Form.ONE)

    async def counting(asked: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        send_one(writer, asked.ranges()[0])

    reads = await asyncio.gather(*(run(counting, MANY, max_ranges=1, peer=peer) for _ in range(4)))
    assert all(failure is None for _, failure, _ in reads)
    assert most <= 6


async def test_small_gaps_are_read_over_where_each_range_is_a_request() -> None:
    ranges = [(0, 10), (30, 10), (70, 10), (2000, 10)]
    events, failure, server = await run(single, ranges, max_ranges=1, peer=side_by_side(gap_bytes=30))
    assert failure is None
    assert_complete(events, ranges)
    assert sorted(asked.headers["range"] for asked in server.asked) == ["bytes=0-79", "bytes=2000-2009"]


async def test_a_server_that_takes_several_ranges_is_asked_for_no_byte_more() -> None:
    ranges = [(0, 10), (30, 10), (70, 10)]
    _, _, server = await run(honest, ranges, peer=side_by_side(gap_bytes=30))
    assert [asked.headers["range"] for asked in server.asked] == ["bytes=0-9,30-39,70-79"]


async def test_a_repaired_server_gets_its_several_ranges_again_after_a_day() -> None:
    now = [1_800_000_000.0]
    peer = Peer(connections=6, clock=lambda: now[0])
    await run(single, MANY, peer=peer)
    now[0] += 24 * 3600
    _, _, server = await run(honest, MANY, peer=peer)
    assert [len(asked.ranges()) for asked in server.asked] == [len(MANY)]
    assert peer.limit() == MOST_RANGES


async def test_a_cache_that_was_cold_once_is_not_held_against_it() -> None:
    async def warming(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.number:
            await honest(asked, writer)
        else:
            reply(writer, 200, CONTENT)

    peer = side_by_side()
    await run(warming, MANY, peer=peer)
    _, _, server = await run(honest, MANY, peer=peer)
    assert [len(asked.ranges()) for asked in server.asked] == [len(MANY)]


async def test_a_server_that_forgets_ranges_in_the_middle_is_read_by_one_connection() -> None:
    async def forgetful(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.number < 5:
            send_one(writer, asked.ranges()[0])
        else:
            reply(writer, 200, CONTENT)
        await writer.drain()

    events, failure, server = await run(forgetful, MANY, max_ranges=1, peer=side_by_side())
    assert failure is None
    assert_complete(events, MANY)
    assert len(server.asked) <= 5 + 2 * 6 + 2


BIG = bytes(5 << 20)


async def test_a_whole_file_in_which_the_wanted_is_far_away_is_cut_off_once() -> None:
    sent: list[int] = []

    async def whole(asked: Asked, writer: asyncio.StreamWriter) -> None:
        reply(writer, 200, announce=len(BIG))
        for at in range(0, len(BIG), 1 << 16):
            sent.append(asked.number)
            writer.write(BIG[at : at + (1 << 16)])
            await writer.drain()

    peer = Peer()
    events, failure, server = await run(whole, [(5_000_000, 10)], size=None, peer=peer)
    assert (failure, sum(len(data) for _, data in events), len(server.asked)) == (None, 10, 2)
    assert peer.manners.whole
    _, failure, server = await run(whole, [(5_000_000, 10)], size=None, peer=peer)
    assert (failure, len(server.asked)) == (None, 1)


async def test_one_range_around_far_ones_is_cut_off_and_they_are_asked_for_one_by_one() -> None:
    async def covering(asked: Asked, writer: asyncio.StreamWriter) -> None:
        first, last = asked.ranges()[0][0], asked.ranges()[-1][1] or 0
        reply(writer, 206, BIG[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{len(BIG)}"})
        await writer.drain()

    ranges = [(0, 10), (3_000_000, 10), (5_000_000, 10)]
    events, failure, server = await run(covering, ranges, size=None)
    assert (failure, [(offset, len(data)) for offset, data in events]) == (None, ranges)
    assert [len(asked.ranges()) for asked in server.asked] == [3, 1, 1]


RANGES = st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 300)), min_size=1, max_size=6).map(
    lambda pairs: [(start, min(length, SIZE - start)) for start, length in pairs]
)


@given(RANGES, st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, 800)), max_size=40))
def test_what_is_taken_is_wanted_in_order_and_never_twice(ranges: list[tuple[int, int]], sent: list[tuple[int, int]]) -> None:
    wanted = Wanted(Range(*each) for each in ranges)
    events: Events = []
    for offset, length in [*sent, (0, SIZE)]:
        events += wanted.take(offset, CONTENT[offset : offset + length])
    assert not wanted
    assert wanted.bytes_left == wanted.end == 0
    assert_exact(events, ranges)


MOODS = st.sampled_from(["honest", "whole", "first", "cover", "reverse", "leave out", "cut", "503", "416", "lie", "empty"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(RANGES, min_size=1, max_size=2),
    st.lists(MOODS, min_size=1, max_size=8),
    st.integers(1, 5000),
    st.sampled_from([1, 2, 6]),
    st.sampled_from([0, 50, 5000]),
)
def test_whatever_mix_of_servers_answers_every_byte_passed_on_is_right(
    reads: list[list[tuple[int, int]]], moods: list[str], cut: int, connections: int, gap_bytes: int
) -> None:
    """Over several reads of the same server, with what was learned in the ones before."""

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        pairs = asked.ranges()
        match moods[min(asked.number, len(moods) - 1)]:
            case "whole":
                reply(writer, 200, CONTENT)
            case "first":
                send_one(writer, pairs[0])
            case "cover":
                send_one(writer, (pairs[0][0], pairs[-1][1]))
            case "reverse":
                send_parts(writer, pairs[::-1])
            case "leave out":
                send_parts(writer, pairs[1:] or pairs)
            case "cut":
                headers, body = multipart([part(pair) for pair in pairs], SIZE)
                reply(writer, 206, body[:cut], headers, announce=len(body) + 1)
            case "lie":
                reply(writer, 206, b"lie", content_range(0, b"xyz", 3))
            case "empty":
                reply(writer, 206, b"", content_range(pairs[0][0], b"x", SIZE), announce=None)
            case "503":
                reply(writer, 503)
            case "416":
                reply(writer, 416)
            case _:
                await honest(asked, writer)
        await writer.drain()

    async def check() -> None:
        peer = Peer(connections=connections, gap_bytes=gap_bytes)
        for ranges in reads:
            events, failure, server = await run(answer, ranges, peer=peer)
            assert len(server.asked) <= 60
            if failure is None:
                assert_complete(events, ranges) if connections > 1 else assert_exact(events, ranges)
            else:
                assert isinstance(failure, (WireError, EndlessDataError))
                assert all(CONTENT[offset : offset + len(data)] == data for offset, data in events)
                taken = [position for offset, data in events for position in range(offset, offset + len(data))]
                assert len(taken) == len(set(taken))

    asyncio.run(check())


class Leftovers:
    """Has use for everything before byte `until`."""

    def __init__(self, until: int = SIZE) -> None:
        self.pieces: Events = []
        self.fed = asyncio.Event()
        self._until = until

    def reaches(self, position: int) -> bool:
        return position < self._until

    async def take(self, offset: int, piece: bytes) -> None:
        await asyncio.sleep(0)
        self.pieces.append((offset, piece))
        self.fed.set()

    def covers(self) -> set[int]:
        assert all(CONTENT[offset : offset + len(piece)] == piece for offset, piece in self.pieces)
        return {position for offset, piece in self.pieces for position in range(offset, offset + len(piece))}


def drips(writer: asyncio.StreamWriter, body: bytes, size: int = 130) -> None:
    """The body in pieces that follow no border."""
    for start in range(0, len(body), size):
        writer.write(body[start : start + size])


async def send_whole(_asked: Asked, writer: asyncio.StreamWriter) -> None:
    reply(writer, 200, announce=SIZE)
    drips(writer, CONTENT)


async def test_a_server_that_only_sends_the_whole_file_is_read_on_while_the_rest_is_of_use() -> None:
    for until, expected in ((SIZE, SIZE), (2500, 2500), (0, 150)):
        spare, peer = Leftovers(until), Peer(Manners(whole=True))
        events, failure, server = await run(send_whole, [(100, 50)], peer=peer, spare=spare)
        assert (failure, len(server.asked)) == (None, 1)
        assert_exact(events, [(100, 50)])
        assert spare.covers() >= set(range(expected)) - set(range(100, 150))


async def test_a_server_that_ignored_one_range_before_is_read_at_its_next_answer() -> None:
    peer = Peer()
    await run(send_whole, [(0, 20)], peer=peer)
    events, failure, server = await run(send_whole, peer=peer)
    assert (failure, len(server.asked)) == (None, 1)
    assert_exact(events)


async def test_a_stranger_that_sends_the_whole_file_is_not_read_behind_what_is_wanted() -> None:
    """It may have been an accident, and the rest may not be wanted by anybody."""
    spare = Leftovers()

    async def in_two_steps(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        reply(writer, 200, announce=SIZE)
        writer.write(CONTENT[:300])
        await spare.fed.wait()
        writer.write(CONTENT[300:])

    events, failure, _ = await run(in_two_steps, [(100, 50)], spare=spare)
    assert failure is None
    assert_exact(events, [(100, 50)])
    assert max(spare.covers()) < 300


async def test_what_a_covering_range_brings_besides_is_offered() -> None:
    async def cover(asked: Asked, writer: asyncio.StreamWriter) -> None:
        pairs = asked.ranges()
        send_one(writer, (pairs[0][0], pairs[-1][1]))

    spare = Leftovers()
    events, failure, _ = await run(cover, [(100, 50), (400, 50), (700, 50)], spare=spare)
    assert failure is None
    assert_exact(events, [(100, 50), (400, 50), (700, 50)])
    assert spare.covers() >= {*range(150, 400), *range(450, 700)}


async def test_what_is_read_between_near_ranges_is_offered_from_every_connection() -> None:
    spare, peer = Leftovers(), Peer(Manners(ranges=1, partial=True, since_s=1.0), connections=3, gap_bytes=60, clock=lambda: 2.0)
    ranges = [(0, 10), (50, 10), (1000, 10), (1060, 10), (3000, 10)]
    events, failure, server = await run(honest, ranges, peer=peer, spare=spare)
    assert failure is None
    assert_complete(events, ranges)
    assert len(server.asked) == 3
    assert spare.covers() >= {*range(10, 50), *range(1010, 1060)}


async def test_a_line_that_breaks_behind_what_was_wanted_is_no_failure() -> None:
    async def cut(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        reply(writer, 200, CONTENT[:2000], announce=SIZE)

    sleeps = Sleeps()
    events, failure, server = await run(cut, [(100, 50)], peer=Peer(Manners(whole=True)), spare=Leftovers(), retry=quick(sleeps))
    assert (failure, len(server.asked), sleeps.delays) == (None, 1, [])
    assert_exact(events, [(100, 50)])
