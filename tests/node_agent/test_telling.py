"""What is told of a state that lasts: once, and again only when there is something else to say."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node_agent.record import Entry
from node_agent.reports import Reports
from node_agent.states import State
from node_agent.telling import NOTHING, Note, Telling
from tests.node_agent.doubles import Assigner
from update.durable import Disk
from update.errors import UnreachableError
from update.store.journal import Journal

NOTES = st.builds(Note, code=st.sampled_from(["device.interlock", "usage.busy"]), message=st.sampled_from(["one", "two"]))
ENTRY = Entry(state=State.HOLDING, action="7", tries=1)


def telling(folder: Path, source: Assigner) -> Telling:
    return Telling("n1", Reports(Journal(Disk(), folder / "reports.json"), now_ms=lambda: 1), source, 30)


@settings(max_examples=50, deadline=None)
@given(st.lists(NOTES, max_size=12))
async def test_a_note_is_told_whenever_it_is_another_one(notes: list[Note]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Assigner([None])
        tells = telling(Path(folder), source)
        for note in notes:
            tells.remark(ENTRY, note)
            await tells.deliver()
    others = [note for before, note in zip([NOTHING, *notes], notes, strict=False) if note != before]
    assert [Note(report.code, report.message) for report in source.reports] == others


async def test_words_that_differ_each_time_are_told_once(tmp_path: Path) -> None:
    source = Assigner([None])
    tells = telling(tmp_path, source)
    for level in range(5):
        tells.remark(ENTRY, Note("device.interlock", "waiting"), f"waiting: level {level}")
    await tells.deliver()
    assert [report.message for report in source.reports] == ["waiting: level 0"]


async def test_an_assigner_that_is_away_or_mute_is_told_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    source = Assigner([None], away=UnreachableError("away"))
    tells = telling(tmp_path, source)
    tells.result(ENTRY)
    await tells.deliver()
    assert (source.reports, "wait for the assigner" in caplog.text) == ([], True)
    source.away = None
    await tells.deliver()
    assert [report.action for report in source.reports] == ["7"]
