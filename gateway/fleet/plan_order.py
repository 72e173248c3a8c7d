"""An order that keeps every edge: as few steps as can be had simply, and the cycle where there is none; pure.

An edge goes from a set of devices to a set of devices, so it is a node of the graph itself, between the devices: walking the
graph costs as much as the sets are large, never their product.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gateway.fleet.schedule import DeviceLimit, Edge, EdgeKind

_LATE_REASONS: Mapping[int, str] = {
    2: "what cannot go back waits until everything else has come up",
    1: "what does not wait for the decision goes after what does",
}


@dataclass(frozen=True, slots=True)
class Link:
    """One device before another, and the edge that says so."""

    before: str
    after: str
    edge: Edge


class Graph:
    """Devices and the edges between them."""

    def __init__(self, devices: Iterable[str], edges: Sequence[Edge]) -> None:
        self.devices = tuple(sorted(devices))
        self.edges = tuple(edges)
        self.leaving: dict[str, list[int]] = defaultdict(list)
        self.entering: dict[str, list[int]] = defaultdict(list)
        for number, edge in enumerate(self.edges):
            for device in edge.before:
                self.leaving[device].append(number)
            for device in edge.after:
                self.entering[device].append(number)

    def after(self, devices: Iterable[str]) -> frozenset[str]:
        """Every device that has to go after one of `devices`."""
        found: set[str] = set()
        seen: set[int] = set()
        waiting = list(devices)
        while waiting:
            for number in self.leaving[waiting.pop()]:
                if number not in seen:
                    seen.add(number)
                    waiting += self.edges[number].after
                    found.update(self.edges[number].after)
        return frozenset(found)

    def cycle(self) -> tuple[Link, ...]:
        """A cycle, each link followed by the next and the last by the first; empty if there is none."""
        left = self._in_no_order()
        if not left:
            return ()
        at, seen, links = min(left), dict[str, int](), list[Link]()
        while at not in seen:
            seen[at] = len(links)
            number = next(each for each in self.entering[at] if not left.isdisjoint(self.edges[each].before))
            before = min(left.intersection(self.edges[number].before))
            links.append(Link(before, at, self.edges[number]))
            at = before
        return tuple(reversed(links[seen[at] :]))

    def steps(self, limits: Sequence[DeviceLimit]) -> tuple[tuple[str, ...], ...]:
        """Devices that may go together, step by step; there must be no cycle.

        Of those that could go, the ones with the longest way behind them go first, as many as the limits let.
        """
        height, open_edges = self._heights(), _Open(self)
        limited: dict[str, list[int]] = defaultdict(list)
        for number, limit in enumerate(limits):
            for device in limit.devices:
                limited[device].append(number)
        steps: list[tuple[str, ...]] = []
        ready = [each for each in self.devices if open_edges.free(each)]
        while ready:
            left = [limit.at_most for limit in limits]
            step = []
            for device in sorted(ready, key=lambda each: (-height[each], each)):
                if all(left[number] > 0 for number in limited[device]):
                    step.append(device)
                    for number in limited[device]:
                        left[number] -= 1
            steps.append(tuple(sorted(step)))
            ready = [each for each in ready if each not in {*step}] + open_edges.close(step)
        return tuple(steps)

    def _in_no_order(self) -> frozenset[str]:
        """Devices that never become free."""
        open_edges = _Open(self)
        free = [each for each in self.devices if open_edges.free(each)]
        left = set(self.devices)
        while free:
            left.difference_update(free)
            free = open_edges.close(free)
        return frozenset(left)

    def _heights(self) -> Mapping[str, int]:
        """How many devices follow one another behind each."""
        order: list[str] = []
        open_edges = _Open(self)
        free = [each for each in self.devices if open_edges.free(each)]
        while free:
            order += free
            free = open_edges.close(free)
        height: dict[str, int] = {}
        behind: dict[int, int] = {}
        for device in reversed(order):
            height[device] = max((behind[number] for number in self.leaving[device]), default=0)
            for number in self.entering[device]:
                behind[number] = max(behind.get(number, 0), height[device] + 1)
        return height


class _Open:
    """Which edges still keep devices back."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._missing = [len(edge.before) for edge in graph.edges]
        self._kept = {device: len(graph.entering[device]) for device in graph.devices}

    def free(self, device: str) -> bool:
        """Whether nothing keeps it back."""
        return not self._kept[device]

    def close(self, done: Iterable[str]) -> list[str]:
        """Which devices are free once `done` have gone."""
        freed: list[str] = []
        for device in done:
            for number in self._graph.leaving[device]:
                self._missing[number] -= 1
                if not self._missing[number]:
                    freed += self._released(number)
        return freed

    def _released(self, number: int) -> Iterable[str]:
        for device in self._graph.edges[number].after:
            self._kept[device] -= 1
            if not self._kept[device]:
                yield device


def late_edges(graph: Graph, late: Mapping[str, int]) -> Iterable[Edge]:
    """Edges that let what is `late` (1 or 2, the higher the later) go last, as far as the graph permits it; never a cycle.

    A device that has to go after a late one is no reason to wait: everything else goes before.
    """
    added: list[Edge] = []
    for level, reason in _LATE_REASONS.items():
        held: Collection[str] = {device for device, each in late.items() if each == level}
        if not held:
            continue
        behind = Graph(graph.devices, [*graph.edges, *added]).after(held)
        before = tuple(each for each in graph.devices if each not in held and each not in behind)
        if before:
            added.append(Edge(before, tuple(sorted(held)), EdgeKind.LATE, reason))
    return tuple(added)
