"""Which sinks there are."""

import asyncio
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from media.signals import Show, Signal
from media.sinks.build import make_sinks
from media.sinks.section import LedsSection, SignalsSection
from media.words import Language


async def test_what_is_configured_shows(tmp_path: Path) -> None:
    led = tmp_path / "green"
    led.mkdir()
    for attribute, value in {"trigger": "", "brightness": "0", "max_brightness": "1"}.items():
        (led / attribute).write_text(value)
    (tmp_path / "beeper").touch()
    (tmp_path / "tty").touch()
    leds = LedsSection(root=tmp_path, safe="green")
    section = SignalsSection(leds=leds, beeper=tmp_path / "beeper", console=tmp_path / "tty", journal=False)
    sinks = make_sinks(section, Language.ENGLISH, asyncio.get_running_loop().call_later)
    sinks.show(Signal(Show.FOUND, "A", removable=False, since=1))
    assert (tmp_path / "beeper").read_bytes()
    assert (led / "brightness").read_text() == "0"
    sinks.show(Signal(Show.SAFE, "A", removable=True, since=1))
    assert (led / "brightness").read_text() == "1"
    assert "The stick may be removed." in (tmp_path / "tty").read_text()
    sinks.show(None)


@pytest.mark.parametrize("name", ["../../escape", "a/b", "..", ".", " "])
def test_a_light_is_a_name_and_no_path(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(LedsSection).validate_python({"busy": name})
