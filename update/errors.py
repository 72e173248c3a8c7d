"""The error tree: every refusal of the product has a name, a stable code and an exit status.

    FieldrelayError
    ├── UsageError   1x  the caller or the state of this machine
    ├── TrustError   2x  who signed, how fresh, may it run here
    ├── BundleError  3x  the file itself: container, description, chunks
    ├── DeviceError  4x  slots, bootloader, handlers, health
    ├── StoreError   5x  disk and space
    ├── WireError    6x  the network
    └── MediumError  7x  a stick, or what is on it

A leaf is a class with two attributes. The message says what was attempted, both values and what to do; the cause is
chained (`raise ... from error`), never repeated. Libraries raise; command line, DDI, page and reports translate at the
edge and show the same `code`.
"""

from typing import ClassVar


class FieldrelayError(Exception):
    """The root. Never raised itself: a refusal without a name helps nobody."""

    code: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 1


class UsageError(FieldrelayError):
    """The caller, the configuration, or the state of this machine."""

    code = "usage"
    exit_status = 10


class ConfigurationError(UsageError):
    """A configuration file that cannot be meant: the message names the key."""

    code = "usage.configuration"
    exit_status = 11


class MissingExtraError(UsageError):
    """A sub-command whose optional dependencies are not installed."""

    code = "usage.extra-missing"
    exit_status = 12


class BusyError(UsageError):
    """Another process holds what this one needs."""

    code = "usage.busy"
    exit_status = 13


class StateError(UsageError):
    """The request does not fit the state the machine is in."""

    code = "usage.state"
    exit_status = 14


class FormatVersionError(UsageError):
    """A file or database written by a newer release than this one."""

    code = "usage.format-version"
    exit_status = 15


class UnknownNodeError(UsageError):
    """No node of that name has ever been here."""

    code = "usage.unknown-node"
    exit_status = 16


class AmbiguousError(UsageError):
    """What was asked for is more than one thing."""

    code = "usage.ambiguous"
    exit_status = 16


class AssignerError(UsageError):
    """The node takes its orders from another assigner."""

    code = "usage.assigner"
    exit_status = 17


class PlanRefusedError(UsageError):
    """A release plan cannot be carried out on this site as it is now; nothing was touched."""

    code = "usage.plan-refused"
    exit_status = 18


class TrustError(FieldrelayError):
    """Something was signed by the wrong hands, too old, or not for this device."""

    code = "trust"
    exit_status = 20


class SignatureError(TrustError):
    """A signature is missing, malformed, or by a key that is not trusted (arbitrary software)."""

    code = "trust.signature"
    exit_status = 21


class ThresholdError(TrustError):
    """Fewer distinct keys signed than the threshold demands (key compromise below threshold)."""

    code = "trust.threshold"
    exit_status = 21


class CertificateError(TrustError):
    """A certificate is expired, not yet valid, revoked, of the wrong purpose, or chains to no trusted root."""

    code = "trust.certificate"
    exit_status = 21


class RollbackError(TrustError):
    """A version lower than one already trusted was offered."""

    code = "trust.rollback"
    exit_status = 22


class ExpiredError(TrustError):
    """Metadata is past its expiry (freeze)."""

    code = "trust.expired"
    exit_status = 23


class MixAndMatchError(TrustError):
    """Metadata files that were never published together."""

    code = "trust.mix-and-match"
    exit_status = 24


class FastForwardError(TrustError):
    """A version number so high that no later release could follow it."""

    code = "trust.fast-forward"
    exit_status = 24


class MetadataError(TrustError):
    """Metadata that is not what its role says: malformed, or of another type."""

    code = "trust.metadata"
    exit_status = 25


class UnknownTargetError(TrustError):
    """No trusted role lists the target."""

    code = "trust.unknown-target"
    exit_status = 26


class HardwareError(TrustError):
    """The release is not for this hardware."""

    code = "trust.hardware"
    exit_status = 27


