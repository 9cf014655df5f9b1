"""wasmtime's C API and memory, where a call is shorter than what Python does around it.

wasmtime's Python asks for a function's type whenever it is called; and each of its calls into C lets go of Python's lock,
so that while other threads run (a server's writer always does) the shortest takes as long as getting the lock back.
What is here keeps the lock, all but `enter`: a guest runs without it, or the clock could not stop it.

The names are those of `wasmtime.h`; `wasmtime` is pinned to one major version.
"""

import ctypes
from typing import Any

import wasmtime
from wasmtime import _ffi

_POINTER, _SIZE = ctypes.c_void_p, ctypes.c_size_t
# Libraries of our own over the handle that is open already, since prototypes belong to one.
_open: Any = _ffi.dll
_keeping = ctypes.PyDLL(_open._name, handle=_open._handle)
_letting_go = ctypes.CDLL(_open._name, handle=_open._handle)

move = ctypes.PYFUNCTYPE(_POINTER, _POINTER, _POINTER, _SIZE)(ctypes.cast(ctypes.memmove, _POINTER).value or 0)
"""`memmove(to, from, size)`."""
fill = ctypes.PYFUNCTYPE(_POINTER, _POINTER, ctypes.c_int, _SIZE)(ctypes.cast(ctypes.memset, _POINTER).value or 0)
"""`memset(at, byte, size)`."""

set_epoch_deadline = _keeping.wasmtime_context_set_epoch_deadline
"""Of a store (see `context_of`): how many steps from now its guest is stopped."""
set_epoch_deadline.argtypes = [_POINTER, ctypes.c_uint64]
set_epoch_deadline.restype = None

increment_epoch = _keeping.wasmtime_engine_increment_epoch
"""Of an engine (see `engine_of`): one step."""
increment_epoch.argtypes = [_POINTER]
increment_epoch.restype = None

_memory_size = _keeping.wasmtime_memory_data_size
_memory_size.argtypes = [_POINTER, _POINTER]
_memory_size.restype = _SIZE

_call = _letting_go.wasmtime_func_call_unchecked
_call.argtypes = [_POINTER, _POINTER, _POINTER, _SIZE, _POINTER]
_call.restype = ctypes.POINTER(_ffi.wasmtime_error_t)


def context_of(store: wasmtime.Store) -> int:
    """Where the functions here find a store. It is gone when the store is closed."""
    return ctypes.cast(store._context(), _POINTER).value or 0


def engine_of(engine: wasmtime.Engine) -> int:
    """Where the functions here find an engine."""
    return ctypes.cast(engine.ptr(), _POINTER).value or 0


class Memory:
    """A guest's memory."""

    def __init__(self, context: int, memory: wasmtime.Memory) -> None:
        """Of the store `context`."""
        self._context = context
        self._memory = memory
        self._at = ctypes.addressof(memory._memory)

    def size(self) -> int:
        """In bytes."""
        size: int = _memory_size(self._context, self._at)
        return size


class Entry:
    """A guest's function that has no parameters."""

    def __init__(self, context: int, function: wasmtime.Func) -> None:
        """Of the store `context`."""
        self._context = context
        self._function = function
        self._at = ctypes.addressof(function._func)
        self._result = _ffi.wasmtime_val_raw_t()
        self._result_at = ctypes.addressof(self._result)

    def __call__(self) -> int:
        """Call it, without Python's lock. What it answers, if that is an i32; it means nothing if there is no result.

        Raises:
            wasmtime.Trap, wasmtime.WasmtimeError: It did not return.
        """
        trap: Any = ctypes.POINTER(_ffi.wasm_trap_t)()
        error = _call(self._context, self._at, self._result_at, 1, ctypes.byref(trap))
        if error:
            raise wasmtime.WasmtimeError._from_ptr(error)
        if trap:
            raise wasmtime.Trap._from_ptr(trap)
        return self._result.i32
