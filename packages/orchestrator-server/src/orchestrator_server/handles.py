"""Holding an execution, and following it from where it was asked for, wherever it runs.

A worker tells the :class:`Follower` of an execution what it commits; where the execution runs elsewhere, or waits in the queue, the
:class:`Handle` asks the journal. Both see committed events only. :class:`Held` is what a worker notes of one that it drives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal

import anyio
import attrs

from orchestrator_core.driver import Driver
from orchestrator_core.events import AttemptSucceeded, Event, ExecutionEnded, NodeEnded
from orchestrator_core.graph import Plan
from orchestrator_core.types import ExecutionStatus, Json, NodeStatus, Result
from orchestrator_server.records import Claim, Created
from orchestrator_server.storage import TenantStore

__all__ = ["RESPOND", "Answer", "AnswerKind", "Arrival", "Follower", "Handle", "Held", "responders"]

RESPOND: Final = "respond"
"""The node type that answers who started the execution."""

AnswerKind = Literal["ended", "responded", "no_response", "waiting", "deadline"]

# Seconds between two looks at an execution that runs elsewhere: at first, and at most.
_LOOK: Final = 0.02
_SELDOM: Final = 0.5


@attrs.frozen
class Answer:
    """What came first.

    ``ended``: the execution has ended; ``result`` is there where it ended in this process, else the store has it.
    ``responded``: a ``respond`` node gave ``response``. ``no_response``: none can any more. ``waiting``: it waits for a
    signal or a time. ``deadline``: time was over, or the process ends. In the last two cases it goes on.
    """

    kind: AnswerKind
    result: Result | None = None
    response: Json = None


@attrs.define(eq=False)
class Arrival:
    """An execution that runs already, and is accepted with the first events that are written of it."""

    created: Created | None = None
    failure: BaseException | None = None
    settled: anyio.Event = attrs.field(factory=anyio.Event)

    def settle(self, created: Created | None, failure: BaseException | None = None) -> None:
        """Say what came of it: the first time counts."""
        if not self.settled.is_set():
            self.created, self.failure = created, failure
            self.settled.set()


@attrs.define(eq=False)
class Held:
    """An execution that a worker holds. ``until`` is when its lease is over, by this machine's monotonic clock."""

    claim: Claim
    until: float
    driver: Driver | None = None
    arrival: Arrival | None = None  # where it was not accepted yet when it began
    ready: bool = False  # its inbox has been read once
    resting: bool = False  # all of it waits, but it is not parked
    leaving: bool = False  # it is parked when its children's inboxes were looked at once more
    due: float | None = None  # when it is due again, where it was parked
    children: tuple[str, ...] = ()  # the executions that were parked with it
    left: bool = False  # it was put away
    lock: anyio.Lock = attrs.field(factory=anyio.Lock)  # who reads its inbox

    @property
    def accepted(self) -> bool:
        """Whether the queue knows of it."""
        return self.arrival is None or self.arrival.created is not None

    @property
    def progressed(self) -> bool:
        """Whether something was written of it since it was claimed."""
        return self.driver is not None and self.driver.committed > self.claim.seq


