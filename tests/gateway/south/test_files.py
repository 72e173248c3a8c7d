"""From a Range header to the answer and back to the bytes: what the server decides, the client's parser reads."""

import random
from email.parser import BytesHeaderParser
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.south.files import Answer, answer, etag_of
from update.chunks.ranges import MultipartParser, Range, format_range, parse_boundary, parse_content_range
from update.digest import digest_of

CONTENT = random.Random(8).randbytes(6000)
ETAG = etag_of(digest_of(CONTENT))


@st.composite
def disjoint(draw: st.DrawFn) -> list[Range]:
    """Ranges that do not overlap, some of which touch, in any order, the last of them up to the end at times."""
    edges = sorted(draw(st.sets(st.integers(0, len(CONTENT)), min_size=2, max_size=24)))
    spans = [Range(start, end - start) for start, end in pairwise(edges)]
    some = draw(st.lists(st.sampled_from(spans), min_size=1, unique=True))
    return draw(st.permutations(some))


def sent(reply: Answer) -> tuple[dict[str, str], bytes]:
    """Header fields, and the body as it goes over the wire."""
    fields = BytesHeaderParser().parsebytes(reply.head.split(b"\r\n", 1)[1])
    body = b"".join(part.frame + CONTENT[part.span.start : part.span.end] for part in reply.parts) + reply.tail
    return {name.lower(): value for name, value in fields.items()}, body


def read(fields: dict[str, str], body: bytes, cuts: list[int], *, quoted: bool) -> list[tuple[int, bytes]]:
    """What a client makes of it that gets the body in pieces: places, and what belongs there."""
    kind = fields["content-type"]
    boundary = parse_boundary(kind.replace("boundary=", 'boundary="') + '"' if quoted and "boundary=" in kind else kind)
    if boundary is None:
        place, total = parse_content_range(fields["content-range"])
        assert (place.length, total) == (len(body), len(CONTENT))
        return [(place.start, body)]
    parser = MultipartParser(boundary, size=len(CONTENT))
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    found = [event for start, end in pairwise(edges) for event in parser.feed(body[start:end])]
    assert parser.complete
    return found


@settings(max_examples=100)
@given(ranges=disjoint(), cuts=st.lists(st.integers(0, 20_000), max_size=10), quoted=st.booleans())
def test_ranges_come_back_as_they_were_asked_for(ranges: list[Range], cuts: list[int], quoted: bool) -> None:
    reply = answer("GET", {"Range": format_range(ranges)}, len(CONTENT), ETAG)
    fields, body = sent(reply)
    assert (reply.status, int(fields["content-length"]), reply.body_bytes) == (206, len(body), len(body))
    found = read(fields, body, cuts, quoted=quoted)
    assert b"".join(piece for _, piece in found) == b"".join(CONTENT[span.start : span.end] for span in ranges)
    assert all(piece == CONTENT[offset : offset + len(piece)] for offset, piece in found)


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.integers(0, 7000), st.integers(0, 7000)).map(lambda pair: f"{pair[0]}-{pair[1]}"), min_size=1, max_size=6
    )
)
def test_no_header_makes_an_answer_longer_than_the_content_and_its_frames(specs: list[str]) -> None:
    reply = answer("GET", {"Range": "bytes=" + ",".join(specs)}, len(CONTENT), ETAG)
    fields, body = sent(reply)
    assert int(fields["content-length"]) == len(body)
    assert sum(part.span.length for part in reply.parts) <= len(CONTENT)
    assert reply.status in {200, 206, 416}
