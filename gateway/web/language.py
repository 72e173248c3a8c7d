"""Which language a browser wants (RFC 9110, section 12.5.4): the best one that is spoken here, English if it names none."""

import re
from typing import Final

from media.words import Language

_MAX_RANGES: Final = 20
_RANGE: Final = re.compile(r"\s*([a-zA-Z]{1,8}|\*)(?:-[a-zA-Z0-9-]*)?\s*(?:;\s*q=([01](?:\.\d{0,3})?)\s*)?", re.ASCII)


def language_of(accepted: str) -> Language:
    """By the header `Accept-Language`; what cannot be read in it counts for nothing."""
    best, weight = Language.ENGLISH, 0.0
    for part in accepted.split(",", _MAX_RANGES)[:_MAX_RANGES]:
        found = _RANGE.fullmatch(part)
        if found is None:
            continue
        quality, wanted = float(found[2] or 1), found[1].lower()
        if wanted in set(Language) and quality > weight:
            best, weight = Language(wanted), quality
    return best