class ProvenanceError(TrustError):
    """The policy of the node demands a stronger proof than the bundle carries."""

    code = "trust.provenance"
    exit_status = 28


class FloorError(TrustError):
    """Both copies of the floor are lost or damaged: an operator must decide."""

    code = "trust.floor-lost"
    exit_status = 29


class EndlessDataError(TrustError):
    """More bytes than announced or allowed."""

    code = "trust.endless-data"
    exit_status = 25


class LengthOrHashError(TrustError):
    """Content that is not what the signed metadata promises."""

    code = "trust.length-or-hash"
    exit_status = 25


class FenceError(TrustError):
    """An order from an assigner whose lease is over: a newer one was seen already."""

    code = "trust.fence"
    exit_status = 22


class BundleError(FieldrelayError):
    """The bundle file."""

    code = "bundle"
    exit_status = 30


class ContainerError(BundleError):
    """The cpio archive is malformed, truncated, out of order, or holds a forbidden name."""

    code = "bundle.container"
    exit_status = 31


class DescriptionError(BundleError):
    """sw-description is malformed or says something that cannot be installed."""

    code = "bundle.description"
    exit_status = 32


class PlanError(BundleError):
    """A release plan is malformed or contradicts itself."""

    code = "bundle.plan"
    exit_status = 32


class LimitError(BundleError):
    """A size or count above its limit, found before anything was allocated."""

    code = "bundle.limit"
    exit_status = 33


class HashMismatchError(BundleError):
    """A member is not what the signed description says."""

    code = "bundle.hash"
    exit_status = 34


class MissingMemberError(BundleError):
    """The description names a member that the archive lacks, or the archive holds one nobody named."""

    code = "bundle.member"
    exit_status = 35


class CompressionError(BundleError):
    """Compressed data that does not decode, or decodes to more than was announced."""

    code = "bundle.compression"
    exit_status = 36


class ChunkError(BundleError):
    """A zchunk header or chunk, a delta or a patch that is malformed or does not match its digest."""

    code = "bundle.chunk"
    exit_status = 37


class UnsupportedError(BundleError):
    """A well-formed bundle that needs something this release does not have."""

    code = "bundle.unsupported"
    exit_status = 38


class DeviceImageError(BundleError):
    """The image for a microcontroller is none, is truncated, or is made in a way that forbids a trial."""

    code = "bundle.device-image"
    exit_status = 39


class DeviceError(FieldrelayError):
    """The device being updated."""

    code = "device"
    exit_status = 40


class SlotError(DeviceError):
    """A slot is missing, too small, active, or cannot be written."""

    code = "device.slot"
    exit_status = 41


class ReadBackError(DeviceError):
    """What was read back from a slot is not what was written."""

    code = "device.read-back"
    exit_status = 42


class BootloaderError(DeviceError):
    """The bootloader's environment cannot be read, is not redundant, or refused a write."""

    code = "device.bootloader"
    exit_status = 43


class HandlerError(DeviceError):
    """A script or handler of the bundle failed."""

    code = "device.handler"
    exit_status = 44


class HealthError(DeviceError):
    """The new version came up but did not pass its health checks in time."""

    code = "device.health"
    exit_status = 45


class RolledBackError(DeviceError):
    """The device is back on its previous version."""

    code = "device.rolled-back"
    exit_status = 46


class LostDecisionError(DeviceError):
    """A trial was held for a decision about several devices, and nobody told it in time: the device went back."""

    code = "device.undecided"
    exit_status = 46


class InterlockError(DeviceError):
    """The machine is not in a state in which the device may be restarted, and did not come into it in time."""

    code = "device.interlock"
    exit_status = 44


class SilentError(DeviceError):
    """An attached device does not answer."""

    code = "device.silent"
    exit_status = 47


class ProgramError(DeviceError):
    """The program that stands between the agent and a device broke its contract, or ran out of its time."""

    code = "device.program"
    exit_status = 48


class FlashError(DeviceError):
    """A flash chip or its programmer is missing, is unknown, is another one, or is not protected as it must be."""

    code = "device.flash"
    exit_status = 48


