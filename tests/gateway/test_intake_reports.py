"""What happened goes back by hand: signed, in words, once, and with the ids under which it is sent when the line is up."""

import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.cli import main
from gateway.config import StateFolder
from gateway.database.engine import Database, sqlite_url
from gateway.database.queries import outgoing
from gateway.database.records import Matter
from gateway.north.intake.paper import PAPER, as_html, as_text
from gateway.north.intake.report_key import public_half, report_key
from media.exporter import Exporter, WritableFolder
from media.records import Answer, Content, Course, Kind, NodeResult, Stage, Verdict
from media.report_form import Report, from_bytes, to_bytes
from media.words import Language
from tests.builders.hall import BOARD, Hall, make_hall, whole
from tests.builders.standing_site import now
from update.durable import Disk
from update.errors import CorruptError, SignatureError
from update.trust.signers import public_pem
from update.wire.tls import GATEWAY_IDENTITY


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name is short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
async def hall(short: Path) -> Hall:
    return await make_hall(short)


def settled(answer: Answer) -> bool:
    return bool(answer.reported) and answer.reported == answer.course


def outbox(hall: Hall) -> list[Report]:
    key = report_key(Disk(), StateFolder(hall.site.config.gateway.state)).public_key()
    files = sorted((hall.folder / "intake" / "outbox").glob("*.json"))
    return [from_bytes(file.read_bytes(), {"gw": key}.get) for file in files]


def export(hall: Hall) -> tuple[str, ...]:
    descriptor = os.open(hall.folder / "stick", os.O_RDONLY | os.O_DIRECTORY)
    try:
        return Exporter(hall.folder / "intake").export(WritableFolder(descriptor, Disk()))
    finally:
        os.close(descriptor)


async def test_every_visit_is_reported_and_the_report_comes_home(
    hall: Hall, short: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hall.builder.add_target("os/whole-2.swu", whole(short).read_bytes(), BOARD)
    hall.write_stick()
    async with AsyncExitStack() as stack:
        listening = await stack.enter_async_context(hall.with_media().running())
        await hall.site.node(listening, stack)
        assert (await hall.plug_in()).stage is Stage.SAFE
        (report,) = outbox(hall)  # with the answer, so that the stick that is still there can take it along
        assert not report.complete
        assert [(each.node, each.wanted, each.outcome) for each in report.nodes] == [("n1", "2", "")]
        assert {(each.name, each.verdict) for each in report.contents} >= {("os/whole-2.swu", Verdict.ACCEPTED)}
        assert [(each.node, each.version) for each in report.inventory] == [("n1", "1")]
        assert report.logs == ()

    assert len(export(hall)) == 3
    assert outbox(hall) == []
    (short / "keys").mkdir()
    (short / "keys" / "gw.pub").write_bytes(public_half(StateFolder(hall.site.config.gateway.state)))
    verb = ["repo", "ingest-reports", str(short / "stick"), "--keys", str(short / "keys"), "--into", str(short / "in"), "--json"]
    assert main.main(verb) == 0
    (told,) = json.loads(capsys.readouterr().out)["reports"]
    assert (told["verdict"], told["gateway"], told["id"]) == ("new", "gw", report.id)
    assert main.main(verb) == 0
    (told,) = json.loads(capsys.readouterr().out)["reports"]
    assert told["verdict"] == "known"
    assert main.main(verb[:-1]) == 0
    assert "n1  wanted 2  runs 1  under way" in capsys.readouterr().out


async def test_the_last_report_replaces_the_first_that_is_still_here(hall: Hall, short: Path) -> None:
    hall.builder.add_target("os/whole-2.swu", whole(short).read_bytes(), BOARD)
    hall.write_stick()
    async with AsyncExitStack() as stack:
        listening = await stack.enter_async_context(hall.with_media().running())
        node = await hall.site.node(listening, stack)
        await hall.plug_in()
        (first,) = outbox(hall)
        body = {"id": "1", "status": {"execution": "closed", "result": {"finished": "failure"}, "details": ["E-42"]}}
        answer = await hall.answer(lambda said: said.course is Course.UPDATING)
        action = answer.nodes[0].action
        async with node.post(
            f"/DEFAULT/controller/v1/n1/deploymentBase/{action}/feedback",
            json={**body, "id": str(action)},
            server_hostname=GATEWAY_IDENTITY,
        ) as response:
            assert response.status == 200, await response.text()
        ended = await hall.answer(lambda said: settled(said) and said.course is not Course.UPDATING)
        assert ended.course is Course.FAILED
        (last,) = outbox(hall)
        assert (last.visit, last.complete, last.nodes[0].outcome) == (first.visit, True, "failure")
        assert last.result_id(last.nodes[0]) == f"gw.{action}"


async def test_what_waits_for_the_line_goes_along_until_it_was_sent(hall: Hall, short: Path) -> None:
    hall.builder.add_target("os/whole-2.swu", whole(short).read_bytes(), BOARD)
    hall.write_stick()
    database = await Database.open(sqlite_url(StateFolder(hall.site.config.gateway.state).database))
    async with database.writing() as transaction:
        await outgoing.add(
            transaction,
            "webhook:mes",
            "n1",
            source="7",
            matter=Matter.FEEDBACK,
            final=True,
            report="end 7",
            body={"a": 1.5},
            now=now(),
        )
    async with hall.with_media(install=False).running():
        await hall.plug_in()
        (report,) = outbox(hall)
        assert [(each.receiver, each.id, each.body) for each in report.pending] == [("webhook:mes", "end 7", {"a": 1.5})]
        export(hall)
        async with database.writing() as transaction:
            (waiting,) = await outgoing.waiting(transaction, "webhook:mes")  # a stick may be lost: it is sent all the same
            await outgoing.mark_delivered(transaction, waiting.id, now=now())
        await hall.plug_in()
        (report,) = outbox(hall)
        assert report.pending == ()
    await database.close()


@pytest.mark.parametrize(
    ("allowed", "writable", "text", "code"),
    [
        (True, True, '{"schema": "fieldrelay-request-1", "asks": ["logs"]}', ""),
        (False, True, '{"schema": "fieldrelay-request-1", "asks": ["logs"]}', "wire.forbidden"),
        (True, False, '{"schema": "fieldrelay-request-1", "asks": ["logs"]}', "wire.forbidden"),
        (True, True, '{"schema": "fieldrelay-request-1", "asks": ["keys"]}', "wire.protocol"),
        (True, True, '{"schema": "fieldrelay-request-1", "asks": []}', "wire.protocol"),
    ],
)
async def test_a_request_is_answered_in_the_report_where_the_site_allows_it(
    hall: Hall, allowed: bool, writable: bool, text: str, code: str
) -> None:
    (hall.folder / "stick").mkdir()
    (hall.folder / "stick" / "ask.json").write_text(text)
    async with hall.with_media(requests=allowed).running():
        logging.getLogger("gateway").warning("a line\nof the log")
        state = await hall.plug_in(writable=writable)
        await hall.answer(settled)
    (report,) = outbox(hall)
    assert state.code == code
    assert [line.partition("gateway: ")[2] for line in report.logs][:1] == ([] if code else ["a line\\nof the log"])
    assert (report.contents[0].kind, report.contents[0].code) == (Kind.REQUEST, code)


REPORT = Report(
    gateway="gw",
    visit="v1",
    created=0,
    complete=True,
    label="a\nb",
    stale="why",
    contents=(Content(kind=Kind.BUNDLE, name="<b>&", verdict=Verdict.REFUSED, code="trust.expired", message="old\nold"),),
    nodes=(NodeResult(node="n1", wanted="2", outcome="success"), NodeResult(node="n2", wanted="2", action=4)),
    logs=("<script>",),
)


def spoiled(change: Callable[[dict[str, object]], object]) -> bytes:
    document = json.loads(to_bytes(REPORT, Ed25519PrivateKey.from_private_bytes(b"k" * 32)))
    change(document)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda each: each["signed"].update(label="c"), SignatureError),
        (lambda each: each["signed"].update(gateway="other"), SignatureError),
        (lambda each: each["signed"].update(extra=1), SignatureError),
        (lambda each: each.update(signatures=[]), SignatureError),
        (lambda each: each["signatures"][0].update(sig="zz"), SignatureError),
        (lambda each: each["signatures"][0].update(keyid=1), SignatureError),
        (lambda each: each["signed"].update(schema="fieldrelay-report-2"), CorruptError),
        (lambda each: each["signed"].update(created="x"), CorruptError),
        (lambda each: each.update(signed=[]), CorruptError),
    ],
)
def test_a_report_that_was_touched_is_refused(change: Callable[[dict[str, object]], object], error: type[Exception]) -> None:
    key = Ed25519PrivateKey.from_private_bytes(b"k" * 32).public_key()
    assert from_bytes(spoiled(lambda _each: None), {"gw": key}.get) == REPORT
    with pytest.raises(error):
        from_bytes(spoiled(change), {"gw": key}.get)


