"""The family of a failure as a number: what a light can flash and a beeper can beep.

It is the first digit of the exit status that goes with the code (`update.errors`): 1 use, 2 trust, 3 bundle, 4 device, 5 store,
6 network, 7 medium. How a node ended without a code of its own counts as a device's failure.
"""

from types import MappingProxyType
from typing import Final

from update.errors import (
    BundleError,
    DeviceError,
    FieldrelayError,
    MediumError,
    StoreError,
    TrustError,
    UsageError,
    WireError,
)

_FAMILIES: Final[tuple[type[FieldrelayError], ...]] = (
    UsageError,
    TrustError,
    BundleError,
    DeviceError,
    StoreError,
    WireError,
    MediumError,
)
COUNTS: Final = MappingProxyType({family.code: family.exit_status // 10 for family in _FAMILIES})


def count_of(code: str) -> int:
    """From 1 to 7; 4 for what is none of our codes: the end of a node."""
    return COUNTS.get(code.partition(".")[0], DeviceError.exit_status // 10)