class NoWayBackError(DeviceError):
    """The device's only image would be overwritten, and no copy of it is at hand."""

    code = "device.no-way-back"
    exit_status = 49


class StoreError(FieldrelayError):
    """The local disk."""

    code = "store"
    exit_status = 50


class NoSpaceError(StoreError):
    """The disk, or the quota, is full."""

    code = "store.no-space"
    exit_status = 51


class CorruptError(StoreError):
    """Something kept on disk no longer matches its digest or checksum."""

    code = "store.corrupt"
    exit_status = 52


class NotStoredError(StoreError):
    """The store does not hold what was asked for."""

    code = "store.not-found"
    exit_status = 53


class WireError(FieldrelayError):
    """The network and the peers on it."""

    code = "wire"
    exit_status = 60


class UnreachableError(WireError):
    """No connection, or it broke and could not be resumed."""

    code = "wire.unreachable"
    exit_status = 61


class NotFoundError(WireError):
    """The peer says that it does not have it (404, or 403 as TUF allows)."""

    code = "wire.not-found"
    exit_status = 62


class ProtocolError(WireError):
    """The peer answered with something the protocol does not allow."""

    code = "wire.protocol"
    exit_status = 63


class RangeNotSatisfiableError(WireError):
    """A Range header that no part of the file satisfies, or whose ranges overlap (416)."""

    code = "wire.range"
    exit_status = 63


class NotReadyError(WireError):
    """Whether it is here cannot be said yet: nothing of a repository has been verified so far. Ask again."""

    code = "wire.not-ready"
    exit_status = 61


class SlowError(WireError):
    """The peer sends slower than the configured minimum rate (slow retrieval)."""

    code = "wire.slow"
    exit_status = 64


class UnauthorizedError(WireError):
    """The peer refuses our credential, or we refuse its."""

    code = "wire.unauthorized"
    exit_status = 65


class ForbiddenError(WireError):
    """A known peer asks for what is not its own."""

    code = "wire.forbidden"
    exit_status = 65


class NotProxiedError(WireError):
    """A request for somewhere else: only URLs that verified bundles name are answered for others."""

    code = "wire.not-proxied"
    exit_status = 65


class LockedError(WireError):
    """Somebody else is at it at this moment: ask again."""

    code = "wire.locked"
    exit_status = 61


class GoneError(WireError):
    """It was here, and its time is over."""

    code = "wire.gone"
    exit_status = 62


class ChecksumError(WireError):
    """What arrived is not what was sent; none of it was kept."""

    code = "wire.checksum"
    exit_status = 63


class TooLargeError(WireError):
    """A message above its size limit; it was not read to its end."""

    code = "wire.too-large"
    exit_status = 63


class PeerIdentityError(WireError):
    """The peer's TLS identity is not the one that is trusted (a spoofed or wrong gateway)."""

    code = "wire.identity"
    exit_status = 66


class MediumError(FieldrelayError):
    """A medium that travels by hand: it cannot be used, or not any more."""

    code = "medium"
    exit_status = 70


class MediumGoneError(MediumError):
    """The medium was pulled out; what was copied is kept, and the copy goes on when it comes back."""

    code = "medium.gone"
    exit_status = 71


class MediumUnreadableError(MediumError):
    """The medium answers with errors, or is no file system that is read here."""

    code = "medium.unreadable"
    exit_status = 72


class MediumLimitError(MediumError):
    """The medium holds more files, or deeper folders, than anything meant for a gateway does."""

    code = "medium.limit"
    exit_status = 73


class MediumRefusedError(MediumError):
    """The policy of this gateway does not allow this medium."""

    code = "medium.not-allowed"
    exit_status = 74


class MediumChangedError(MediumError):
    """The medium showed other bytes than before: it changed while it was read."""

    code = "medium.changed"
    exit_status = 75


class MediumFullError(MediumError):
    """There is no room on the medium, or it cannot be written."""

    code = "medium.full"
    exit_status = 76
