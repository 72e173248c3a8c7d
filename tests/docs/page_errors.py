"""`docs/reference/errors.md`: every error of the tree, drawn from `update/errors.py`."""

from collections.abc import Iterator

from update import errors
from update.errors import FieldrelayError

_HEAD = """# Errors and exit statuses

Drawn from `update/errors.py`; a test compares.

Every refusal has a *code*, which is stable, and an *exit status*. The command lines end with the status and print message
and code; JSON answers, the gateway's HTTP answers, the journal and the reports of nodes carry the same code. Tens of the
status tell the group: 1x usage and state, 2x trust, 3x bundle, 4x device, 5x disk, 6x network. Related errors share a
status; the code tells them apart.

Besides: 0 done, 1 an error without a name (a defect: please report it), 130 interrupted. `update` also ends with 3 if there is
nothing to do (`--exit-code`), and with 100 if the device must be restarted.
"""


def leaves(kind: type[FieldrelayError] = FieldrelayError) -> Iterator[type[FieldrelayError]]:
    """Every class below `kind` in the order of its definition; the tests' own subclasses are left out."""
    for each in kind.__subclasses__():
        if each.__module__ == errors.__name__:
            yield each
            yield from leaves(each)


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for group in (each for each in FieldrelayError.__subclasses__() if each.__module__ == errors.__name__):
        rows = "".join(f"| `{each.code}` | {each.exit_status} | {_meaning(each)} |\n" for each in (group, *leaves(group)))
        parts.append(f"\n## {group.exit_status // 10}x: `{group.code}`\n\n{_meaning(group)}\n\n| code | status | meaning |\n")
        parts.append(f"|---|---|---|\n{rows}")
    return "".join(parts)


def _meaning(kind: type[FieldrelayError]) -> str:
    return " ".join((kind.__doc__ or "").split())
