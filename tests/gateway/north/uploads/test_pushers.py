"""Who may push: tokens, signatures, and what comes twice or too late."""

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.north.uploads.pushers import TOLERANCE_S, Pushers
from gateway.north.webhook.messages import headers_of
from gateway.sections.pushers import PusherSection
from update.errors import UnauthorizedError

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
SECRETS = {"ci": b"c" * 32, "hawkbit": b"h" * 32}
BODY = b'{"repository": "plant"}'


@pytest.fixture
def pushers(tmp_path: Path) -> Pushers:
    sections = []
    for name, secret in SECRETS.items():
        (tmp_path / f"{name}.secret").write_text(f"whsec_{base64.b64encode(secret).decode()}\n")
        (tmp_path / f"{name}.token").write_text(f"token-of-{name}\n")
        token = tmp_path / f"{name}.token" if name == "ci" else None
        sections.append(PusherSection(name=name, token=token, secret=tmp_path / f"{name}.secret", repositories=("plant",)))
    return Pushers(sections, lambda: NOON)


def test_a_token_opens_its_pusher_and_a_wrong_one_none(pushers: Pushers) -> None:
    assert pushers.by_token({"Authorization": "Bearer token-of-ci"}).name == "ci"
    for shown in ("", "Bearer", "Bearer ", "Bearer token-of-hawkbit", "token-of-ci", "Basic token-of-ci"):
        with pytest.raises(UnauthorizedError):
            pushers.by_token({"Authorization": shown})


def test_a_signature_says_who_it_is(pushers: Pushers) -> None:
    assert pushers.by_signature(headers_of(SECRETS["hawkbit"], "m1", NOON, BODY), BODY).name == "hawkbit"


def test_one_of_several_signatures_suffices_while_a_secret_is_changed(pushers: Pushers) -> None:
    headers = headers_of(SECRETS["ci"], "m1", NOON, BODY)
    other = headers_of(b"x" * 32, "m1", NOON, BODY)["webhook-signature"]
    headers["webhook-signature"] = f"v1a,zzz {other} {headers['webhook-signature']}"
    assert pushers.by_signature(headers, BODY).name == "ci"


def test_a_message_is_taken_once(pushers: Pushers) -> None:
    headers = headers_of(SECRETS["ci"], "m1", NOON, BODY)
    pushers.by_signature(headers, BODY)
    with pytest.raises(UnauthorizedError, match="already"):
        pushers.by_signature(headers, BODY)
    assert pushers.by_signature(headers_of(SECRETS["ci"], "m2", NOON, BODY), BODY).name == "ci"


@pytest.mark.parametrize("off_s", [-TOLERANCE_S - 1, TOLERANCE_S + 1])
def test_a_message_of_another_time_is_refused(pushers: Pushers, off_s: int) -> None:
    with pytest.raises(UnauthorizedError, match="clocks"):
        pushers.by_signature(headers_of(SECRETS["ci"], "m1", NOON + timedelta(seconds=off_s), BODY), BODY)


@pytest.mark.parametrize("spoil", ["body", "id", "time", "signature", "none"])
def test_what_was_changed_after_signing_is_refused(pushers: Pushers, spoil: str) -> None:
    headers, body = headers_of(SECRETS["ci"], "m1", NOON, BODY), BODY
    match spoil:
        case "body":
            body += b" "
        case "id":
            headers["webhook-id"] = "m2"
        case "time":
            headers["webhook-timestamp"] = str(int(headers["webhook-timestamp"]) + 1)
        case "signature":
            headers["webhook-signature"] = "v1,AAAA"
        case _:
            headers = {}
    with pytest.raises(UnauthorizedError):
        pushers.by_signature(headers, body)
