"""The worker: takes executions from the queue, drives them on its engine, and gives them back.

It holds an execution by a lease that it renews; under the claim's fence it writes. What only waits is parked: its lease is
released and its memory freed, and the queue hands it out again when its time has come or a message arrives. Whatever a worker
holds when it dies, another takes over when the lease is over; whatever it still wants to write then is a conflict.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final
from weakref import WeakValueDictionary

import anyio
import anyio.abc
import attrs

from orchestrator_core import Engine, Execution, Workflow
from orchestrator_core.driver import Driver
from orchestrator_core.errors import IllegalEvent, OrchestratorError
from orchestrator_core.events import Event, ExecutionEnded, ExecutionStarted
from orchestrator_core.results import failure_to_json
from orchestrator_core.types import ExecutionStatus, Json, NodeIO, Pins
from orchestrator_server.error_workflows import ErrorWorkflows
from orchestrator_server.errors import Conflict, NotFound, Unavailable
from orchestrator_server.handles import Arrival, Follower, Handle, Held, responders
from orchestrator_server.realms import Realms, ServedDriver, TenantRealm
from orchestrator_server.records import SUSPECT_CLAIMS, Claim, Created, NewExecution
from orchestrator_server.sealing import UnknownKey
from orchestrator_server.storage import Storage, TenantStore

__all__ = ["Worker"]

_LOG = logging.getLogger(__name__)
_BREATH: Final = 0.02  # seconds between two rounds that a hint has called for
_CROWD: Final = 0.1  # seconds until the queue is asked again where a limit keeps what is due
_CHILDREN: Final = 0.5  # seconds between two looks into the inboxes of children
_FAMILY: Final = 100  # executions that are put away together: with more, each message would bring back too many
_LONGEST: Final = 60.0  # seconds until an execution that nobody could work on is due again, at most
_TRIAL: Final = 60.0  # seconds for which one that may take down its workers is the only such one, at most
_LET_GO: Final = 4.0  # seconds for giving leases back when stopping


class _Parked(OrchestratorError):  # noqa: N818 - named after the fact
    """The execution is given back to the queue."""


class _Lost(OrchestratorError):  # noqa: N818 - as above
    """The lease is over: somebody else may have the execution."""


class _Known(OrchestratorError):  # noqa: N818 - as above
    """Its idempotency key was used before: there is no such execution."""


class Worker:
    """Drives executions of all tenants on one engine.

    Args:
        engine: An open engine.
        realms: Its realms; the worker is told by them what happens in its executions.
        storage: Where executions and the queue are.
        name: What its claims are known by: different for each worker that runs at a time.
        concurrency: How many executions it holds at one time. What waits does not count.
        lease: Seconds for which a claim holds; renewed every third of it.
        poll: Seconds after which the queue is looked at where no hint came.
        near: An execution that goes on by itself within so many seconds is not parked.
        grace: Seconds for which executions may go on when the worker is stopped.
    """

    def __init__(
        self,
        engine: Engine,
        realms: Realms,
        storage: Storage,
        *,
        name: str,
        concurrency: int = 100,
        lease: float = 30.0,
        poll: float = 1.0,
        near: float = 5.0,
        grace: float = 5.0,
    ) -> None:
        self.name = name
        self._engine = engine
        self._realms = realms
        self._storage = storage
        self._concurrency = concurrency
        self._lease = lease
        self._poll = poll
        self._near = near
        self._grace = grace
        self._errors = ErrorWorkflows(storage, realms)
        self._held: dict[str, Held] = {}
        self._crowded = False  # there was more in the queue than there was room for
        self._followers: WeakValueDictionary[str, Follower] = WeakValueDictionary()
        self._bells: dict[str, set[anyio.Event]] = {}  # set when something is committed, by execution
        self._group: anyio.abc.TaskGroup | None = None
        self._stopping = anyio.Event()
        self._work = anyio.Event()  # something may be due, or there is room again
        self._mail = anyio.Event()  # somebody may have left a message
        self._serving = 0  # executions that were taken and are not put away
        self._served = anyio.Event()  # set when one of them ends
        self._claiming = anyio.Lock()  # held while a claim is under way
        self._tried: Held | None = None  # the last one that was suspected to take down its workers
        self._next_trial = 0.0  # when the next of them may be taken, by the monotonic clock
        self._looked = 0.0  # when the inboxes of children were looked at, by the monotonic clock
        realms.metrics.held = lambda: self.holds
        realms.on_still = self._still
        realms.on_commit = self._committed

    @property
    def holds(self) -> int:
        """How many executions it holds now."""
        return len(self._held)

    @property
    def running(self) -> bool:
        """Whether it takes executions."""
        return self._group is not None and not self._stopping.is_set()

    # --- life -----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until :meth:`stop`; then let executions go on for a moment and give all leases back.

        Raises:
            OrchestratorError: It runs already.
        """
        if self._group is not None:
            raise OrchestratorError("this worker runs already")
        async with anyio.create_task_group() as group:
            self._group = group
            for loop in (self._listen, self._claim_round, self._mail_round, self._renew_round):
                group.start_soon(self._forever, loop)
            try:
                await self._stopping.wait()
                with anyio.move_on_after(self._grace):
                    await self._all_served()
                async with self._claiming:
                    pass  # a claim that is under way gives back what it gets
            finally:
                self._stopping.set()
                self._send_away()
                with anyio.CancelScope(shield=True), anyio.move_on_after(_LET_GO):
                    await self._give_back()
                self._group = None
                group.cancel_scope.cancel()

    def stop(self) -> None:
        """Take nothing more, and let :meth:`run` return within ``grace`` and some seconds."""
        self._stopping.set()
        self._work.set()
        if self._group is None:
            self._send_away()

    def _send_away(self) -> None:
        """Whoever waits for an execution here is told that it takes longer."""
        for follower in [*self._followers.values()]:
            follower.over = True
            follower.tell()

    async def _forever(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Do a round again and again; what goes wrong in one (a database that does not answer) is tried again."""
        while True:
            try:
                await loop()
            except Exception:  # noqa: BLE001 - it is logged, and the next round tries again
                _LOG.exception("worker %s: a round failed and is done again", self.name)
                await anyio.sleep(self._poll)

    async def _all_served(self) -> None:
        """Return when nothing is held any more, and everything is given back."""
        while self._serving:
            self._served = anyio.Event()
            await self._served.wait()

    async def _give_back(self) -> None:
        """Park everything, and release it here: its own tasks may be cancelled already."""
        for held in [*self._held.values()]:
            if held.arrival is not None:
                await held.arrival.settled.wait()  # within a moment: it is being written
        async with anyio.create_task_group() as group:
            for held in [*self._held.values()]:
                driver = held.driver
                if driver is not None and driver.done and not isinstance(driver.failure, _Parked):
                    continue  # it ended
                self._drop(held)
                waits = driver is not None and (driver.done or driver.is_still())
                if driver is not None and not driver.done:
                    self._stop(held, driver, driver.next_due() if waits else None, "the worker was stopped")
                group.start_soon(self._release, held, self._until_due(held) if waits else 0.0, waits)
            await self._all_served()

    # --- taking ---------------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        await self._storage.queue.wait_for_work(self._poll)
        self._work.set()
        self._mail.set()

    async def _claim_round(self) -> None:
        if self._stopping.is_set():
            await anyio.sleep_forever()
        self._work = anyio.Event()
        room = self._room()
        claims: Sequence[Claim] = ()
        if room > 0:
            async with self._claiming:
                claims = await self._suspect() or await self._storage.queue.claim(self.name, room, self._lease)
                self._crowded = len(claims) == room
                for claim in claims:
                    await self._take(claim)
        if claims:
            return
        due = await self._storage.queue.next_due() if room > 0 else None
        with anyio.move_on_after(self._poll if due is None else min(max(due, _CROWD), self._poll)):
            await self._work.wait()
            await anyio.sleep(_BREATH)

    async def _suspect(self) -> Sequence[Claim]:
        """One that workers may have come to grief with, and none while another is tried: it is to fall alone."""
        tried, now = self._tried, time.monotonic()
        going_on = tried is not None and self._held.get(tried.claim.execution_id) is tried and not tried.progressed
        if now < self._next_trial + (_TRIAL if going_on else 0.0):
            return ()
        self._next_trial = now + self._poll
        return await self._storage.queue.claim(self.name, 1, self._lease, suspects=True)

    def _room(self) -> int:
        return self._concurrency - sum(not held.resting for held in self._held.values())

    def _has_room(self) -> bool:
        return len(self._held) < self._concurrency or self._room() > 0  # the first is cheap, and mostly enough

    async def _take(self, claim: Claim) -> None:
        if self._stopping.is_set() or self._group is None:
            await self._release(Held(claim, 0.0), 0.0, waiting=False)
        elif claim.execution_id in self._held or self._engine.driver(claim.execution_id) is not None:
            # One of the same id, of another tenant or under an older claim, is still being put away here.
            await self._release(Held(claim, 0.0), _CROWD, waiting=False)
        else:
            held = self._held[claim.execution_id] = Held(claim, time.monotonic() + self._lease)
            if claim.claims > SUSPECT_CLAIMS:
                self._tried = held
            self._serving += 1
            self._group.start_soon(self._serve, held)

    async def _serve(self, held: Held) -> None:
        """Go on with an execution that was claimed."""
        opened = False
        try:
            opened = await self._open(held)
        except Exception as error:  # noqa: BLE001 - others go on; this one is tried again, and quarantined in the end
            if held.driver is not None:
                held.driver.stop(error)  # or it would stand in the way of whoever goes on; it is put away when it ends
            elif self._drop(held):
                await self._release_failed(held, error)
        finally:
            if not opened:
                self._leave(held)

    async def _open(self, held: Held) -> bool:
        """Go on with an execution; ``False`` where there is nothing to go on with."""
        claim = held.claim
        store = await self._realms.store(claim.tenant)
        events = await store.journal.read(claim.tenant, claim.execution_id)
        start = events[0] if events else None
        if not isinstance(start, ExecutionStarted):
            self._drop(held)
            return False  # deleted meanwhile
        workflow = await self._realms.workflow(claim.tenant, start.workflow, start.version)
        realm = await self._realms.for_execution(claim.tenant, workflow, start=start)
        # What was left while nobody worked on it comes first: a cancel before another effect, an answer before its time is over.
        mail = await realm.mail(claim.execution_id)
        if self._held.get(claim.execution_id) is not held:
            return False  # lost, or given back, while this was read
        driver = realm.driver(workflow, start, claim.fence)
        self._join(held, driver)
        follower = self._followers.get(claim.execution_id)
        if follower is not None:
            follower.driver, follower.away = driver, follower.seq < len(events)
            follower.tell()
        await realm.drive(driver, events, mail)
        await self._deliver(held, driver)
        held.ready = True
        if not driver.done and not driver.machine.running and driver.is_still():
            self._still(Execution(driver), driver.next_due())
        return True

    def _join(self, held: Held, driver: Driver) -> None:
        """Hold an execution by its driver from now on, until that is done."""
        held.driver = driver
        driver.on_done = lambda: self._done(held, driver)

    def _done(self, held: Held, driver: Driver) -> None:
        """Its driver has ended it, or given it up."""
        if held.arrival is not None:
            held.arrival.settle(None, driver.failure)
        ended = driver.machine.ended
        well = driver.failure is None and ended is not None and ended.status is not ExecutionStatus.FAILED
        if well or self._group is None:
            self._drop(held)
            self._leave(held)
        else:
            self._group.start_soon(self._put_away, held, driver)

    def _leave(self, held: Held) -> None:
        if not held.left:
            held.left = True
            self._serving -= 1
            self._served.set()

    # --- parking and putting away ---------------------------------------------------------------------------------------

    def _still(self, execution: Execution, due: float | None) -> None:
        """Nothing happens in an execution until a signal comes, or a time."""
        held = self._held.get(execution.id)
        driver = held.driver if held is not None else None
        if held is None or driver is None or driver is not self._engine.driver(execution.id):
            return
        follower = self._followers.get(execution.id)
        waits = (one.machine.status is ExecutionStatus.WAITING for one in self._family(driver))
        if follower is not None and any(waits):
            follower.still = True
            follower.tell()
        if not held.ready:
            return  # a message may wait for it: that is looked at first, and this asked again
        members = len(self._family(driver))
        if members > 1:
            # Nobody has told of messages for its children: what is there is looked at first, what comes later makes it due.
            held.leaving, held.resting = members <= _FAMILY, True
            self._work.set()
            self._mail.set()
        else:
            self._park(held, driver, due)

    def _park(self, held: Held, driver: Driver, due: float | None) -> None:
        """Put away an execution that is still, unless it goes on soon."""
        if due is not None and due - self._engine.clock.time() < self._near:
            held.resting = True
            self._work.set()
        else:
            self._stop(held, driver, due, "the execution was parked")

    def _stop(self, held: Held, driver: Driver, due: float | None, why: str) -> None:
        held.due = due
        held.children = tuple(one.machine.execution_id for one in self._family(driver)[1:])
        driver.stop(_Parked(why))

    def _drop(self, held: Held) -> bool:
        """Hold it no longer. Returns whether it was held until now."""
        if self._held.get(held.claim.execution_id) is not held:
            return False
        del self._held[held.claim.execution_id]
        if self._crowded or self._room() <= 1:
            self._work.set()  # there is room again, and somebody may wait for it
        follower = self._followers.get(held.claim.execution_id)
        if follower is not None:
            follower.away = follower.ended is None
            follower.tell()
        return True

    async def _put_away(self, held: Held, driver: Driver) -> None:
        try:
            if self._drop(held) and held.accepted:
                await self._give_up(held, driver)
        finally:
            self._leave(held)

    async def _give_up(self, held: Held, driver: Driver) -> None:
        claim, failure = held.claim, driver.failure
        if failure is None:
            ended = driver.machine.ended
            if ended is not None and ended.status is ExecutionStatus.FAILED:
                await self._tell_of_failure(claim, failure_to_json(ended.error))
        elif isinstance(failure, _Parked):
            await self._release(held, self._until_due(held), waiting=True)
        elif isinstance(failure, Conflict):
            # Somebody else has it, and this changes nothing; or something of a child stood in the way.
            await self._release(held, self._again_in(claim), waiting=False, failed=True)
        elif not isinstance(failure, _Lost | _Known):
            await self._release_failed(held, failure)

    async def _tell_of_failure(self, claim: Claim, error: Json) -> None:
        try:
            await self._errors.failed(claim.tenant, claim.execution_id, claim.workflow, error)
        except Exception:  # noqa: BLE001 - it is logged, and the sweep tries again
            extra = {"tenant": claim.tenant, "execution": claim.execution_id}
            _LOG.exception("the error workflow was not started; the next sweep tries again", extra=extra)

    async def _release_failed(self, held: Held, error: BaseException) -> None:
        """Give back what could not be worked on: it is tried again later, each time more so, and quarantined in the end."""
        claim = held.claim
        extra = {"tenant": claim.tenant, "execution": claim.execution_id}
        _LOG.warning("%s was given up for now: %s", claim.execution_id, error, extra=extra)
        # That a database did not answer, or that the operator left a key out, is no fault of the execution.
        failed = not isinstance(error, Unavailable | UnknownKey)
        await self._release(held, self._again_in(claim), waiting=False, failed=failed)

    def _again_in(self, claim: Claim) -> float:
        """Seconds until it is tried again: more each time."""
        return min(2.0 ** min(claim.claims, 10), _LONGEST)

    def _until_due(self, held: Held) -> float | None:
        """Seconds from now; ``None``: it waits for a signal alone."""
        return None if held.due is None else max(0.0, held.due - self._engine.clock.time())

    async def _release(self, held: Held, wake_in: float | None, waiting: bool, failed: bool = False) -> None:
        """Give a lease back; the execution is due again in ``wake_in`` seconds."""
        claim = held.claim
        try:
            await self._storage.queue.release(
                claim, wake_in=wake_in, waiting=waiting, failed=failed, children=held.children
            )
            if wake_in is not None and wake_in < self._poll:
                self._work.set()  # due before the queue is looked at next
        except Exception as error:  # noqa: BLE001 - the lease ends by itself
            extra = {"tenant": claim.tenant, "execution": claim.execution_id}
            _LOG.warning("the lease of %s could not be given back: %s", claim.execution_id, error, extra=extra)

    # --- leases ---------------------------------------------------------------------------------------------------------

    async def _renew_round(self) -> None:
        await anyio.sleep(self._lease / 3)
        asked = [held for held in self._held.values() if held.accepted]
        began = time.monotonic()
        try:
            with anyio.move_on_after(self._lease / 3):
                renewed = await self._storage.queue.renew([held.claim for held in asked], self._lease) if asked else ()
                kept = {(claim.tenant, claim.execution_id, claim.fence): claim for claim in renewed}
                for held in asked:
                    claim = kept.get((held.claim.tenant, held.claim.execution_id, held.claim.fence))
                    if claim is None:
                        held.until = began
                    elif claim != held.claim:
                        held.claim, held.until = claim, began + self._lease
        finally:
            # Where the database does not answer, leases end all the same.
            now = time.monotonic()
            for held in asked:
                if held.until <= now and self._held.get(held.claim.execution_id) is held:
                    self._lose(held)

    def _lose(self, held: Held) -> None:
        if held.driver is not None and held.driver.finished.is_set():
            return  # it has ended or was parked meanwhile: whoever drives it is about to put it away
        extra = {"tenant": held.claim.tenant, "execution": held.claim.execution_id}
        _LOG.warning("worker %s lost the lease of %s", self.name, held.claim.execution_id, extra=extra)
        if held.driver is not None:
            held.driver.stop(_Lost("the lease is over"))
        self._drop(held)

    # --- messages -------------------------------------------------------------------------------------------------------

    async def _mail_round(self) -> None:
        with anyio.move_on_after(self._poll):
            await self._mail.wait()
        self._mail = anyio.Event()
        if self._held:
            for tenant, execution_id in await self._storage.queue.mail(self.name):
                held = self._held.get(execution_id)
                if held is not None and held.claim.tenant == tenant and held.ready and held.driver is not None:
                    await self._apart(held, self._deliver(held, held.driver))
            now = time.monotonic()
            look = now - self._looked >= _CHILDREN
            if look:
                self._looked = now
            for held in [*self._held.values()]:
                driver = held.driver
                if held.ready and driver is not None and (held.leaving or (look and len(self._family(driver)) > 1)):
                    await self._apart(held, self._look_at_children(held, driver))
        await anyio.sleep(_BREATH)

    async def _apart(self, held: Held, work: Awaitable[None]) -> None:
        """What is wrong with one execution keeps no message from another."""
        try:
            await work
        except Exception:  # noqa: BLE001 - it is logged, and the next round tries again
            claim = held.claim
            extra = {"tenant": claim.tenant, "execution": claim.execution_id}
            _LOG.exception("the messages of %s could not be read; it is tried again", claim.execution_id, extra=extra)

    async def _look_at_children(self, held: Held, driver: Driver) -> None:
        """Feed an execution with children; and put it away if that is all it waited for."""
        await self._deliver(held, driver)
        if held.leaving:
            held.leaving = False
            if not driver.done and driver.is_still():
                self._park(held, driver, driver.next_due())

    async def _deliver(self, held: Held, driver: Driver) -> None:
        """Feed an execution, and its children, what was left for them."""
        store = await self._realms.store(held.claim.tenant)
        async with held.lock:
            for one in self._family(driver):
                await self._deliver_to(store, one)

    def _family(self, driver: Driver) -> list[Driver]:
        children = [child for name in driver.children if (child := self._engine.driver(name)) is not None]
        return [driver, *(one for child in children for one in self._family(child))]

    async def _deliver_to(self, store: TenantStore, driver: Driver) -> None:
        execution_id = driver.machine.execution_id
        fed: set[str] = set()
        for message in await store.inbox.messages(execution_id):
            fed.add(message.id)
            try:
                await driver.receive(attrs.evolve(message.as_event(), at=driver.now()))
            except IllegalEvent as error:
                extra = {"tenant": store.tenant, "execution": execution_id}
                _LOG.info("a message for %s means nothing: %s", execution_id, error, extra=extra)
        if not fed:
            return
        await driver.commit_until_now()
        if driver.done:
            return  # whether all reached it is not known: what is left is delivered to whoever goes on with it
        # What led to an event was consumed by its commit; the rest was seen before, or came too late.
        stale = [message.id for message in await store.inbox.messages(execution_id) if message.id in fed]
        if stale:
            await store.inbox.discard(execution_id, stale)

    # --- for the API ----------------------------------------------------------------------------------------------------

    async def execute(
        self,
        tenant: str,
        workflow: str | Workflow,
        payload: Json = None,
        *,
        version: int | None = None,
        start: str | None = None,
        pins: Pins | None = None,
        seed: int | None = None,
        idempotency_key: str | None = None,
        fingerprint: str = "",
        parent: str | None = None,
    ) -> Handle:
        """Accept an execution, and begin with it here where there is room; otherwise it waits in the queue for its turn.

        When this returns it is committed. Where the idempotency key was used before, nothing is created, and the handle
        is that of the execution that is there (``handle.created.new`` is false).

        Args:
            tenant: Whose it is.
            workflow: A workflow's id, or a stored version of one.
            payload: What starts it.
            version: Which version of the id; the active one unless said.
            start: The trigger that starts it, where there are several.
            pins: Path -> port -> value: nodes that give this instead of running.
            seed: Makes what is random reproducible.
            idempotency_key, fingerprint, parent: See :class:`~orchestrator_server.records.NewExecution`.

        Raises:
            NotFound: There is no such tenant, workflow or version, or none is active.
            DocumentError: The workflow cannot run here, or what was given does not fit it.
            StorageFull, TooMany: The tenant has as much as it may.
            Unavailable: The database does not answer.
        """
        if isinstance(workflow, str):
            workflow = await self._realms.workflow(tenant, workflow, version)
        realm = await self._realms.for_execution(tenant, workflow)
        event = realm.accept(workflow, payload, start=start, pins=pins, seed=seed)
        limited = (await self._realms.tenant(tenant)).limits.running is not None
        # With a limit the queue is asked: only it knows what other workers hold. Nor is anybody to push in front of others.
        here = self.running and not limited and not self._crowded and self._has_room()
        new = NewExecution(event, idempotency_key, fingerprint, parent=parent)
        store = await self._realms.store(tenant)
        follower = Follower(0 if here else 1, responders(realm.plan(workflow, event.start)))
        async with await self._realms.place(tenant):
            if here:
                driver = realm.driver(workflow, event, 1)
                follower.driver, follower.away = driver, False
                self._followers[event.execution_id] = follower
                created = await self._run_here(realm, store, driver, new)
            else:
                created = await store.executions.create(new)
        if not created.new:
            return await self._handle(tenant, created, workflow)
        self._followers[event.execution_id] = follower
        return self._handle_of(created, store, follower)

    async def _run_here(
        self, realm: TenantRealm, store: TenantStore, driver: ServedDriver, new: NewExecution
    ) -> Created:
        """Begin with an execution at once; returns when it is accepted, or another one stands for its idempotency key."""
        event, arrival = new.event, Arrival()
        claim = Claim(store.tenant, event.execution_id, event.workflow, event.version, self.name, 1, 1, 1, 0.0)
        held = Held(claim, float("inf"), arrival=arrival, ready=True)

        async def accept(batch: Sequence[Event], nodes: Sequence[NodeIO] | None) -> None:
            began = time.monotonic()
            given = attrs.evolve(new, events=tuple(batch[1:]), nodes=nodes, worker=self.name, lease=self._lease)
            created = await store.executions.create(given)
            if created.claim is not None:
                held.claim, held.until = created.claim, began + self._lease
            arrival.settle(created)
            if not created.new:
                raise _Known("there is an execution for its idempotency key already")

        driver.accept = accept
        self._held[event.execution_id] = held
        self._serving += 1
        self._join(held, driver)
        # Shielded: who asked may go away, and the execution goes on all the same.
        with anyio.CancelScope(shield=True):
            await realm.drive(driver, [event])
        await arrival.settled.wait()
        if arrival.created is None:
            raise arrival.failure or Unavailable("the server is about to end: ask again in a moment")
        return arrival.created

    async def follow(self, tenant: str, execution_id: str) -> Handle:
        """A handle to an execution, wherever it runs.

        Raises:
            NotFound: There is no such tenant or execution.
        """
        store = await self._realms.store(tenant)
        row = await store.executions.get(execution_id)
        if row is None:
            raise NotFound(f"there is no execution {execution_id!r}")
        return await self._handle(tenant, Created(row, new=False), None)

    async def events(self, tenant: str, execution_id: str, *, after: int = 0) -> AsyncIterator[tuple[int, Event]]:
        """The committed events of an execution from number ``after`` on, each with its number plus one, until it has ended.

        The number that comes with an event is what to give as ``after`` to go on behind it.

        Raises:
            NotFound: There is no such tenant or execution.
        """
        store = await self._realms.store(tenant)
        row = await store.executions.get(execution_id)
        if row is None:
            raise NotFound(f"there is no execution {execution_id!r}")
        while True:
            bell = anyio.Event()
            bells = self._bells.setdefault(execution_id, set())
            bells.add(bell)
            try:
                batch = await store.journal.read(tenant, execution_id, after)
                for event in batch:
                    after += 1
                    yield after, event
                    if isinstance(event, ExecutionEnded):
                        return
                if not batch:
                    row = await store.executions.get(execution_id)
                    if row is None or (row.finished_at is not None and row.seq <= after):
                        return  # in quarantine, or deleted: nothing follows
                    with anyio.move_on_after(self._poll / 2):
                        await bell.wait()
            finally:
                bells.discard(bell)
                if not bells and self._bells.get(execution_id) is bells:
                    del self._bells[execution_id]

    async def _handle(self, tenant: str, created: Created, workflow: Workflow | None) -> Handle:
        """A handle to an execution that may run anywhere."""
        row = created.execution
        store = await self._realms.store(tenant)
        follower = self._followers.get(row.id)
        if follower is None:
            if workflow is None or (workflow.id, workflow.version) != (row.workflow, row.version):
                workflow = await self._realms.workflow(tenant, row.workflow, row.version)
            first = (await store.journal.read(tenant, row.id))[:1]
            start = first[0].start if first and isinstance(first[0], ExecutionStarted) else None
            follower = self._followers[row.id] = Follower(0, responders(self._realms.outline(workflow, start)))
        return self._handle_of(created, store, follower)

    def _handle_of(self, created: Created, store: TenantStore, follower: Follower) -> Handle:
        execution_id = created.execution.id
        return Handle(created, store, follower, lambda: execution_id not in self._held)

    def _committed(self, _tenant: str, execution_id: str, first: int, batch: Sequence[Event]) -> None:
        """Told by the journal after every commit of this process."""
        follower = self._followers.get(execution_id)
        if follower is not None:
            follower.take(first, batch)
        for bell in self._bells.pop(execution_id, ()):
            bell.set()
        driver = self._engine.driver(execution_id)
        held = self._held.get(driver.root.machine.execution_id) if driver is not None else None
        if held is not None:
            held.resting = False
