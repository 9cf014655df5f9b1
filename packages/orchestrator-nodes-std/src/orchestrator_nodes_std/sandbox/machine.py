"""Running guests: an engine, the wall clock that stops them, and instances of one compiled module.

Nothing here knows a language. A machine is given a compiled module without imports (see `wasm`), whose initial memory
is that of a language that has started already; every call has an instance of it in that first state.
"""

import contextlib
import ctypes
import math
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import wasmtime

from orchestrator_nodes_std.sandbox import native
from orchestrator_nodes_std.sandbox.values import Limits

_Result = TypeVar("_Result")

TICK = 0.01
"""Seconds between two steps of the clock that stops guests, and so the precision of `Limits.time`."""
_LINGER = 1.0  # seconds that the clock runs on after the last call, so that calls in a row do not wake it each time
_SHORT = 256 * 1024  # bytes that are copied sooner than Python's lock is given away and taken back
_WASM_STACK = 2 * 1024 * 1024  # bytes of native stack: enough for a language to meet its own limit first
_THREAD_STACK = 3 * 1024 * 1024  # the guest's, and room for what lies around it


def engine(*, optimise: bool = True, parallel: bool = True) -> wasmtime.Engine:
    """An engine as every guest needs it. Code compiled by one such engine runs in another.

    `parallel`: compile on several threads. Where the process was forked, the threads of that pool may be gone.
    """
    config = wasmtime.Config()
    config.parallel_compilation = parallel
    config.epoch_interruption = True
    config.max_wasm_stack = _WASM_STACK
    config.memory_may_move = False  # a guest's memory stays where it is when it grows
    config.cranelift_opt_level = "speed" if optimise else "none"
    # What no guest needs is not there to be attacked.
    config.wasm_threads = False
    config.wasm_memory64 = False
    config.wasm_component_model = False
    return wasmtime.Engine(config)


