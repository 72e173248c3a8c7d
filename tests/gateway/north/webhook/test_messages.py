"""What a webhook is sent, judged by the published examples and by a verifier of its own."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.north.webhook.messages import encoded, headers_of, read_secret
from tests.builders.webhook_receiver import verified
from update.errors import ConfigurationError

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - of the published example
AT = datetime.fromtimestamp(1614265330, UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def kept(folder: Path, text: str) -> Path:
    file = folder / "secret"
    file.write_text(text)
    file.chmod(0o600)
    return file


def test_the_published_example_is_signed_as_published(tmp_path: Path) -> None:
    """Of the specification's reference libraries."""
    secret = read_secret(kept(tmp_path, SECRET + "\n"))
    headers = headers_of(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", AT, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers["webhook-timestamp"] == "1614265330"


@settings(max_examples=50)
@given(body=st.dictionaries(st.text(), JSON, max_size=4), secret=st.binary(min_size=24, max_size=64))
def test_what_is_signed_is_verified_and_nothing_else(body: dict[str, object], secret: bytes) -> None:
    sent = encoded(body)
    headers = headers_of(secret, "gw.7", AT, sent)
    assert json.loads(sent) == body
    assert verified(secret, headers, sent)
    assert not verified(secret, headers, sent + b" ")
    assert not verified(secret, {**headers, "webhook-id": "gw.8"}, sent)
    assert not verified(secret, {**headers, "webhook-timestamp": "1614265331"}, sent)
    assert not verified(secret[::-1] + b"x", headers, sent)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whsec_",
        SECRET.removeprefix("whsec_"),
        "whsec_not base64",
        "whsec_%%%%",
        f"whsec_{base64.b64encode(bytes(23)).decode()}",
        f"whsec_{base64.b64encode(bytes(65)).decode()}",
    ],
)
def test_what_is_no_secret_is_refused_by_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match="secret"):
        read_secret(kept(tmp_path, text))
