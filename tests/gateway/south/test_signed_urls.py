"""One form for one URL: what means the same has the same key, what does not has another, what is odd has none."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.south.signed_urls import MAX_URL_BYTES, host_of_key, signed_key, url_key

KEY = "http://updates.example/os/image.zck"
SAME = [
    KEY,
    "HTTP://updates.example/os/image.zck",
    "http://UPDATES.Example/os/image.zck",
    "http://updates.example./os/image.zck",
    "http://updates.example:80/os/image.zck",
    "http://updates.example:/os/image.zck",
    "http://updates.example:00080/os/image.zck",
    "http://updates.example/os/./image.zck",
    "http://updates.example/os/old/../image.zck",
    "http://updates.example/../os/image.zck",
    "http://updates.example/%6Fs/imag%65%2ezck",
    "http://updates.example/os/%2e%2E/os/image.zck",
]
OTHER = [
    "https://updates.example/os/image.zck",
    "http://updates.example:8080/os/image.zck",
    "http://updates.example/OS/image.zck",
    "http://updates.example//os/image.zck",
    "http://updates.example/os%2Fimage.zck",
    "http://updates.example/os/image.zck/",
    "http://updates.example/os/image.zck?",
    "http://updates.example/os/image.zck?v=1",
    "http://updates.example/os/image.zck;v=1",
    "http://updates.example?os/image.zck",
    "http://www.updates.example/os/image.zck",
    "http://updates.example.evil/os/image.zck",
    "http://updates.example/os/image%252ezck",
    "http://updates.example/os/image.zck%00",
]
NONE = [
    "",
    "/os/image.zck",
    "//updates.example/os/image.zck",
    "updates.example/os/image.zck",
    "ftp://updates.example/os/image.zck",
    "file:///os/image.zck",
    "http:/updates.example/os/image.zck",
    "http:///os/image.zck",
    "http://user@updates.example/os/image.zck",
    "http://updates.example@evil.example/os/image.zck",
    "http://:pass@updates.example/os/image.zck",
    "http://updates.example%2Eevil/os/image.zck",
    "http://updates.example../os/image.zck",
    "http://.updates.example/os/image.zck",
    "http://./os/image.zck",
    "http://updates.example:0/os/image.zck",
    "http://updates.example:65536/os/image.zck",
    "http://updates.example:-80/os/image.zck",
    "http://updates.example:8\u0660/os/image.zck",
    "http://updates.example:80:80/os/image.zck",
    "http://updates.example/os/image.zck#part",
    "http://updates.example/os/ image.zck",
    "http://updates.example/os/image.zck ",
    "http://updates.example/os/image.zck\r\nX: y",
    "http://updates.example/os/image.zck\n",
    "http://updates.example\\@evil/os/image.zck",
    "http://updates.example/os\\image.zck",
    "http://updates.example/os/%zz",
    "http://updates.example/os/%2",
    "http://updat\xe9s.example/os/image.zck",
    "http://[::1/os/image.zck",
    "http://[::1%25eth0]/os/image.zck",
    "http://[::1%eth0]/os/image.zck",
    "http://[12345::]/os/image.zck",
    "http://[1.2.3.4]/os/image.zck",
    "http://::1/os/image.zck",
    "http://[v1.x]/os/image.zck",
    f"http://{'a.' * 127}a/os/image.zck",
    "http://updates.example/" + "a" * MAX_URL_BYTES,
]


@pytest.mark.parametrize("url", SAME)
def test_one_url_written_in_many_ways_has_one_key(url: str) -> None:
    assert url_key(url) == KEY


@pytest.mark.parametrize("url", OTHER)
def test_another_url_has_another_key(url: str) -> None:
    assert url_key(url) not in {None, KEY}


@pytest.mark.parametrize("url", NONE, ids=range(len(NONE)))
def test_what_is_odd_has_none(url: str) -> None:
    assert url_key(url) is None


def test_addresses_in_brackets_are_shortened() -> None:
    assert url_key("http://[0:0::1]:8080/x") == url_key("http://[::1]:08080/x") == "http://[::1]:8080/x"
    assert url_key("http://[::FFFF:1.2.3.4]/") == "http://[::ffff:102:304]/"
    assert url_key("http://[::1]") == "http://[::1]/"


def test_a_path_may_be_absent_and_a_fragment_stays_with_the_client() -> None:
    assert url_key("http://a") == "http://a/"
    assert signed_key(f"{KEY}#part") == KEY
    assert signed_key("http://a#b#c") == "http://a/"


@pytest.mark.parametrize(
    ("path", "resolved"),
    [("/a/b/..", "/a/"), ("/a/.", "/a/"), ("/..", "/"), ("/a/../../b", "/b"), ("/a//../b", "/a/b"), ("/...", "/...")],
)
def test_dot_segments_are_resolved_and_lead_nowhere_above(path: str, resolved: str) -> None:
    assert url_key(f"http://a{path}") == f"http://a{resolved}"


@pytest.mark.parametrize(("url", "host"), [("http://A.b:81/x:y", "a.b"), ("https://[::1]:8/", "[::1]"), ("http://c/", "c")])
def test_the_host_of_a_key(url: str, host: str) -> None:
    assert host_of_key(url_key(url) or "") == host


@settings(max_examples=100)
@given(st.text(st.sampled_from("ab./%2eE@:#?[]\\ é"), max_size=30))
def test_whatever_is_asked_a_key_is_its_own_key(rest: str) -> None:
    key = url_key(f"http://h{rest}")
    assert key is None or url_key(key) == key
    assert key is None or "/../" not in key.partition("?")[0]
