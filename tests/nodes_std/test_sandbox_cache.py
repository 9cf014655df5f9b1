"""Compiled code on disk: whatever is there, calls give the right answer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import wasmtime

from orchestrator_nodes_std.sandbox import JavaScript, cache, javascript
from orchestrator_nodes_std.sandbox.cache import Cache, key_of
from orchestrator_nodes_std.sandbox.wasm import (
    I32,
    Function,
    FunctionType,
    Snapshot,
    WasmError,
    WasmModule,
    signed,
    unsigned,
)


def answer(directory):
    with JavaScript(cache_dir=directory) as runtime:
        return runtime.run("return context.a + 1", {"a": 1}, seed=1, now=1.0).value


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The bytes of a cache file that is right, and its name."""
    directory = tmp_path_factory.getbasetemp() / "compiled"
    assert answer(directory) == 2
    [file] = directory.glob("*.module")
    return file.name, file.read_bytes()


@pytest.fixture
def compiles(monkeypatch):
    """Counts how often code is compiled."""
    images = []
    real = javascript._Kind.image
    monkeypatch.setattr(javascript._Kind, "image", lambda *given, **named: images.append(1) or real(*given, **named))
    return images


def test_what_was_compiled_is_not_compiled_again(tmp_path, compiled, compiles):
    name, content = compiled
    (tmp_path / name).write_bytes(content)
    assert answer(tmp_path) == 2
    assert not compiles
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_file_is_replaced(tmp_path, compiled, compiles, damage):
    name, content = compiled
    middle = len(content) // 2
    (tmp_path / name).write_bytes(
        {
            "cut": content[:middle],
            "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "empty": b"",
            "text": b"hello",
        }[damage]
    )
    store = Cache(tmp_path)
    assert store.load(Path(name).stem) is None
    if damage == "flipped":  # compiling takes its time; one kind shows it
        assert answer(tmp_path) == 2
        assert len(compiles) == 1
        assert store.load(Path(name).stem) is not None


def test_a_file_that_is_whole_but_of_another_engine_is_replaced(tmp_path, compiled, compiles):
    name, _ = compiled
    Cache(tmp_path).store(Path(name).stem, {"runtime": 1}, b"not machine code")
    assert answer(tmp_path) == 2
    assert len(compiles) == 1


def test_where_nothing_can_be_written_calls_work_all_the_same(tmp_path, compiled):
    blocked = tmp_path / "file"
    blocked.write_text("a file, where a directory should be")
    store = Cache(blocked / "sub")
    assert not store.store("key", {}, b"x")
    assert store.load("key") is None


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no owners of files")
def test_a_directory_that_others_can_write_to_is_not_trusted(tmp_path):
    store = Cache(tmp_path / "cache")
    assert store.store("key", {"a": 1}, b"code")
    entry = store.load("key")
    assert entry is not None
    assert entry.notes == {"a": 1}
    assert entry.file.read_bytes().startswith(b"code")
    store.directory.chmod(0o777)
    assert store.load("key") is None
    assert not store.store("key", {}, b"other")
    store.directory.chmod(0o700)
    assert store.load("key") == entry


