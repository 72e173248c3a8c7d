"""Files that people provide: configuration, specifications, keys and certificates, read within limits.

TOML is checked as a whole, so that a person gets every mistake at once, each by its key in the words of TOML. A key that is
not known is a mistake: a misspelt `cms_treshold` must not silently mean the default. Relative paths are meant from the file
that names them. `format_version` is refused when it is newer than this release knows; nothing is guessed.

The annotated types are those that several files share: a name, hardware, a path, an HTTP address, a purpose.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError, ValidationInfo

from update.errors import ConfigurationError, FormatVersionError
from update.identity import Hardware, check_name

MAX_PROVIDED_BYTES: Final = 1 << 20
CODE_SIGNING: Final = "1.3.6.1.5.5.7.3.3"  # id-kp-codeSigning, RFC 5280 section 4.2.1.12
NO_OTHER_KEYS: Final = ConfigDict(extra="forbid")
_FOLDER: Final = "folder"
_OBJECT_IDENTIFIER = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+", re.ASCII)
_UNKNOWN_KEY = frozenset({"Unexpected keyword argument", "Extra inputs are not permitted"})
_T = TypeVar("_T")


def read_provided(file: Path, *, max_bytes: int = MAX_PROVIDED_BYTES) -> bytes:
    """The whole file; `ConfigurationError` if it cannot be read or has more than `max_bytes` bytes."""
    try:
        with file.open("rb") as opened:
            data = opened.read(max_bytes + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror or error}") from error
    if len(data) > max_bytes:
        raise ConfigurationError(f"{file} is larger than {max_bytes} bytes; is it the right file?")
    return data


def read_toml(file: Path) -> Mapping[str, object]:
    """The values of a TOML file; `ConfigurationError` for what is no UTF-8 or no TOML."""
    return parse_toml(read_provided(file), file)


def parse_toml(text: bytes | str, file: Path) -> Mapping[str, object]:
    """The values of TOML text; `file` names it in messages."""
    try:
        return tomllib.loads(text if isinstance(text, str) else text.decode())
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file} is not UTF-8 at byte {error.start}") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:  # brackets beyond reason
        raise ConfigurationError(f"{file} is not TOML: {error}") from error


def refuse_newer(values: Mapping[str, object], file: Path, *, known: int) -> None:
    """`FormatVersionError` if the file's `format_version` is newer than `known`."""
    version = values.get("format_version")
    if isinstance(version, int) and version > known:
        raise FormatVersionError(
            f"{file} has format_version {version}, this release knows up to {known}; use the release it was written for"
        )


def check_values(adapter: TypeAdapter[_T], values: Mapping[str, object], file: Path) -> _T:
    """The checked form of `values`; `ConfigurationError` names every mistake by its key."""
    try:
        return adapter.validate_python(values, context={_FOLDER: file.absolute().parent})
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        raise ConfigurationError(f"{file}: " + "; ".join(_mistake(each["loc"], each["msg"]) for each in details)) from error


def _mistake(location: tuple[int | str, ...], message: str) -> str:
    """`repository[0].cms_threshold: …`, in the words of TOML and not of the validator."""
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    text = message.removeprefix("Value error, ")
    return f"{key or 'the file'}: {'no such key' if text in _UNKNOWN_KEY else text}"


def named_after(file: Path, info: ValidationInfo) -> Path:
    """`file`, meant from the folder of the file that names it."""
    folder = info.context.get(_FOLDER) if isinstance(info.context, dict) else None
    return folder / file if isinstance(folder, Path) else file


def _checked_name(text: str) -> str:
    try:
        return check_name(text, "a name")
    except ConfigurationError as error:
        raise ValueError(str(error)) from error


def _checked_hardware(text: str) -> str:
    try:
        return str(Hardware.parse(text))
    except ConfigurationError as error:
        raise ValueError(str(error)) from error


def _checked_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be http://HOST... or https://HOST...")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a user name or password: credentials do not belong into a URL, but into a file of their own")
    return text


def _checked_purpose(text: str) -> str:
    if text and not _OBJECT_IDENTIFIER.fullmatch(text):
        raise ValueError("an extended key usage is an object identifier such as 1.3.6.1.5.5.7.3.3, or empty for any")
    return text


Name = Annotated[str, AfterValidator(_checked_name)]
HardwareText = Annotated[str, AfterValidator(_checked_hardware)]
ProvidedPath = Annotated[Path, AfterValidator(named_after)]
Url = Annotated[str, AfterValidator(_checked_url)]
Purpose = Annotated[str, AfterValidator(_checked_purpose)]
