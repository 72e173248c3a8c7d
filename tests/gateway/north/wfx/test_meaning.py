"""What the definition of a job asks for."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fleet.windows import UNTIL_TOLD
from gateway.north.wfx.meaning import Wanted, job_of, source_of, terms_of, wanted_of
from gateway.north.wfx.messages import Job, JobStatus
from gateway.north.wfx.workflow import Phase
from update.errors import ProtocolError, UnsupportedError


def job(*artifacts: object, hash_: str = "", **others: object) -> Job:
    return Job(id="j-1", definition={"artifacts": list(artifacts), **others}, status=JobStatus(definitionHash=hash_))


def artifact(uri: str, name: str = "", version: str = "") -> dict[str, str]:
    return {"uri": uri, "name": name, "version": version}


@pytest.mark.parametrize(
    ("given_", "name"),
    [
        (artifact("https://h.example/a/os.swu"), "os.swu"),
        (artifact("https://h.example/os%2Bx.raucb?token=1"), "os+x.raucb"),
        (artifact("https://h.example/download/17", "os.swu"), "os.swu"),
        (artifact("https://h.example/download/17", "../../etc/os.swu"), "os.swu"),
    ],
)
def test_the_one_bundle_is_named_by_its_address_or_by_its_name(given_: dict[str, str], name: str) -> None:
    assert wanted_of(job(given_, artifact("https://h.example/notes.txt"))) == Wanted(name, "", given_["uri"])


def test_only_the_address_must_be_there() -> None:
    found = wanted_of(job({"uri": "https://h.example/os.swu"}, version="1.0", type=["firmware"], more=[1]))
    assert found == Wanted("os.swu", "", "https://h.example/os.swu")


@pytest.mark.parametrize("names", [[], ["a.swu", "b.swu"], ["a.txt"]])
def test_none_or_several_are_refused(names: list[str]) -> None:
    with pytest.raises(UnsupportedError, match="exactly one bundle"):
        wanted_of(job(*[artifact(f"https://h.example/{name}") for name in names]))


@pytest.mark.parametrize(
    "bad",
    [
        {"uri": 7},
        {"name": "os.swu"},
        "os.swu",
        {"uri": "file:///etc/os.swu"},
        {"uri": "os.swu"},
        {"uri": "https://h.example/a b.swu"},
        {"uri": "https://h.example/%00.swu"},
        {"uri": "https://h.example/%2e%2e%2f.swu"},
    ],
)
def test_what_is_no_definition_is_refused_by_name(bad: object) -> None:
    with pytest.raises(ProtocolError):
        wanted_of(job(bad))
    with pytest.raises(ProtocolError, match="artifacts"):
        wanted_of(Job(id="j", definition={}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(["uri", "https://h.example/os.swu"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["uri", "name", "artifacts"]), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=100)
@given(st.dictionaries(st.sampled_from(["artifacts", "type", "x"]), JSON, max_size=3))
def test_any_definition_is_understood_or_refused_by_name(definition: dict[str, object]) -> None:
    try:
        found = wanted_of(Job(id="j", definition=definition))
    except (ProtocolError, UnsupportedError):
        return
    assert found.uri.startswith("http")


def test_another_definition_is_another_wish_of_the_same_job() -> None:
    sources = {source_of(each) for each in (job(1, hash_="a"), job(1, hash_="b"), job(1), job(2))}
    assert len(sources) == 4
    assert {job_of(source) for source in sources} == {"j-1"}
    assert source_of(job(1, hash_="a")) == source_of(job(2, hash_="a"))
    assert max(len(source) for source in (*sources, source_of(Job(id="x" * 36)))) <= 64, "as much as a column holds"


def test_only_a_job_that_may_be_installed_opens() -> None:
    assert terms_of(Phase.INSTALL).opens is None
    assert {terms_of(phase).opens for phase in (Phase.DOWNLOAD, Phase.WAIT)} == {UNTIL_TOLD}
