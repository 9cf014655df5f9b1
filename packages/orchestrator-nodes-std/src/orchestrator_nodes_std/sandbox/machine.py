"""Running guests: an engine, the wall clock that stops them, and instances of one compiled module.

Nothing here knows a language. A machine is given a compiled module without imports (see `wasm`), whose initial memory
is that of a language that has started already; every call has an instance of it in that first state.
"""

import contextlib
import ctypes
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import wasmtime

from orchestrator_nodes_std.sandbox.values import Limits

_Result = TypeVar("_Result")

TICK = 0.01
"""Seconds between two steps of the clock that stops guests, and so the precision of `Limits.time`."""
_LINGER = 1.0  # seconds that the clock runs on after the last call, so that calls in a row do not wake it each time
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


_REASONS = {wasmtime.TrapCode.INTERRUPT: "timeout", wasmtime.TrapCode.STACK_OVERFLOW: "stack"}


class Clock:
    """Steps an engine's epoch while guests run. Its thread starts with the first call and sleeps when there are none."""

    def __init__(self, target: wasmtime.Engine) -> None:
        """Step `target`; nothing runs yet."""
        self._engine = target
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
                    self._engine.increment_epoch()
                self._steps = due
            time.sleep(TICK)


class Guest:
    """An instance. Reading its memory works after it was stopped as well; calling it does not."""

    def __init__(self, store: wasmtime.Store, instance: wasmtime.Instance) -> None:
        """Wrap `instance`, which lives in `store`."""
        self._store = store
        self._exports = instance.exports(store)
        self._memory: Any = self._exports["memory"]
        self._stopped = False

    def call(self, name: str, *arguments: int) -> int:
        """Call an exported function; raises `Stopped` when it does not return."""
        return int(self._enter(name, *arguments))

    def call_void(self, name: str, *arguments: int) -> None:
        """Call an exported function that has no result; raises `Stopped` when it does not return."""
        self._enter(name, *arguments)

    def _enter(self, name: str, *arguments: int) -> Any:
        function: Any = self._exports[name]
        # Until it is known to have returned: an interrupt may come between the guest's end and Python's next line.
        self._stopped = True
        try:
            result = function(self._store, *arguments)
        except wasmtime.Trap as trap:
            code = trap.trap_code
            raise Stopped(_REASONS.get(code, "crashed") if code else "crashed", code.name if code else "trap") from None
        self._stopped = False
        return result

    def write(self, data: bytearray, at: int) -> None:
        """Put `data` into the memory; raises IndexError outside of it."""
        self._memory.write(self._store, data, at)

    def read(self, at: int, size: int) -> bytearray:
        """Bytes of the memory. Whatever the guest says about them, nothing outside its memory is read."""
        data: bytearray = self._memory.read(self._store, at, at + size)
        return data

    def size(self) -> int:
        """The size of the memory, in bytes."""
        return int(self._memory.data_len(self._store))

    def global_value(self, name: str) -> int:
        """The value of an exported global."""
        exported: Any = self._exports[name]
        return int(exported.value(self._store))

    def allow(self, limits: Limits, steps: int) -> None:
        """Let it run until `steps` of the clock from now, with as much memory as `limits` say."""
        self._store.set_limits(memory_size=limits.memory, instances=1, tables=1, memories=1)
        self._store.set_epoch_deadline(steps)

    def restore(self, memory: "ctypes.Array[ctypes.c_char]") -> bool:
        """Make the memory be as in `memory` again; False if that cannot be, and the instance has to go.

        It cannot after a trap (the guest was left anywhere), nor when the memory has grown (it never shrinks).
        """
        size = len(memory)
        if self._stopped or self.size() != size:
            return False
        ctypes.memmove(self._memory.data_ptr(self._store), memory, size)
        return True

    def close(self) -> None:
        """Give its memory back."""
        self._store.close()


class Machine:
    """Instances of one module, at most so many at a time. Safe to use from many threads.

    A guest begins every call in the state that the module itself describes. That is so by construction for a new
    instance. One that was used is restored: all of its memory is written over, which takes less time than the page
    faults of a new one; the stack pointer, its only mutable global (`wasm` sees to that), is set by `run` itself.
    """

    def __init__(self, target: wasmtime.Engine, module: wasmtime.Module, *, instances: int) -> None:
        """Run `module`, of the engine `target`, in at most `instances` at once (further calls wait)."""
        self._engine = target
        self._linked = wasmtime.Linker(target).instantiate_pre(module)
        self._clock = Clock(target)
        self._instances = instances
        self._free = threading.Semaphore(instances)
        self._closed = False
        self._idle: list[Guest] = []
        first = self._new(Limits())
        self._memory = ctypes.create_string_buffer(bytes(first.read(0, first.size())), first.size())
        self._idle.append(first)

    @contextlib.contextmanager
    def guest(self, limits: Limits) -> Iterator[Guest]:
        """A guest in its first state, under `limits`. To be entered on a thread that `on_large_stack` runs on."""
        with self._free:
            if self._closed:
                raise RuntimeError("the sandbox is closed")
            try:
                guest = self._idle.pop()
            except IndexError:
                guest = self._new(limits)
            steps = self._clock.begin(limits.time)
            try:
                guest.allow(limits, steps)
                yield guest
            finally:
                self._clock.end()
                # Now, rather than before the next call, so that nothing lies about in between.
                if guest.restore(self._memory):
                    self._idle.append(guest)
                else:
                    guest.close()

    def _new(self, limits: Limits) -> Guest:
        store = wasmtime.Store(self._engine)
        store.set_limits(memory_size=limits.memory, instances=1, tables=1, memories=1)
        return Guest(store, self._linked.instantiate(store))

    def close(self) -> None:
        """Wait for the calls that are running, then stop."""
        for _ in range(self._instances):
            self._free.acquire()
        self._closed = True
        self._clock.close()
        while self._idle:
            self._idle.pop().close()
        for _ in range(self._instances):
            self._free.release()


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