class Follower:
    """What is known of an execution from its committed events.

    Args:
        seq: How many events are known already.
        open_nodes: The ids of its ``respond`` nodes.
    """

    def __init__(self, seq: int, open_nodes: Iterable[str]) -> None:
        self.seq = seq
        self.open = set(open_nodes)
        self.responded = False
        self.response: Json = None
        self.ended: ExecutionEnded | None = None
        self.still = False
        self.over = False  # nobody is to wait any longer: the process ends
        self.away = True  # whether it runs elsewhere, or nowhere now
        self.driver: Driver | None = None
        self._changed: anyio.Event | None = None  # there as long as somebody waits

    def take(self, first: int, batch: Sequence[Event]) -> None:
        """Take in committed events, the first of which has the number ``first``. Events that are known already are left out."""
        if first > self.seq:
            self.away = True  # some were committed elsewhere: the journal has them
        else:
            for event in batch[self.seq - first :]:
                self._see(event)
            self.seq = max(self.seq, first + len(batch))
            self.still = False
        self.tell()

    def tell(self) -> None:
        """Let those look again who wait for a change."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def change(self, timeout: float | None) -> None:
        """Return when something has changed, or after ``timeout`` seconds."""
        if self._changed is None:
            self._changed = anyio.Event()
        with anyio.move_on_after(timeout):
            await self._changed.wait()

    def _see(self, event: Event) -> None:
        if isinstance(event, ExecutionEnded):
            self.ended = event
        elif isinstance(event, AttemptSucceeded):
            # An item of a `for_each` answers as its node would: the first counts.
            if event.path.partition("/")[0] in self.open:
                self._respond(event.outputs.get("main"))
        elif isinstance(event, NodeEnded) and event.path in self.open:
            if event.status is NodeStatus.SUCCEEDED and event.reason == "pinned" and event.outputs:
                self._respond(event.outputs.get("main"))
            else:
                self.open.discard(event.path)

    def _respond(self, value: Json) -> None:
        if not self.responded:
            self.responded, self.response = True, value


class Handle:
    """A handle to an execution, wherever it runs."""

    def __init__(self, created: Created, store: TenantStore, follower: Follower, lost: Callable[[], bool]) -> None:
        """Args: lost: whether the execution is not run by this process now."""
        self.created = created
        self._store = store
        self._follower = follower
        self._lost = lost

    @property
    def id(self) -> str:
        """``exe_…``."""
        return self.created.execution.id

    async def wait(self, deadline: float | None = None, *, respond: bool = False) -> Answer:
        """Wait for what comes first.

        Args:
            deadline: Seconds, ``None``: as long as it takes.
            respond: Whether a ``respond`` node is to answer, if there is one; then a wait answers too, however short.

        Raises:
            Unavailable: The execution runs elsewhere, and the database does not answer.
        """
        over = None if deadline is None else anyio.current_time() + deadline
        look = _LOOK
        while True:
            answer = self._answer(respond)
            if answer is not None:
                return answer
            left = None if over is None else over - anyio.current_time()
            if (left is not None and left <= 0) or self._follower.over:
                return Answer("deadline")
            if not self._away():
                await self._follower.change(left)
                continue
            waits = await self._catch_up()
            answer = self._answer(respond)
            if answer is not None or waits:
                return answer or Answer("waiting")
            await self._follower.change(look if left is None else min(look, left))
            look = min(look * 1.5, _SELDOM)

    def _away(self) -> bool:
        return self._follower.away or self._lost()

    def _answer(self, respond: bool) -> Answer | None:
        seen = self._follower
        if respond and seen.responded:
            return Answer("responded", response=seen.response)
        if seen.ended is not None:
            driver = seen.driver
            # A driver that was stopped may have seen an end that nobody committed: pure nodes run ahead.
            here = driver is not None and driver.done and driver.failure is None
            return Answer("ended", driver.machine.result() if driver is not None and here else None)
        if respond and not seen.open:
            return Answer("no_response")
        return Answer("waiting") if respond and seen.still else None

    async def _catch_up(self) -> bool:
        """Read what was committed elsewhere. Returns whether it waits now."""
        seen = self._follower
        # The row first: what had been committed when it said `waiting` is then in what is read.
        row = await self._store.executions.get(self.id)
        if row is None or row.seq > seen.seq or row.finished_at is not None:
            first = seen.seq
            seen.take(first, await self._store.journal.read(self._store.tenant, self.id, first))
        if row is None or (row.finished_at is not None and seen.ended is None):
            # It is in quarantine, or was deleted: nothing follows.
            seen.ended = seen.ended or ExecutionEnded(0.0, ExecutionStatus.FAILED)
        return row is not None and row.status == "waiting"


def responders(plan: Plan) -> list[str]:
    """The ids of the nodes of a plan that answer who started the execution."""
    return [node.id for node in plan.nodes if node.type == RESPOND and not node.disabled]
