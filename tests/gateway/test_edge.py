import logging
from collections.abc import Iterator

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from pydantic import TypeAdapter

from gateway.control.client import _as_error
from gateway.edge import Refusal, http_status, refuse_by_name
from update import errors
from update.errors import FieldrelayError


def leaves(kind: type[FieldrelayError] = FieldrelayError) -> Iterator[type[FieldrelayError]]:
    for each in kind.__subclasses__():
        yield each
        yield from leaves(each)


@pytest.mark.parametrize("leaf", list(leaves()), ids=lambda leaf: leaf.code)
def test_every_refusal_has_a_status_that_is_no_success(leaf: type[FieldrelayError]) -> None:
    assert http_status(leaf("why")) >= 400


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.UnauthorizedError, 401),
        (errors.CertificateError, 403),
        (errors.ForbiddenError, 403),
        (errors.NotFoundError, 404),
        (errors.UnknownNodeError, 404),
        (errors.UnknownTargetError, 404),
        (errors.HardwareError, 409),
        (errors.StateError, 409),
        (errors.TooLargeError, 413),
        (errors.RollbackError, 422),
        (errors.ProtocolError, 400),
        (errors.ConfigurationError, 400),
        (errors.BusyError, 503),
        (errors.NotReadyError, 503),
        (errors.SlowError, 504),
        (errors.UnreachableError, 502),
        (errors.NoSpaceError, 507),
        (errors.CorruptError, 500),
        (errors.DeviceError, 500),
    ],
)
def test_the_particular_status_comes_before_the_general_one(error: type[FieldrelayError], status: int) -> None:
    assert http_status(error("why")) == status


@pytest.mark.parametrize("leaf", list(leaves()), ids=lambda leaf: leaf.code)
def test_an_operator_meets_the_error_that_the_gateway_met(leaf: type[FieldrelayError]) -> None:
    met = _as_error(Refusal(leaf.code, "why"))
    assert (met.code, met.exit_status, str(met)) == (leaf.code, leaf.exit_status, "why")


def test_a_code_of_a_later_release_is_still_a_refusal() -> None:
    assert type(_as_error(Refusal("trust.of-tomorrow", "why"))) is FieldrelayError


def test_a_refusal_is_two_texts() -> None:
    assert TypeAdapter(Refusal).dump_json(Refusal("a", "b")) == b'{"code":"a","message":"b"}'


@pytest.mark.parametrize(
    ("path", "error", "level"),
    [
        ("/repositories/plant/metadata/2.root.json", errors.NotFoundError, logging.DEBUG),
        ("/repositories/plant/metadata/2.root.json", errors.ForbiddenError, logging.INFO),
        ("/repositories/plant/metadata/2.snapshot.json", errors.NotFoundError, logging.INFO),
        ("/repositories/plant/targets/a.swu", errors.NotFoundError, logging.INFO),
    ],
)
async def test_only_the_usual_question_for_the_next_root_is_no_news(
    path: str, error: type[FieldrelayError], level: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(_request: web.Request) -> web.Response:
        raise error("why")

    caplog.set_level(logging.DEBUG, "gateway.edge")
    answer = await refuse_by_name(make_mocked_request("GET", path), refuse)
    assert answer.status == http_status(error("why"))
    assert [record.levelno for record in caplog.records if record.name == "gateway.edge"] == [level]
