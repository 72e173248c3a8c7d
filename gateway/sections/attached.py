"""The configuration of attached devices: what the gateway updates for devices that cannot run an agent themselves.

Driver and bootloader are named, checked and completed here, so that a mistake in their options keeps the gateway from starting.
What only shows on the device or on this machine (a port that is away, a tool that is missing) does not: `fleet.attached` waits.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from pydantic.dataclasses import dataclass

from node_agent.config import CheckSection, HealthSection, HookSection, InterlockSections, KindSection, own_table
from node_agent.drivers.registry import NO_BOOTLOADER, check_attached, check_pair, places, settled_bootloader, settled_driver
from update.errors import ConfigurationError
from update.provided import NO_OTHER_KEYS, HardwareText, Name, named_after
from update.trust.verified import Provenance

_Settle = Callable[[str, Mapping[str, object], Path], dict[str, object]]


def _settled(section: KindSection, info: ValidationInfo, settle: _Settle) -> KindSection:
    try:
        return replace(section, options=settle(section.kind, section.options, named_after(Path(), info)))
    except ConfigurationError as error:
        raise ValueError(str(error)) from error


def _checked_driver(section: KindSection, info: ValidationInfo) -> KindSection:
    try:
        check_attached(section.kind, section.options)
    except ConfigurationError as error:
        raise ValueError(str(error)) from error
    return _settled(section, info, settled_driver)


def _checked_bootloader(section: KindSection, info: ValidationInfo) -> KindSection:
    return _settled(section, info, settled_bootloader)


_Driver = Annotated[KindSection, BeforeValidator(own_table), AfterValidator(_checked_driver)]
_Bootloader = Annotated[KindSection, BeforeValidator(own_table), AfterValidator(_checked_bootloader)]
_Stall = Annotated[float, Field(gt=0, le=86400)]


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class AttachedSection:
    """One device that the gateway looks after: a node like any other, whose agent runs here.

    Its software comes from `repository`, whose `root` and `cms_roots` its agent judges by itself. A word to the device that has
    neither ended nor come further after `stalled_after_s` has failed.
    """

    id: Name
    hardware: HardwareText
    repository: Name
    driver: _Driver
    bootloader: _Bootloader = KindSection(kind=NO_BOOTLOADER)
    minimum_provenance: Provenance = Provenance.TUF
    stalled_after_s: _Stall = 900.0
    health: HealthSection = HealthSection()
    check: Annotated[tuple[CheckSection, ...], Field(max_length=100)] = ()
    hook: Annotated[tuple[HookSection, ...], Field(max_length=100)] = ()
    interlock: InterlockSections = ()


def checked_attached(sections: tuple[AttachedSection, ...]) -> tuple[AttachedSection, ...]:
    """Ids once each, devices at places of their own, drivers with the bootloaders that they need."""
    ids = [section.id for section in sections]
    if doubled := sorted({each for each in ids if ids.count(each) > 1}):
        raise ValueError(f"each attached device has its own id; given twice: {', '.join(doubled)}")
    taken: dict[str, str] = {}
    for section in sections:
        for place in sorted(places(section.driver.kind, section.driver.options)):
            if (first := taken.setdefault(place, section.id)) != section.id:
                raise ValueError(f"{first} and {section.id} are both at {place}: each device needs a place of its own")
        try:
            check_pair(section.driver.kind, section.bootloader.kind)
        except ConfigurationError as error:
            raise ValueError(f"{section.id}: {error}") from error
        if section.health.gateway:
            raise ValueError(f"{section.id}: health.gateway asks whether a node reaches the gateway; this agent runs in it")
    return sections
