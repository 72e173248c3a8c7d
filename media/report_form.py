"""The report of a gateway about one visit of a medium, as it travels: one signed JSON document, and what is in it.

1. The document is `{"signed": …, "signatures": [{"keyid", "sig"}]}`. Signed are the bytes of `signed` with sorted members, no
   blanks and everything beyond ASCII escaped; the signature is Ed25519 (RFC 8032), both values are hexadecimal, `keyid` is the
   SHA-256 of the public key as SubjectPublicKeyInfo in DER.
2. A key speaks for the gateway that its reader knows it of, and for no other.
3. A result has an id that is the same wherever it is told (`result_id`): on several media, and by webhook once the line is up.
4. Members that a reader does not know are ignored, so that a newer gateway can say more; another `schema` is refused.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from media.records import MAX_CONTENTS, MAX_NODES, Content, NodeResult
from update.errors import CorruptError, SignatureError
from update.store.journal import JsonValue

SCHEMA: Final = "fieldrelay-report-1"
MAX_REPORT_BYTES: Final = 64 << 20
MAX_MESSAGES: Final = 10_000
MAX_LOG_LINES: Final = 5_000
_Text = Annotated[str, Field(max_length=300)]
_Line = Annotated[str, Field(max_length=4000)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
_Seconds = Annotated[int, Field(ge=0, le=(1 << 53) - 1)]
_IGNORE = ConfigDict(extra="ignore")


@with_config(_IGNORE)
@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message that a receiver upstream does not have yet, in its own words; `id` is the one under which it is sent later."""

    receiver: _Text
    id: _Text
    node: _Text
    action: _Text
    created: _Seconds
    final: bool
    body: Mapping[str, object]


@with_config(_IGNORE)
@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One node as it stands. `seen`: seconds since the epoch."""

    node: _Text
    hardware: _Text
    version: _Text
    sha256: _Text
    slot: _Text
    assigner: _Text
    seen: _Seconds


@with_config(_IGNORE)
@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a gateway tells of one visit. `complete`: all its nodes had ended; a report that was not is followed by one that is.

    `created`: seconds since the epoch. `stale`: why an operator had a medium accepted past its expiry.
    """

    schema: Literal["fieldrelay-report-1"] = "fieldrelay-report-1"
    gateway: _Name
    visit: _Name
    created: _Seconds
    complete: bool
    label: _Text = ""
    course: _Text = ""
    code: _Text = ""
    message: Annotated[str, Field(max_length=1000)] = ""
    stale: _Text = ""
    contents: Annotated[tuple[Content, ...], Field(max_length=MAX_CONTENTS)] = ()
    nodes: Annotated[tuple[NodeResult, ...], Field(max_length=MAX_NODES)] = ()
    pending: Annotated[tuple[Message, ...], Field(max_length=MAX_MESSAGES)] = ()
    inventory: Annotated[tuple[Device, ...], Field(max_length=100_000)] = ()
    logs: Annotated[tuple[_Line, ...], Field(max_length=MAX_LOG_LINES)] = ()

    @property
    def id(self) -> str:
        """The same for the same report, wherever it was read."""
        return f"{self.gateway}.{self.visit}.{'complete' if self.complete else 'first'}"

    def result_id(self, result: NodeResult) -> str:
        """What identifies how one order ended: the id that a webhook sends, or one of the visit for what was never ordered."""
        return f"{self.gateway}.{result.action}" if result.action else f"{self.gateway}.{self.visit}.{result.node}"


_REPORT = TypeAdapter(Report)


def key_id(key: Ed25519PublicKey) -> str:
    """Rule 1."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def to_bytes(report: Report, key: Ed25519PrivateKey) -> bytes:
    """The signed document."""
    signed = _REPORT.dump_python(report, mode="json")
    signature = {"keyid": key_id(key.public_key()), "sig": key.sign(_canonical(signed)).hex()}
    return json.dumps({"signed": signed, "signatures": [signature]}, indent=1, allow_nan=False).encode()


def from_bytes(data: bytes, key_of: Callable[[str], Ed25519PublicKey | None]) -> Report:
    """Verify a document with the key that `key_of` knows of the gateway that it names.

    Errors: `CorruptError` for what is no report, `SignatureError`.
    """
    signed, signatures = _parted(data)
    try:
        report = _REPORT.validate_python(signed)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise CorruptError(f"this is no report of a gateway: {where}: {first['msg']}") from error
    key = key_of(report.gateway)
    if key is None:
        raise SignatureError(f"no key of gateway {report.gateway} is known here; `fieldrelay gateway report-key` shows it there")
    values = [each.get("sig") for each in signatures if isinstance(each, dict) and each.get("keyid") == key_id(key)]
    if not any(_is_good(key, value, _canonical(signed)) for value in values[:1]):
        raise SignatureError(f"the report is not signed by the key that is known of gateway {report.gateway}")
    return report


def is_report(data: bytes) -> bool:
    """Whether these bytes claim to be a report."""
    try:
        signed, _ = _parted(data)
    except CorruptError:
        return False
    return str(signed.get("schema", "")).startswith("fieldrelay-report-")


def _parted(data: bytes) -> tuple[dict[str, JsonValue], list[JsonValue]]:
    if len(data) > MAX_REPORT_BYTES:
        raise CorruptError(f"a report has at most {MAX_REPORT_BYTES} bytes, this one {len(data)}")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptError("this is no JSON document") from error
    signed = document.get("signed") if isinstance(document, dict) else None
    signatures = document.get("signatures") if isinstance(document, dict) else None
    if not isinstance(signed, dict) or not isinstance(signatures, list):
        raise CorruptError("this is no signed document")
    return cast("dict[str, JsonValue]", signed), cast("list[JsonValue]", signatures)


def _canonical(signed: object) -> bytes:
    try:
        return json.dumps(signed, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise CorruptError("a report holds a number that JSON does not have") from error


def _is_good(key: Ed25519PublicKey, value: object, signed: bytes) -> bool:
    try:
        key.verify(bytes.fromhex(value if isinstance(value, str) else ""), signed)
    except (InvalidSignature, ValueError):
        return False
    return True