def test_nothing_is_left_of_a_write_that_failed(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("disk full")

    store = Cache(tmp_path)
    monkeypatch.setattr(Path, "replace", refuse)
    assert not store.store("key", {}, b"x")
    assert list(tmp_path.iterdir()) == []


def test_what_nobody_has_used_for_a_month_is_removed(tmp_path):
    store = Cache(tmp_path)
    for key in ("old", "used", "new"):
        assert store.store(key, {}, b"code")
    (tmp_path / ".new-left").write_bytes(b"cut off")
    for name in ("old.module", "used.module", ".new-left"):
        os.utime(tmp_path / name, (0, 0))
    assert store.load("used") is not None
    assert store.store("other", {}, b"code")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["new.module", "other.module", "used.module"]


def test_the_key_holds_what_the_code_depends_on():
    assert key_of("a", "bc") != key_of("ab", "c")
    assert key_of("a", b"x") == key_of("a", b"x")
    assert cache.processor()


def test_processes_that_start_together_all_answer(tmp_path):
    program = """
import sys
from pathlib import Path
from orchestrator_nodes_std.sandbox import JavaScript
with JavaScript(cache_dir=Path(sys.argv[1])) as runtime:
    print(runtime.run("return context.a + 1", {"a": 1}, seed=1, now=1).value)
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0] for process in running] == ["2\n"] * 2
    assert len(list(tmp_path.iterdir())) == 1
    assert answer(tmp_path) == 2


# ---- rewriting modules ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "encoded"),
    [
        (0, "00"),
        (63, "3f"),
        (64, "c000"),
        (-1, "7f"),
        (-64, "40"),
        (-65, "bf7f"),
        (624485, "e58e26"),
        (-123456, "c0bb78"),
    ],
)
def test_signed_numbers_are_written_as_the_format_has_it(number, encoded):
    assert signed(number).hex() == encoded


@pytest.mark.parametrize(("number", "encoded"), [(0, "00"), (127, "7f"), (128, "8001"), (624485, "e58e26")])
def test_unsigned_numbers_are_written_as_the_format_has_it(number, encoded):
    assert unsigned(number).hex() == encoded


SMALL = """
(module
  (import "env" "secret" (func $secret (param i32) (result i32)))
  (memory (export "memory") 1)
  (global $sp (mut i32) (i32.const 1024))
  (global $constant i32 (i32.const 7))
  (data (i32.const 16) "hello")
  (func (export "ask") (param i32) (result i32) (i32.add (call $secret (local.get 0)) (i32.load8_u (i32.const 16))))
  (func (export "other") (result i32) (global.get $sp)))
"""


def test_a_module_is_linked_to_itself_and_begins_with_its_snapshot():
    module = WasmModule(bytes(wasmtime.wat2wasm(SMALL)))
    one = FunctionType(bytes([I32]), bytes([I32]))
    memory = bytearray(3 * 65536)
    memory[16], memory[100_000] = 5, 9
    binary = module.link(
        refuse=lambda item: Function(item.type, b"\x41" + signed(52)),
        keep=["memory", "ask"],
        add={"twice": Function(one, b"\x20\x00\x10" + unsigned(module.function("ask")) + b"\x41\x02\x6c")},
        snapshot=Snapshot(bytes(memory), 4096),
    )
    engine = wasmtime.Engine()
    linked = wasmtime.Module(engine, binary)
    assert linked.imports == []
    assert sorted(item.name for item in linked.exports) == ["ask", "memory", "stack_pointer", "twice"]
    store = wasmtime.Store(engine)
    exports = wasmtime.Instance(store, linked, []).exports(store)
    assert exports["twice"](store, 1) == 2 * (52 + 5)
    assert exports["stack_pointer"].value(store) == 4096
    assert bytes(exports["memory"].read(store, 0)) == memory


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('(module (import "env" "m" (memory 1)) (func (export "f")))', "is no function"),
        ('(module (memory 1) (global (mut i32) (i32.const 1)) (global (mut i32) (i32.const 1)) (func (export "f")))', "globals other"),
        ('(module (memory 1 2) (global (mut i32) (i32.const 1)) (func (export "f")))', "without a maximum"),
        ('(module (func $s) (start $s) (func (export "f")))', "section of kind 8"),
    ],
)  # fmt: skip
def test_a_module_whose_state_could_not_be_kept_is_refused(text, message):
    binary = bytes(wasmtime.wat2wasm(text))
    with pytest.raises(WasmError, match=message):
        WasmModule(binary).link(refuse=lambda _: None, keep=["f"], snapshot=Snapshot(bytes(65536), 0))


def test_what_is_no_module_is_refused():
    with pytest.raises(WasmError, match="not a WebAssembly module"):
        WasmModule(b"hello")
