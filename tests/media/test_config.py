"""The file of whoever reads media: the sample says what the defaults are, and mistakes are named."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from media.config import AllowSection, MediaConfig, load_config
from media.sinks.section import LedsSection, SignalsSection
from update.errors import ConfigurationError

SAMPLE = Path(__file__).parents[2] / "configs" / "media.toml"
EXAMPLES = {"key_file", "console", "beeper"}
"""Keys without a default that could be written down: none of them, unless given."""


def uncommented() -> dict[str, object]:
    return tomllib.loads(re.sub(r"^#(?=[a-z_\[])", "", SAMPLE.read_text(), flags=re.MULTILINE))


def assert_at_default(shown: object, section: object) -> None:
    assert isinstance(shown, dict)
    assert dataclasses.is_dataclass(section)
    assert set(shown) == {each.name for each in dataclasses.fields(section)}
    for name in set(shown) - EXAMPLES - {"leds"}:
        default = getattr(section, name)
        default = list(default) if isinstance(default, tuple) else default
        default = str(default) if isinstance(default, Path) else default
        assert shown[name] == (
            list(default) if isinstance(default, tuple) else default if type(default) is not type(SAMPLE) else str(default)
        ), name


def test_the_sample_shows_every_key_at_its_default() -> None:
    values, config = uncommented(), MediaConfig(format_version=1)
    assert set(values) == {each.name for each in dataclasses.fields(MediaConfig)}
    assert_at_default(values["media"], config.media)
    assert_at_default(values["policy"], config.policy)
    allow = values["allow"]
    assert isinstance(allow, list)
    assert_at_default(allow[0], AllowSection())
    signals = values["signals"]
    assert isinstance(signals, dict)
    assert_at_default(signals, SignalsSection())
    assert_at_default(signals["leds"], LedsSection())


def test_the_sample_can_be_used_as_it_stands() -> None:
    assert load_config(SAMPLE) == MediaConfig(format_version=1)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("format_version = 1\n[policy]\nunknown = 'eat'", "policy.unknown"),
        ("format_version = 1\n[[allow]]\nbuss = 'usb'", "allow"),
        ("format_version = 1\n[media]\nsettle_s = 0", "media.settle_s"),
        ("format_version = 1\n[media]\nuser = 'a b'", "media.user"),
    ],
)
def test_a_mistake_is_named_by_its_key(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "media.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=re.escape(named)):
        load_config(tmp_path / "media.toml")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--config"):
        load_config(tmp_path / "nothing.toml")