def test_a_key_speaks_for_its_own_gateway_only() -> None:
    mine, other = (Ed25519PrivateKey.from_private_bytes(each * 32) for each in (b"a", b"b"))
    keys = {"gw": mine.public_key(), "other": other.public_key()}
    with pytest.raises(SignatureError, match="gateway gw"):
        from_bytes(to_bytes(REPORT, other), keys.get)


@pytest.mark.parametrize("language", Language)
def test_a_report_reads_the_same_in_every_language_and_forges_nothing(language: Language) -> None:
    words = PAPER[language]
    text, page = as_text(REPORT, language), as_html(REPORT, language)
    assert all(line.count("\n") == 0 for line in text.split("\r\n"))
    for form in (text, page):
        assert "trust.expired" in form
        assert words["success"] in form
        assert words[""] in form
    assert "<b>" not in page
    assert "<script" not in page
    assert "a\\nb" in text


def test_every_language_has_every_word() -> None:
    english, german = ({key: re.findall(r"{[a-z]+}", text) for key, text in PAPER[each].items()} for each in Language)
    assert english == german


def test_a_result_is_new_once(short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = Ed25519PrivateKey.generate()
    (short / "keys").mkdir()
    (short / "keys" / "gw.pub").write_bytes(public_pem(key))
    (short / "stick").mkdir()
    (short / "stick" / "1.json").write_bytes(to_bytes(REPORT, key))
    ended = replace(REPORT, visit="v2", nodes=(NodeResult(node="n2", wanted="2", action=4, outcome="failure"),))
    (short / "stick" / "2.json").write_bytes(to_bytes(ended, key))
    (short / "stick" / "3.json").write_bytes(to_bytes(replace(ended, visit="v3"), key))
    (short / "stick" / "4.json").write_bytes(to_bytes(ended, Ed25519PrivateKey.generate()))
    verb = ["repo", "ingest-reports", str(short / "stick"), "--keys", str(short / "keys"), "--into", str(short / "in"), "--json"]
    assert main.main(verb) == SignatureError.exit_status
    told = json.loads(capsys.readouterr().out)["reports"]
    assert [[each["new"] for each in report.get("results", [])] for report in told] == [[True, False], [True], [False], []]
    assert told[3]["code"] == "trust.signature"
    lines = [json.loads(line)["id"] for line in (short / "in" / "results.jsonl").read_text().splitlines()]
    assert sorted(lines) == ["gw.4", "gw.v1.n1"]
