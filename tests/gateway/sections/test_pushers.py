"""What `[push]` and `[[call]]` may say together with the rest of the file."""

from pathlib import Path

import pytest

from gateway.config import parse_config
from update.errors import ConfigurationError

FILE = Path("/etc/fieldrelay/gateway.toml")
HEAD = 'format_version = 1\n[[repository]]\nname = "v"\nroot = "root.json"\nupstreams = ["https://u.example/v"]\n'
PUSHER = '[[push.pusher]]\nname = "ci"\ntoken = "ci.token"\nrepositories = ["v"]\n'
CALL = '[[call]]\nname = "head"\nurl = "https://gateway.example/push/v1/events"\n'


def test_files_are_meant_from_the_configuration() -> None:
    push = parse_config(HEAD + PUSHER, FILE).push
    assert (push.enabled, push.pusher[0].token) == (False, Path("/etc/fieldrelay/ci.token"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PUSHER.replace('token = "ci.token"\n', ""), "nothing proves who it is"),
        (PUSHER * 2, "given twice: ci"),
        (PUSHER.replace('["v"]', '["other"]'), r"no \[\[repository\]\] named other"),
        (PUSHER.replace('["v"]', "[]"), "repositories"),
        (PUSHER + "singles = true\n", "needs cms_roots"),
        (PUSHER + "quota_bytes = 0\n", "quota_bytes"),
        (CALL * 2, "given twice: head"),
        (CALL + 'repositories = ["other"]\n', r"no \[\[repository\]\] named other"),
        (CALL + "[wan]\nconnections = 4\n", "at least 5"),
        (CALL.replace("https", "ftp"), "url"),
    ],
)
def test_what_cannot_be_meant_is_named(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        parse_config(HEAD + text, FILE)
