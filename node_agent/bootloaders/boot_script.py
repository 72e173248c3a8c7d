"""What the boot script does with its environment, as values: one place for the script's logic outside U-Boot.

`configs/uboot/boot.cmd` is the same logic in U-Boot's language; `tests/system/test_uboot.py` runs it in a real U-Boot
and compares. The simulated bootloader and the board simulator call `next_boot` at every start.

| variable | meaning |
|---|---|
| `bootslot` | the slot that the next start tries: `a` or `b` |
| `upgrade_available` | 1 while a trial is open |
| `bootcount` | starts counted in this trial |
| `bootlimit` | starts allowed in a trial, 1 to 9: U-Boot's `setexpr` counts in hexadecimal |
| `ustate` | 0 confirmed, 1 installed, 2 testing, 3 failed (the numbers of SWUpdate's `ustate`) |

A start of an open trial counts and turns `ustate` 1 into 2; a start beyond `bootlimit` leaves the other slot primary,
the trial closed and `ustate` 3. An absent or malformed variable has its default: slot a, no trial, count 0, limit 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from update.errors import BootloaderError

SLOTS: Final = ("a", "b")
DEFAULTS: Final[Mapping[str, str]] = {
    "bootslot": "a",
    "upgrade_available": "0",
    "bootcount": "0",
    "bootlimit": "2",
    "ustate": "0",
}
_MAX_BOOTLIMIT = 9
_MAX_NAME_CHARACTERS = 64
_MAX_VALUE_CHARACTERS = 1024


class UpdateState(StrEnum):
    """Values of `ustate` that this product writes."""

    OK = "0"
    INSTALLED = "1"
    TESTING = "2"
    FAILED = "3"


@dataclass(frozen=True, slots=True)
class Boot:
    """One start: the slot that is started, and the environment afterwards."""

    slot: str
    environment: Mapping[str, str]


def next_boot(environment: Mapping[str, str]) -> Boot:
    """Decide one start. Total: any environment, however damaged, starts some slot; without a trial nothing is written."""
    own = read_state(environment)
    if own["upgrade_available"] != "1":
        return Boot(own["bootslot"], environment)
    count = int(own["bootcount"]) + 1
    changes = {"bootcount": str(count), "ustate": str(UpdateState.TESTING)}
    if count > int(own["bootlimit"]):
        changes = failed_trial(own["bootslot"])
    after = {**environment, **own, **changes}
    return Boot(after["bootslot"], after)


def read_state(environment: Mapping[str, str]) -> dict[str, str]:
    """The five variables, with the defaults that the boot script takes for absent or malformed ones."""
    allowed = {
        "bootslot": SLOTS,
        "upgrade_available": ("0", "1"),
        "bootcount": tuple("0123456789"),
        "bootlimit": tuple("123456789"),
        "ustate": tuple("01234567"),
    }
    return {name: value if (value := environment.get(name, "")) in values else DEFAULTS[name] for name, values in allowed.items()}


def other_slot(slot: str) -> str:
    """The slot that is not `slot`; `BootloaderError` for a name that is no slot."""
    if slot not in SLOTS:
        raise BootloaderError(
            f"the boot script knows the slots {SLOTS[0]!r} and {SLOTS[1]!r}, not {slot!r}; correct the slot's name"
        )
    return SLOTS[1 - SLOTS.index(slot)]


def open_trial(slot: str, environment: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """The variables that one write must set to try `slot`, the bundle's `extra` ones included.

    `BootloaderError` if the environment could not end the trial by itself, or if `extra` contradicts the switch. A bundle
    may repeat what the switch sets anyway, as bundles for an unmodified SWUpdate do.
    """
    other_slot(slot)
    limit = environment.get("bootlimit", "")
    if limit not in tuple("123456789"):
        raise BootloaderError(f"bootlimit is {limit!r}: a trial needs 1 to {_MAX_BOOTLIMIT}, or it would never end; set it once")
    switch = {"bootslot": slot, "upgrade_available": "1", "bootcount": "0", "ustate": str(UpdateState.INSTALLED)}
    fixed = {"bootlimit": limit, **switch}
    for name, value in extra.items():
        _check_variable(name, value)
        if fixed.get(name, value) != value:
            message = f"the bundle sets {name}={value!r}, the switch to slot {slot} needs {fixed[name]!r}; remove it from bootenv"
            raise BootloaderError(message)
    return {**extra, **switch}


def confirmed() -> dict[str, str]:
    """The variables that close a trial well."""
    return {"upgrade_available": "0", "bootcount": "0", "ustate": str(UpdateState.OK)}


def failed_trial(slot: str) -> dict[str, str]:
    """The variables that leave `slot`: the other one is primary, the failure is remembered."""
    return {"bootslot": other_slot(slot), "upgrade_available": "0", "bootcount": "0", "ustate": str(UpdateState.FAILED)}


def _check_variable(name: str, value: str) -> None:
    """Refuse what the script form `name=value` per line, or the environment's NUL-separated form, could not carry."""
    plain = name.isascii() and name.isprintable() and not {"=", " ", "#"} & set(name)
    if not plain or not 0 < len(name) <= _MAX_NAME_CHARACTERS:
        raise BootloaderError(f"not a name for a boot variable: {name[:80]!r} (1 to {_MAX_NAME_CHARACTERS} characters, no '=')")
    if not value.isascii() or not value.isprintable() or len(value) > _MAX_VALUE_CHARACTERS:
        raise BootloaderError(f"boot variable {name}: a value is one printable line of up to {_MAX_VALUE_CHARACTERS} characters")