class Stopped(Exception):  # noqa: N818 - what ends a guest need not be its error
    """A guest did not come back. `reason` is `timeout`, `stack` or `crashed`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Busy(Exception):  # noqa: N818 - nothing is wrong
    """Whoever does not wait has to come another way."""


_REASONS = {wasmtime.TrapCode.INTERRUPT: "timeout", wasmtime.TrapCode.STACK_OVERFLOW: "stack"}


class Clock:
    """Steps an engine's epoch while guests run. Its thread starts with the first call and sleeps when there are none."""

    def __init__(self, target: wasmtime.Engine) -> None:
        """Step `target`; nothing runs yet."""
        self._engine = target  # which has to live on
        self._at = native.engine_of(target)
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._running = 0
        self._asleep = True
        self._closed = False
        self._base = self._last_use = 0.0
        self._steps = 0

    def begin(self, seconds: float) -> int:
        """Count a guest in; answers after how many steps from now `seconds` will have passed."""
        with self._changed:
            now = time.monotonic()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="sandbox-clock", daemon=True)
                self._thread.start()
            if self._asleep:
                self._asleep = False
                self._base, self._steps = now, 0
                self._changed.notify()
            self._running += 1
            behind = int((now - self._base) / TICK) - self._steps
            return math.ceil(seconds / TICK) + 1 + behind

    def end(self) -> None:
        """Count a guest out."""
        with self._changed:
            self._running -= 1
            self._last_use = time.monotonic()

    def close(self) -> None:
        """Stop the thread. No guest may be running."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._running and time.monotonic() - self._last_use > _LINGER:
                    self._asleep = True
                while self._asleep and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                due = int((time.monotonic() - self._base) / TICK)
                for _ in range(due - self._steps):
                    native.increment_epoch(self._at)
                self._steps = due
            time.sleep(TICK)


class Guest:
    """An instance. Reading its memory works after it was stopped as well; calling it does not."""

    def __init__(self, store: wasmtime.Store, instance: wasmtime.Instance) -> None:
        """Wrap `instance`, which lives in `store`."""
        self._store = store
        self._exports: dict[str, Any] = dict(instance.exports(store))
        self._context = native.context_of(store)
        self._entries: dict[str, native.Entry] = {}
        memory: wasmtime.Memory = self._exports["memory"]
        self._base: int = ctypes.addressof(memory.data_ptr(store).contents)
        self._memory = native.Memory(self._context, memory)
        self._size = self._memory.size()  # at least so much: a memory never shrinks
        self._limit = 0
        self._stopped = self._closed = False

    def call(self, name: str, *arguments: int) -> int:
        """Call an exported function; raises `Stopped` when it does not return."""
        return int(self._enter(name, *arguments))

    def call_void(self, name: str, *arguments: int) -> None:
        """Call an exported function that has no result; raises `Stopped` when it does not return."""
        self._enter(name, *arguments)

    def _enter(self, name: str, *arguments: int) -> Any:
        if self._closed:
            raise RuntimeError("this instance is closed")
        # Until it is known to have returned: an interrupt may come between the guest's end and Python's next line.
        self._stopped = True
        try:
            result = self._exports[name](self._store, *arguments) if arguments else self._entry(name)()
        except wasmtime.Trap as trap:
            code = trap.trap_code
            raise Stopped(_REASONS.get(code, "crashed") if code else "crashed", code.name if code else "trap") from None
        self._stopped = False
        return result

    def _entry(self, name: str) -> native.Entry:
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = native.Entry(self._context, self._exports[name])
        return entry

    def write(self, data: bytes, at: int) -> None:
        """Put `data` into the memory; raises IndexError outside of it."""
        self._check(at, len(data))
        move = native.move if len(data) < _SHORT else ctypes.memmove  # which lets others go on meanwhile
        move(self._base + at, data, len(data))

    def read(self, at: int, size: int) -> bytes:
        """Bytes of the memory, fewer at its end. Whatever the guest says about them, nothing outside of it is read."""
        end = at + size
        if end > self._size:
            end = min(end, self.size())
        if not 0 <= at < end:
            return b""
        return ctypes.string_at(self._base + at, end - at)

    def _check(self, at: int, size: int) -> None:
        if at < 0 or (at + size > self._size and at + size > self.size()):
            raise IndexError(f"{size} bytes at {at} are outside of the guest's memory")

    def size(self) -> int:
        """The size of the memory, in bytes."""
        self._size = self._memory.size()
        return self._size

    def global_value(self, name: str) -> int:
        """The value of an exported global."""
        return int(self._exports[name].value(self._store))

    def allow(self, limits: Limits, steps: int) -> None:
        """Let it run until `steps` of the clock from now, with as much memory as `limits` say."""
        if limits.memory != self._limit:
            self._store.set_limits(memory_size=limits.memory, instances=1, tables=1, memories=1)
            self._limit = limits.memory
        native.set_epoch_deadline(self._context, steps)

    def restore(self, first: "FirstState") -> bool:
        """Make the memory be as in `first` again; False if that cannot be, and the instance has to go.

        It cannot after a trap (the guest was left anywhere), nor when the memory has grown (it never shrinks).
        """
        if self._stopped or self.size() != first.size:
            return False
        first.write(self._base)
        return True

    def close(self) -> None:
        """Give its memory back."""
        self._closed = True
        self._store.close()


class FirstState:
    """What a memory holds in the beginning, ready to be written back.

    Half of it is empty (the guest's stack, room for logs), and clearing takes a third of the time of copying.
    """

    _PAGE = 16 * 1024
    _GAP = 4 * _PAGE  # an empty stretch that is shorter is copied along: each piece costs something, too

    def __init__(self, memory: bytes) -> None:
        """Keep `memory`."""
        self.size = len(memory)
        self.memory = memory
        source = ctypes.cast(ctypes.c_char_p(memory), ctypes.c_void_p).value or 0
        self._copied = [(at, source + at, size) for at, size in self._full(memory)]
        ends = [at + size for at, _, size in self._copied]
        begins = [at for at, _, _ in self._copied]
        gaps = zip([0, *ends], [*begins, self.size], strict=True)
        self._cleared = [(end, begin - end) for end, begin in gaps if begin > end]

    def _full(self, memory: bytes) -> list[tuple[int, int]]:
        """The stretches that hold something: (address, size)."""
        empty = bytes(self._PAGE)
        pieces: list[tuple[int, int]] = []
        for at in range(0, len(memory), self._PAGE):
            if memory[at : at + self._PAGE] == empty[: len(memory) - at]:
                continue
            if pieces and at - sum(pieces[-1]) <= self._GAP:
                pieces[-1] = (pieces[-1][0], at + self._PAGE - pieces[-1][0])
            else:
                pieces.append((at, self._PAGE))
        return pieces

    def write(self, base: int) -> None:
        """Write all of it to the address `base`."""
        for at, size in self._cleared:
            native.fill(base + at, 0, size)
        # Last, so that the processor's cache holds what the next call needs, and not what is empty.
        for at, source, size in self._copied:
            native.move(base + at, source, size)


class Machine:
    """Instances of one module, at most so many at a time. Safe to use from many threads.

    A guest begins every call in the state that the module itself describes. That is so by construction for a new
    instance. One that was used is restored: all of its memory is written over, which takes less time than the page
    faults of a new one; the stack pointer, its only mutable global (`wasm` sees to that), is set by `run` itself.
    """

    def __init__(self, target: wasmtime.Engine, module: wasmtime.Module, permits: "Permits") -> None:
        """Run `module`, of the engine `target`; each call holds one of `permits` (further calls wait)."""
        self._engine = target
        self._linked = wasmtime.Linker(target).instantiate_pre(module)
        self._clock = Clock(target)
        self._permits = permits
        self._closed = False
        self._idle: list[Guest] = []
        first = self._new(Limits())
        self._first_state = FirstState(first.read(0, first.size()))
        self._idle.append(first)

    def use(self, limits: Limits, work: Callable[[Guest], _Result], *, waits: bool = True) -> _Result:
        """Do `work` with a guest in its first state, under `limits`. To be called on a thread as `on_large_stack` has it.

        Raises:
            Busy: not `waits`, and there is no instance that is free.
        """
        permits = self._permits
        permits.take(waits)
        try:
            if self._closed:
                raise RuntimeError("the sandbox is closed")
            try:
                guest = self._idle.pop()
            except IndexError:
                if not waits:
                    raise Busy from None
                guest = self._new(limits)
            steps = self._clock.begin(limits.time)
            try:
                guest.allow(limits, steps)
                return work(guest)
            finally:
                self._clock.end()
                # Now, rather than before the next call, so that nothing lies about in between.
                if guest.restore(self._first_state):
                    self._idle.append(guest)
                else:
                    guest.close()
        finally:
            permits.give()

    def _new(self, limits: Limits) -> Guest:
        store = wasmtime.Store(self._engine)
        store.set_limits(memory_size=limits.memory, instances=1, tables=1, memories=1)
        return Guest(store, self._linked.instantiate(store))

    def close(self) -> None:
        """Wait for the calls that are running, then stop."""
        with self._permits.all():
            self._closed = True
            self._clock.close()
            while self._idle:
                self._idle.pop().close()


class Permits:
    """How many calls may run at once, in all machines that share this."""

    def __init__(self, count: int) -> None:
        """Allow `count` calls."""
        self._count = count
        # A queue written in C takes a tenth of the time of the semaphore of `threading`.
        self._free: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(count):
            self._free.put(None)

    def take(self, waits: bool = True) -> None:
        """Wait until a call may run, and count it; raises `Busy` instead of waiting."""
        try:
            self._free.get(waits)
        except queue.Empty:
            raise Busy from None

    def give(self) -> None:
        """A call has ended."""
        self._free.put(None)

    @contextlib.contextmanager
    def all(self) -> Iterator[None]:
        """While no call runs."""
        for _ in range(self._count):
            self.take()
        try:
            yield
        finally:
            for _ in range(self._count):
                self.give()


# ---- threads with room for a guest ----------------------------------------------------------------------------------


class _Here(threading.local):
    large: bool | None = None


_here = _Here()
_stack_size = threading.Lock()


def on_large_stack(work: Callable[[], _Result]) -> _Result:
    """Do `work` where a guest's recursion ends at its own limit, not at the end of the thread's stack.

    That is here, if this thread's stack is large enough, as nearly always; else on a thread made for it.
    """
    if _here.large is None:
        _here.large = _stack_here() >= _THREAD_STACK
    if _here.large:
        return work()
    outcome: list[_Result] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised again, on the thread that asked
            failure.append(error)

    with _stack_size:
        before = threading.stack_size(2 * _THREAD_STACK)
        try:
            thread = threading.Thread(target=run, name="sandbox-guest")
            thread.start()
        finally:
            threading.stack_size(before)
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def _stack_here() -> int:
    """The size of this thread's stack, in bytes, as well as it can be known."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):
            library = ctypes.CDLL(None)
            library.pthread_self.restype = ctypes.c_void_p
            attributes = ctypes.create_string_buffer(256)
            size = ctypes.c_size_t()
            if library.pthread_getattr_np(ctypes.c_void_p(library.pthread_self()), attributes) == 0:
                library.pthread_attr_getstacksize(attributes, ctypes.byref(size))
                library.pthread_attr_destroy(attributes)
                return size.value
    if threading.current_thread() is threading.main_thread():
        return 8 * 1024 * 1024
    return threading.stack_size() or 8 * 1024 * 1024
