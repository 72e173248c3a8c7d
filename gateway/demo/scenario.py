"""The main job, end to end, on this machine: what happens in which order, and what must be true at the end.

Real processes: the gateway and every node. The upstream server runs here, so that its bytes can be counted and it can be
stopped; its rate is limited like a line's, which leaves time to kill the gateway in the middle of a download.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from gateway.control.messages import AssignRequest, TokenRequest
from gateway.database.records import ActionOutcome
from gateway.demo.appliance import Appliance
from gateway.demo.figures import (
    CONFIRMED,
    ROLLED_BACK,
    Figures,
    NodeFigures,
    StickFigures,
    metadata_bytes,
    problems,
    repeated_bytes,
    stick_problems,
    union_bytes,
)
from gateway.demo.images import DemoImage, build_images
from gateway.demo.line import Ground, Line
from gateway.demo.line_figures import LineRun
from gateway.demo.nodes import Factory, Plan, bootloader_here, slot_digest
from gateway.demo.release import Release, publish_releases
from gateway.demo.screen import Screen
from gateway.demo.stick import big_words, plug_in, write_stick
from gateway.simulators.board import Board
from gateway.simulators.upstream import Faults, UpstreamServer
from gateway.status import NodeState
from update.chunks.zchunk import HeaderIndex, parse_header
from update.digest import digest_file
from update.durable import Disk
from update.errors import StateError, WireError
from update.publish.images import zck_header

SEED = 20
CAP_BYTES = 120 << 20
LINE_BYTES_PER_S = 3_000_000
NEW = "1.2"
FIRST = (Plan("node-1", "1.0"), Plan("node-2", "1.1"), Plan("node-3", "1.0", fails_on=NEW))
LATE = Plan("node-4", "1.1")
_LOOK_S = 0.2
_NODE_S = 60.0
_KILL_AT = 0.4

_RESULTS: dict[str, str] = {ActionOutcome.SUCCESS: CONFIRMED, ActionOutcome.ROLLED_BACK: ROLLED_BACK}

Condition = Callable[[Sequence[NodeState]], bool]


class Demo:
    """One run below `work`, an empty folder. `interface` and `address` say where the gateway can be found."""

    def __init__(self, work: Path, screen: Screen, *, interface: str, address: str) -> None:
        self._work = work
        self._screen = screen
        self._disk = Disk()
        self._interface = interface
        self._bootloader = bootloader_here()
        self._boards: dict[str, Board] = {}
        self._gateway = Appliance(work / "gateway", interface=interface, address=address)
        self._started_s = time.monotonic()
        self.problems: list[str] = []

    async def run(self, shown: Callable[[Figures], None], stay: Callable[[], Awaitable[None]] | None = None) -> None:
        """Everything, in order; `shown` gets the figures, then the site is left running while `stay` lasts."""
        images = await asyncio.to_thread(build_images, self._work, seed=SEED, cap_bytes=CAP_BYTES, progress=self._screen.step)
        *known, last = images
        release = await asyncio.to_thread(publish_releases, tuple(known), self._work, self._disk, self._screen.step)
        async with AsyncExitStack() as cleanup:
            upstream = UpstreamServer(release.folder, faults=Faults(bytes_per_s=LINE_BYTES_PER_S))
            cleanup.push_async_callback(self._power_off)
            cleanup.push_async_callback(self._gateway.kill)
            await cleanup.enter_async_context(upstream)
            factory = await self._set_up(known, release, upstream)
            await self._update_first(upstream, _headers(release))
            before_late = upstream.traffic.sent_bytes
            await self._update_late(factory, upstream)
            late_bytes = upstream.traffic.sent_bytes - before_late
            figures = await self._measure(known, release, upstream, late_bytes)
            stick = await self._update_by_stick(release, last, upstream)
            self.problems += stick_problems(stick, (await asyncio.to_thread(digest_file, last.path))[0])
            line = await self._update_line(factory, upstream, cleanup)
            shown(replace(figures, stick=stick, line=line, seconds=round(time.monotonic() - self._started_s, 1)))
            if stay is not None:
                self._screen.step("all of it stays up until Ctrl-C")
                await stay()
            await self._gateway.stop()

    async def _set_up(self, images: Sequence[DemoImage], release: Release, upstream: UpstreamServer) -> Factory:
        """The gateway mirrors, three nodes find it."""
        self._screen.step(f"starting the gateway; slots switch by {self._bootloader}{_hint(self._bootloader)}")
        self._disk.make_folder(self._work / "gateway")
        await self._gateway.set_up(self._disk, release, [upstream.url])
        await self._gateway.start()
        factory = Factory(
            work=self._work,
            disk=self._disk,
            images={image.version: image for image in images},
            release=release,
            site_ca=self._gateway.site_ca,
            interface=self._interface,
            bootloader=self._bootloader,
        )
        self._screen.step("three nodes look for the gateway by mDNS")
        for plan in FIRST:
            await self._power_on(factory, plan)
        await self._wait(upstream, lambda nodes: len([node for node in nodes if node.running.version]) == len(FIRST))
        return factory

    async def _update_first(self, upstream: UpstreamServer, headers: dict[str, HeaderIndex]) -> None:
        """Release 1.2 for all; the gateway is killed in the middle of the download."""
        await self._assign([plan.id for plan in FIRST])
        union = union_bytes(headers[NEW], [headers[plan.version] for plan in FIRST])
        await self._wait(upstream, lambda _nodes: _image_bytes(upstream) > _KILL_AT * union)
        self._screen.step("killing the gateway in the middle of the download (SIGKILL)")
        await self._gateway.kill()
        await self._gateway.start()
        self._screen.step("the gateway is back")
        await self._wait(upstream, _all_ended({plan.id for plan in FIRST}))

    async def _update_late(self, factory: Factory, upstream: UpstreamServer) -> None:
        """Upstream is gone; a fourth node appears and is updated all the same."""
        self._screen.step("stopping upstream; a fourth node appears")
        await upstream.stop()
        await self._power_on(factory, LATE)
        await self._wait(upstream, lambda nodes: any(node.id == LATE.id and node.running.version for node in nodes))
        await self._assign([LATE.id])
        await self._wait(upstream, _all_ended({LATE.id}))

    async def _update_by_stick(self, release: Release, image: DemoImage, upstream: UpstreamServer) -> StickFigures:
        """Upstream is still gone; somebody brings the next release in his hand."""
        self._screen.step(f"a stick brings {image.version}; a folder stands for it")
        stick = await asyncio.to_thread(write_stick, release, image, self._work / "stick")
        began_s = time.monotonic()
        state = await plug_in(stick, self._gateway.intake, self._disk)
        safe_s = time.monotonic() - began_s
        self._screen.step(f"{big_words(state)}: {state.done_bytes / 1e6:.1f} MB were read")
        names = [plan.id for plan in (*FIRST, LATE)]
        await self._wait(upstream, _all_run(image.version, set(names)))
        nodes = {node.id: node for node in await self._gateway.client.nodes()}
        slots = {name: nodes[name].running.slot for name in names}
        digests = [await asyncio.to_thread(slot_digest, self._work / "nodes" / name, slot) for name, slot in slots.items()]
        return StickFigures(
            version=image.version,
            stage=state.stage,
            bytes=state.done_bytes,
            safe_seconds=round(safe_s, 1),
            nodes=tuple(names),
            slots_sha256=tuple(digests),
        )

    async def _update_line(self, factory: Factory, upstream: UpstreamServer, cleanup: AsyncExitStack) -> tuple[LineRun, ...]:
        """Upstream is back; four devices of a line are updated as one, well and not."""
        line = Line(Ground(factory, self._gateway, upstream, self._screen), cleanup)
        runs = await line.show()
        self.problems += line.problems
        return runs

    async def _power_on(self, factory: Factory, plan: Plan) -> None:
        token = await self._gateway.client.token(TokenRequest(node=plan.id, valid_s=3600, reason="demo"))
        board = await asyncio.to_thread(factory.make, plan, token.token)
        self._boards[plan.id] = board
        board.power_on()

    async def _power_off(self) -> None:
        for board in self._boards.values():
            await board.off()

    async def _assign(self, nodes: Sequence[str]) -> None:
        self._screen.step(f"assigning {NEW} to {', '.join(nodes)}")
        await self._gateway.client.assign(AssignRequest(release=NEW, nodes=tuple(nodes), repository="", reason="demo"))

    async def _wait(self, upstream: UpstreamServer, until: Condition) -> None:
        """Show the nodes until a condition holds; bounded."""
        nodes: Sequence[NodeState] = ()
        try:
            async with asyncio.timeout(_NODE_S):
                while True:
                    nodes = await self._nodes(nodes)
                    self._screen.update(nodes, upstream.traffic.sent_bytes)
                    if until(nodes):
                        return
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError as error:
            shown = ", ".join(f"{node.id} {node.wanted.standing if node.wanted else 'idle'}" for node in nodes) or "no nodes"
            raise StateError(f"nothing came of it in {_NODE_S:g} s ({shown}); the logs are in {self._work}") from error

    async def _nodes(self, last: Sequence[NodeState]) -> Sequence[NodeState]:
        try:
            return await self._gateway.client.nodes()
        except WireError:
            return last

    async def _measure(self, images: Sequence[DemoImage], release: Release, upstream: UpstreamServer, late_bytes: int) -> Figures:
        headers, states = _headers(release), {node.id: node for node in await self._gateway.client.nodes()}
        plans = (*FIRST, LATE)
        nodes = tuple([await asyncio.to_thread(self._node_figures, plan, states[plan.id]) for plan in plans])
        figures = Figures(
            image_bytes=images[-1].size,
            zck_bytes=headers[NEW].total_length,
            upstream_bytes=upstream.traffic.sent_bytes,
            metadata_bytes=metadata_bytes(upstream.traffic),
            repeated_bytes=repeated_bytes(upstream.traffic),
            union_bytes=union_bytes(headers[NEW], [headers[plan.version] for plan in plans]),
            late_bytes=late_bytes,
            bootloader=self._bootloader,
            nodes=nodes,
            seconds=round(time.monotonic() - self._started_s, 1),
        )
        digests = {image.version: (await asyncio.to_thread(digest_file, image.path))[0] for image in images}
        self.problems = problems(figures, [_expected(plan) for plan in plans], dict(digests))
        return figures

    def _node_figures(self, plan: Plan, state: NodeState) -> NodeFigures:
        report = state.wanted.report if state.wanted else {}
        outcome = state.wanted.outcome if state.wanted else ""
        slot = state.running.slot
        return NodeFigures(
            id=plan.id,
            start=plan.version,
            wanted=NEW,
            result=_RESULTS.get(outcome, outcome),
            downloaded_bytes=int(str(report.get("downloaded_bytes") or 0)),
            reused_bytes=int(str(report.get("reused_bytes") or 0)),
            slot=slot,
            slot_sha256=slot_digest(self._work / "nodes" / plan.id, slot),
        )


def _expected(plan: Plan) -> NodeFigures:
    fails = plan.fails_on == NEW
    return NodeFigures(plan.id, plan.version, NEW, ROLLED_BACK if fails else CONFIRMED, 0, 0, "a" if fails else "b", "")


def _all_ended(names: set[str]) -> Condition:
    return lambda nodes: names <= {node.id for node in nodes if node.wanted and node.wanted.outcome}


def _all_run(version: str, names: set[str]) -> Condition:
    return lambda nodes: (
        names <= {node.id for node in nodes if node.running.version == version and node.wanted and node.wanted.outcome}
    )


def _image_bytes(upstream: UpstreamServer) -> int:
    return sum(count for path, count in upstream.traffic.per_path_bytes.items() if path.endswith(".zck"))


def _headers(release: Release) -> dict[str, HeaderIndex]:
    return {version: parse_header(zck_header(built.deltas[0].file)) for version, built in release.built.items()}


def _hint(bootloader: str) -> str:
    return " (u-boot-tools and libubootenv-tool are not installed)" if bootloader == "simulated" else ", the real tools"
