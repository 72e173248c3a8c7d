"""DDI messages: what clients really send is read, what the strictest client reads is sent, the rest is refused by name."""

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from update.errors import ProtocolError
from update.wire.ddi import (
    MAX_ACTION_ID,
    MAX_POLLING_S,
    Artifact,
    ArtifactLinks,
    CancelAction,
    Chunk,
    Config,
    ConfigData,
    DeploymentBase,
    DeploymentBody,
    Execution,
    Feedback,
    Finished,
    Handling,
    Hashes,
    Link,
    Metadata,
    Mode,
    Polling,
    Progress,
    Report,
    Result,
    Root,
    RootLinks,
    Status,
    decode,
    encode,
    format_polling,
    parse_action_id,
    parse_polling,
)

LIMIT = 1 << 16

SWUPDATE_CONFIG = (
    b'{"id":"","time":"20261120T130419","status":{"execution":"closed","result":{"finished":"success"}},"data":{"a":"b"}}'
)
SWUPDATE_FEEDBACK = (
    b'{"id":8,"time":"20261120T130419","status":{"execution":"proceeding","result":{"finished":"none","progress":{"of":3,"cnt":1}},'
    b'"details":["Installing Update Chunk Artifacts."]}}'
)
RAUC_FEEDBACK = (
    b'{"id":"8","status":{"result":{"finished":"success"},"execution":"closed","details":["Software bundle installed."]}}'
)


def test_what_swupdate_and_rauc_send_is_read() -> None:
    feedback = decode(Feedback, SWUPDATE_FEEDBACK, max_bytes=LIMIT)
    assert (feedback.id, feedback.status.execution) == ("8", Execution.PROCEEDING)
    assert feedback.status.result == Result(finished=Finished.NONE, progress=Progress(cnt=1, of=3))
    assert feedback.status.details == ("Installing Update Chunk Artifacts.",)
    assert decode(Feedback, RAUC_FEEDBACK, max_bytes=LIMIT).status.result.finished is Finished.SUCCESS
    attributes = decode(ConfigData, SWUPDATE_CONFIG, max_bytes=LIMIT)
    assert (attributes.mode, attributes.data) == (Mode.MERGE, {"a": "b"})


def test_the_documents_of_hawkbit_are_read() -> None:
    document = b"""{"id":"8","deployment":{"download":"forced","update":"forced","maintenanceWindow":"available",
     "chunks":[{"part":"os","version":"1.0.79","name":"fw","encrypted":true,
       "artifacts":[{"filename":"a.swu","hashes":{"sha1":"%b","md5":"%b","sha256":"%b"},"size":13,
         "_links":{"download":{"href":"https://h/a"},"download-http":{"href":"http://h/a"}}}],
       "metadata":[{"key":"k","value":"v"}]}]},
     "actionHistory":{"status":"RUNNING","messages":["newest first"]},"new member":{"of":"later"}}""" % (
        b"a" * 40,
        b"B" * 32,
        b"c" * 64,
    )
    chunk = decode(DeploymentBase, document, max_bytes=LIMIT).deployment.chunks[0]
    assert chunk.artifacts[0].links.download_http == Link(href="http://h/a")
    assert chunk.metadata == (Metadata(key="k", value="v"),)
    cancel = decode(CancelAction, b'{"id":"11","cancelAction":{"stopId":11}}', max_bytes=LIMIT)
    assert cancel.cancel_action.stop_id == "11"


def test_numbers_and_booleans_become_the_texts_that_hawkbit_makes_of_them() -> None:
    data = decode(ConfigData, b'{"data":{"a":1,"b":true,"c":1.5}}', max_bytes=LIMIT).data
    assert data == {"a": "1", "b": "true", "c": "1.5"}


def test_what_is_sent_has_wire_names_and_no_null() -> None:
    artifact = Artifact(filename="a.swu", size=13, links=ArtifactLinks(download_http=Link(href="http://h/a")))
    body = DeploymentBody(
        download=Handling.FORCED,
        update=Handling.FORCED,
        chunks=(Chunk(part="os", version="1", name="fw", artifacts=(artifact,)),),
    )
    assert json.loads(encode(DeploymentBase(id="8", deployment=body))) == {
        "id": "8",
        "deployment": {
            "download": "forced",
            "update": "forced",
            "chunks": [
                {
                    "part": "os",
                    "version": "1",
                    "name": "fw",
                    "artifacts": [
                        {"filename": "a.swu", "hashes": {}, "size": 13, "_links": {"download-http": {"href": "http://h/a"}}}
                    ],
                }
            ],
        },
    }
    root = Root(config=Config(polling=Polling(sleep="00:05:00")), links=RootLinks(config_data=Link(href="http://h/c")))
    assert json.loads(encode(root)) == {
        "config": {"polling": {"sleep": "00:05:00"}},
        "_links": {"configData": {"href": "http://h/c"}},
    }


OK = {"execution": "closed", "result": {"finished": "success"}}

BAD_FEEDBACK: list[Any] = [  # Any: hostile JSON is of no type
    None,
    [],
    "text",
    {},
    {"status": None},
    {"status": {"execution": "closed"}},
    {"status": {"result": {"finished": "success"}}},
    {"status": {"execution": "done", "result": {"finished": "success"}}},
    {"status": {"execution": "closed", "result": {"finished": "maybe"}}},
    {"status": OK | {"code": 2**31}},
    {"status": OK | {"details": ["x" * 8193]}},
    {"status": OK | {"details": ["x"] * 1001}},
    {"status": OK | {"details": "text"}},
    {"status": OK | {"result": {"finished": "none", "progress": {"cnt": -1, "of": 5}}}},
    {"status": OK, "timestamp": -1},
    {"status": OK, "id": "x" * 1025},
    {"status": OK, "id": {"a": 1}},
    {"status": OK, "fieldrelay": {}},
    {"status": OK, "fieldrelay": {"report": "not a uuid", "sequence": 1}},
    {"status": OK, "fieldrelay": {"report": str(UUID(int=1)), "sequence": -1}},
    {"status": OK, "fieldrelay": {"report": str(UUID(int=1)), "sequence": 1, "slot_sha256": "A" * 64}},
    {"status": OK, "fieldrelay": {"report": str(UUID(int=1)), "sequence": 1, "downloaded_bytes": 2**53}},
]


