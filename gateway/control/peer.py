"""Who is at the other end of a Unix socket, by the kernel's word (SO_PEERCRED and SO_PEERGROUPS, unix(7) and socket(7))."""

import socket
import struct
from dataclasses import dataclass

from aiohttp import web

from update.errors import ForbiddenError

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_GROUP = struct.Struct("I")
_SO_PEERGROUPS = 59  # include/uapi/asm-generic/socket.h; Python has no name for it
_MAX_GROUPS = 65536  # NGROUPS_MAX


@dataclass(frozen=True, slots=True)
class Peer:
    """A process: its user, and its groups as they were when it connected."""

    pid: int
    uid: int
    gids: frozenset[int]


@dataclass(frozen=True, slots=True)
class Allowed:
    """Whose commands are taken."""

    uids: frozenset[int]
    gids: frozenset[int]

    def check(self, peer: Peer) -> None:
        """Refuse everybody else: `ForbiddenError`."""
        if peer.uid not in self.uids and not peer.gids & self.gids:
            raise ForbiddenError(
                f"user {peer.uid} may not command this gateway; become root or the gateway's user, or have the user or one of "
                "its groups put into [control] allowed_uids or allowed_gids"
            )


def peer_of(request: web.BaseRequest) -> Peer:
    """The caller of a request that came by a Unix socket; `ForbiddenError` for one that did not."""
    connection = None if request.transport is None else request.transport.get_extra_info("socket")
    if connection is None or connection.family != socket.AF_UNIX:
        raise ForbiddenError("commands are taken by the Unix socket only")
    return credentials(connection)


def credentials(connection: socket.socket) -> Peer:
    """The peer of a connected Unix socket."""
    pid, uid, gid = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return Peer(pid, uid, frozenset({gid, *_groups(connection)}))


def _groups(connection: socket.socket) -> list[int]:
    try:
        data = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_GROUPS * _GROUP.size)
    except OSError:  # kernels before 4.13: the primary group has to do
        return []
    return [gid for (gid,) in _GROUP.iter_unpack(data)]
