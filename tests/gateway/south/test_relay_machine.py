"""The relay under any interleaving of clients, faults and crashes, against a model that knows what is signed.

Nothing runs but what a rule has run (`stepped.py`), so that a failure is repeated by its blob. What must hold at every moment:

- every byte that a client gets is right, also from a descriptor that it has kept;
- the bitmap on disk claims no chunk that is not in the file;
- no chunk is asked for while another fetch of it is under way, nor again once it was had, unless a crash or the disk took it;
- who waits gets right bytes or a named refusal, and once all faults have ended everybody is served, and nothing is left open.
"""

import hashlib
import logging
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from gateway.south.sparse import bitmap_of
from tests.builders.hand_upstream import Besides, Fail, Order, Send
from tests.builders.relay_process import CHUNKS, HOLD_S, Complaints, Process, SmallFile
from tests.builders.relayed import open_descriptors
from tests.disk_model import Model, disks
from tests.replay import CrashState, Recorder
from update.chunks.ranges import Range
from update.errors import FieldrelayError, NotFoundError, ProtocolError, SlowError, UnreachableError

_LOG = logging.getLogger("gateway.south")
_MAP_HEAD_BYTES, _MAP_TAIL_BYTES = 6 + 32, 32
_STATES = 40


class RelayMachine(RuleBasedStateMachine):
    """Rules are what may happen; see the head of this module for what must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.descriptors = open_descriptors()
        self.complaints = Complaints()
        _LOG.addHandler(self.complaints)
        self.base = Path(mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))  # noqa: S108 - a new private folder
        self.file = SmallFile(self.base)
        self.starts = 0
        self.rotten: set[int] = set()
        self.next_start: tuple[int | None, list[int]] = (None, [])
        self.process = self._start(self._new_folder())

    def _new_folder(self) -> Path:
        self.starts += 1
        folder = self.base / str(self.starts)
        folder.mkdir()
        return folder

    def _start(self, folder: Path, recorder: Recorder | None = None) -> Process:
        self.folder = folder
        return Process(folder, self.file, recorder or Recorder(folder))

    @initialize(begun=st.booleans(), numbers=st.sets(st.integers(0, CHUNKS - 1)))
    def begin(self, begun: bool, numbers: set[int]) -> None:
        """With nothing, or with a header and some chunks."""
        if begun:
            self.arrive(numbers | {1})
            self.all_goes_well_for_a_while(40)

    # What clients do.

    @rule(numbers=st.sets(st.integers(0, CHUNKS - 1), min_size=1))
    def arrive(self, numbers: set[int]) -> None:
        self.process.ask(self.file.ranges(numbers))
        self.process.loop.step(2)

    @rule()
    def arrive_for_everything(self) -> None:
        self.process.ask([Range(0, len(self.file.content))])

    @precondition(lambda self: self.process.tasks)
    @rule(place=st.integers(0, 9))
    def leave(self, place: int) -> None:
        self.process.tasks[place % len(self.process.tasks)].cancel()
        self.process.loop.step()

    @precondition(lambda self: self.process.leases)
    @rule(place=st.integers(0, 9))
    def end_reading(self, place: int) -> None:
        self.process.leases.pop(place % len(self.process.leases))[1]()

    # What time, threads and upstreams do.

    @rule(steps=st.integers(1, 6))
    def run(self, steps: int) -> None:
        self.process.loop.step(steps)

    @rule(place=st.integers(0, 3))
    def a_thread_works(self, place: int) -> None:
        self.process.loop.threads.do(place)
        self.process.loop.step()

    @rule(seconds=st.sampled_from([0.01, 1.0, HOLD_S + 1]))
    def time_passes(self, seconds: float) -> None:
        self.process.loop.now_s += seconds
        self.process.loop.step()

    @precondition(lambda self: self.process.requests)
    @rule(
        place=st.integers(0, 5),
        orders=st.lists(
            st.one_of(
                st.builds(Send, st.integers(1, 4000)),
                st.builds(Send, st.just(1 << 20)),
                st.builds(Send, st.integers(1, 2000), st.just(True)),
                st.builds(Besides, st.integers(1, 4000)),
                st.sampled_from(
                    [
                        Fail(None),
                        Fail(lambda: UnreachableError("cut")),
                        Fail(lambda: SlowError("slow")),
                        Fail(lambda: ProtocolError("odd")),
                        Fail(lambda: NotFoundError("404")),
                    ]
                ),
            ),
            min_size=1,
            max_size=6,
        ),
    )
    def an_upstream_acts(self, place: int, orders: list[Order]) -> None:
        request = self.process.requests[place % len(self.process.requests)]
        for order in orders:
            request.orders.put_nowait(order)
        self.process.loop.step(3)

    @rule(rounds=st.integers(1, 30))
    def all_goes_well_for_a_while(self, rounds: int) -> None:
        for _ in range(rounds):
            for request in self.process.requests:
                request.orders.put_nowait(Send(1 << 20))
            self.process.loop.step(6)
            self.process.loop.threads.do(0)
            self.process.loop.now_s += 0.01
            self.check_clients()

    # What the gateway does by itself.

    @rule()
    def evict(self) -> None:
        self.process.evicting = True
        self.process.tasks.append(self.process.loop.create_task(self.process.site.relays.evict(self.file.info.sha256)))
        self.process.loop.step()

    @rule()
    def scrub(self) -> None:
        async def at_once(_bytes: int) -> None:
            return

        self.process.tasks.append(self.process.loop.create_task(self.process.site.relays.recheck(at_once)))
        self.process.loop.step()

    # What breaks.

    @rule()
    def the_disk_is_full(self) -> None:
        self.process.medium.full = True

    @rule()
    def there_is_room_again(self) -> None:
        self.process.medium.full = False

    @precondition(lambda self: self.process.medium.left is None)
    @rule(
        operations=st.integers(0, 12),
        state=st.none() | st.integers(0, _STATES - 1),
        rot=st.just([]) | st.lists(st.integers(0, CHUNKS - 1), max_size=4),
    )
    def the_process_will_be_killed(self, operations: int, state: int | None, rot: list[int]) -> None:
        """So many operations of the disk later; by a power cut that leaves the disk in a possible `state`, or by a signal.

        Some of what is claimed may have rotted when it starts again.
        """
        self.process.medium.left = operations
        self.next_start = state, rot

    @invariant()
    def the_dead_are_replaced(self) -> None:
        if self.process.medium.dead:
            self._start_again(*self.next_start)

    def _start_again(self, state: int | None, rot: list[int]) -> None:
        recorder: Recorder | None = self.process.recorder
        self.process.end()
        self.complaints.heard.clear()
        if state is not None:
            folder, recorder = self._after_power_cut(state), None
        else:
            folder = self.folder
        if self._rot(folder, rot):
            recorder = None
        self.process = self._start(folder, recorder)

    def _after_power_cut(self, number: int) -> Path:
        trace, folder = self.process.recorder.trace(), self._new_folder()
        model = Model(trace.start)
        for step in trace.steps:
            model.apply(step)
        states = list(islice(disks(model, _STATES, random.Random(number)), _STATES))
        names, contents = states[number % len(states)]
        CrashState(len(trace.steps), 0, busy=True, names=names, contents=contents).materialise(folder)
        return folder

    def _rot(self, folder: Path, places: list[int]) -> bool:
        """Flip a byte in chunks that the bitmap claims; whether there are any."""
        sparse = folder / self.process.sparse.relative_to(self.folder)
        self.folder = folder
        claimed = list(_claimed(sparse))
        numbers = {claimed[place % len(claimed)] for place in places if claimed}
        for number in numbers:
            start = self.file.index[number].start
            with sparse.open("r+b") as opened:
                opened.seek(start)
                opened.write(bytes([self.file.content[start] ^ 0xFF]))
        self.rotten |= numbers
        return bool(numbers)

    # What must hold.

    @invariant()
    def check_clients(self) -> None:
        """Whoever has ended has right bytes, or was refused by name."""
        for task in [task for task in self.process.tasks if task.done()]:
            self.process.tasks.remove(task)
            if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, FieldrelayError):
                raise error

    @invariant()
    def no_lent_descriptor_ever_changes_what_is_signed(self) -> None:
        for descriptor, _ in self.process.leases:
            held = os.pread(descriptor, self.file.index.header_size, 0)
            assert held == self.file.content[: self.file.index.header_size]

    @invariant()
    def the_bitmap_claims_what_is_there(self) -> None:
        for number in _claimed(self.process.sparse):
            right = self.file.is_right(self.process.sparse.read_bytes(), number)
            if right:
                self.rotten.discard(number)
            assert right or number in self.rotten, f"chunk {number} is claimed and not there"

    @invariant()
    def no_chunk_comes_twice_at_the_same_time(self) -> None:
        under_way = [number for request in self.process.requests for number in self.file.numbers(request.ranges)]
        assert self.process.medium.was_full or len(under_way) == len(set(under_way)), under_way

    @invariant()
    def what_was_had_is_not_asked_for_again(self) -> None:
        process = self.process
        if process.medium.was_full or process.medium.left is not None or process.evicting or self.rotten:
            return
        had: set[int] = set()
        for request in process.asked:
            asked = self.file.numbers(request.ranges)
            assert not asked & had, f"{asked & had} were had already"
            had |= self.file.numbers(tuple(request.passed_on))

    @invariant()
    def it_complains_only_of_what_was_done_to_it(self) -> None:
        medium = self.process.medium
        if not (medium.was_full or medium.left is not None or self.rotten):
            assert self.complaints.heard == []
        self.complaints.heard.clear()

    def teardown(self) -> None:
        try:
            self._all_end_well()
            assert (left := set(open_descriptors()) - set(self.descriptors)) == set(), left
        finally:
            _LOG.removeHandler(self.complaints)
            shutil.rmtree(self.base)

    def _all_end_well(self) -> None:
        """Once the faults have ended everybody is served, those who waited and those who come."""
        process = self.process
        faulty = process.medium.was_full or process.medium.left is not None or bool(self.rotten)
        process.medium.full, process.medium.left = False, None
        for upstream in process.upstreams:
            upstream.be_honest()
        process.loop.drain(lambda: all(task.done() for task in process.tasks))
        self.check_clients()
        for numbers in (*({number} for number in range(CHUNKS)), set(range(CHUNKS))):
            process.ask(self.file.ranges(numbers))
        latest = tuple(process.tasks)
        process.loop.drain(lambda: all(task.done() for task in latest))
        for task in latest:
            task.result()
        self.check_clients()
        self.the_bitmap_claims_what_is_there()
        assert faulty or self.complaints.heard == []
        process.end()


def _claimed(sparse: Path) -> Iterator[int]:
    """What the bitmap on disk claims, read by its format and not by the code that wrote it."""
    bitmap = bitmap_of(sparse)
    with suppress(FileNotFoundError):
        raw = bitmap.read_bytes()
        bits = int.from_bytes(raw[_MAP_HEAD_BYTES:-_MAP_TAIL_BYTES], "little")
        if sparse.is_file() and hashlib.sha256(raw[:-_MAP_TAIL_BYTES]).digest() == raw[-_MAP_TAIL_BYTES:]:
            yield from (number for number in range(CHUNKS) if bits >> number & 1)


FEW, MANY = pytest.param(60, 40, id="few"), pytest.param(5000, 80, id="many", marks=pytest.mark.soak)


@pytest.mark.parametrize(("examples", "steps"), [FEW, MANY])
def test_the_relay_keeps_its_promises_under_any_interleaving(examples: int, steps: int) -> None:
    quiet = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        RelayMachine, settings=settings(max_examples=examples, stateful_step_count=steps, suppress_health_check=quiet)
    )