@pytest.mark.parametrize("document", BAD_FEEDBACK)
def test_a_feedback_that_is_none_is_refused_by_name(document: object) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(Feedback, json.dumps(document).encode(), max_bytes=LIMIT)
    assert caught.value.code == "wire.protocol"
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff", b'{"id":"\xff"}', b"[" * 10_000, b'{"a":' * 10_000, b'{"status":{"execution":"closed","result":' * 3000],
)
def test_what_is_no_json_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(Feedback, data, max_bytes=1 << 20)


def test_a_message_above_its_limit_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(ProtocolError, match="at most 10 are read"):
        decode(Feedback, RAUC_FEEDBACK, max_bytes=10)


@pytest.mark.parametrize(
    "data",
    [
        {f"k{index}": "v" for index in range(101)},
        {"": "v"},
        {"k" * 129: "v"},
        {"k": "v" * 1025},
        {"k": None},
        {"k": []},
        {"k": 10**50},
    ],
)
def test_attributes_beyond_their_limits_are_refused(data: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        decode(ConfigData, json.dumps({"data": data}).encode(), max_bytes=LIMIT)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SIZES = st.integers(0, 2**53 - 1)
REPORTS = st.builds(
    Report,
    report=st.uuids(),
    sequence=SIZES,
    fence=SIZES,
    outcome=TEXTS,
    version=TEXTS,
    slot_sha256=st.sampled_from(["", "0" * 64, "a1" * 32]),
    downloaded_bytes=SIZES,
    message=TEXTS,
)
PROGRESS = st.none() | st.builds(Progress, cnt=SIZES, of=SIZES)
FEEDBACKS = st.builds(
    Feedback,
    id=st.none() | TEXTS,
    timestamp=st.none() | SIZES,
    status=st.builds(
        Status,
        execution=st.sampled_from(Execution),
        result=st.builds(
            Result, finished=st.sampled_from(Finished), progress=st.none() | st.builds(Progress, cnt=SIZES, of=SIZES)
        ),
        code=st.none() | st.integers(-(2**31), 2**31 - 1),
        details=st.none() | st.lists(TEXTS, max_size=3).map(tuple),
    ),
    fieldrelay=st.none() | REPORTS,
)


@given(FEEDBACKS)
def test_a_feedback_is_read_as_it_was_sent(feedback: Feedback) -> None:
    assert decode(Feedback, encode(feedback), max_bytes=LIMIT) == feedback


MEMBERS = [
    "id", "status", "execution", "result", "finished", "progress", "cnt", "of", "code", "details", "fieldrelay", "report",
    "sequence", "config", "polling", "sleep", "_links", "href", "deployment", "download", "update", "chunks", "artifacts", "size",
    "hashes", "sha1", "metadata", "key", "value", "cancelAction", "stopId", "data", "mode", "part", "version", "name", "filename",
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(MEMBERS) | TEXTS, inner, max_size=5),
    max_leaves=20,
)
MODELS: list[type[BaseModel]] = [Root, DeploymentBase, CancelAction, Feedback, ConfigData]


@given(st.sampled_from(MODELS), JSON)
def test_hostile_documents_raise_only_the_named_error(model: type[BaseModel], document: object) -> None:
    try:
        message = decode(model, json.dumps(document).encode(), max_bytes=LIMIT)
    except ProtocolError:
        return
    assert decode(model, encode(message), max_bytes=LIMIT) == message


@given(st.sampled_from(MODELS), st.binary(max_size=80))
def test_hostile_bytes_raise_only_the_named_error(model: type[BaseModel], data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(model, data, max_bytes=LIMIT)


@given(st.integers(1, MAX_POLLING_S))
def test_a_polling_time_is_read_as_it_was_written(seconds: int) -> None:
    assert parse_polling(format_polling(seconds)) == seconds


def test_a_polling_time_out_of_range_is_kept_within_it() -> None:
    assert format_polling(0) == format_polling(-5) == "00:00:01"
    assert format_polling(10**9) == "23:59:59"


@pytest.mark.parametrize(
    "text", ["", "5", "00:05", "24:00:00", "00:60:00", "00:00:60", "0:05:00", "00:05:00\n", "\u0660\u0660:05:00"]
)
def test_any_other_polling_time_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        parse_polling(text)
    with pytest.raises(ProtocolError):
        decode(Config, json.dumps({"polling": {"sleep": text}}).encode(), max_bytes=LIMIT)


@pytest.mark.parametrize("text", ["0", "-1", "01", "1.0", "", "x", str(MAX_ACTION_ID + 1), "9" * 11, "\u0661", "1\n", " 1"])
def test_an_action_id_that_a_c_int_does_not_hold_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        parse_action_id(text)
    assert parse_action_id(str(MAX_ACTION_ID)) == MAX_ACTION_ID


def test_hashes_are_hexadecimal() -> None:
    with pytest.raises(ProtocolError):
        decode(Hashes, b'{"sha1":"not hexadecimal at all, thirty-two"}', max_bytes=LIMIT)
