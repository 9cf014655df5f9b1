"""Every acknowledgement follows a sync. A kill cannot show it: what a process has written survives the process.

A library in front of the C library (`disk_log.c`) notes what the server writes, syncs and answers. From that the disk is made as it
would be if the power had failed at the moment of an answer: what was not synced by then is not there, or some of it is.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
from kill_room import Clients, house

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="it is loaded into the server as Linux does it"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler"),
]
_HEAD = struct.Struct("<cQQQ")
_CUTS = 30  # power failures for each log
_SECTOR = 512


@attrs.define(eq=False)
class Disk:
    """Files by inode: what is safe on the disk, and what was written and not synced since."""

    safe: dict[int, bytearray]
    pending: dict[int, list[tuple[str, int, bytes]]] = attrs.field(factory=lambda: defaultdict(list))
    begun: dict[int, list[int]] = attrs.field(factory=lambda: defaultdict(list))  # syncs: how much was pending then

    def take(self, kind: str, file: int, offset: int, data: bytes) -> None:
        if kind in "wt":
            self.pending[file].append((kind, offset, data))
        elif kind == "b":
            self.begun[file].append(len(self.pending[file]))
        elif kind == "s":
            count = self.begun[file].pop(0)
            done, self.pending[file] = self.pending[file][:count], self.pending[file][count:]
            self.begun[file] = [max(0, other - count) for other in self.begun[file]]
            for change in done:
                _change(self.safe.setdefault(file, bytearray()), *change)

    def after_power_failed(self, file: int, randomness: random.Random | None) -> bytes:
        """What is found of a file; with ``randomness`` some sectors that were not synced have come to the disk."""
        content = bytearray(self.safe.get(file, b""))
        for kind, offset, data in self.pending[file] if randomness is not None else ():
            for begin in range(0, max(1, len(data)), _SECTOR):
                if randomness is not None and randomness.random() < 0.5:
                    _change(content, kind, offset + begin, data[begin : begin + _SECTOR])
        return bytes(content)


def _change(content: bytearray, kind: str, offset: int, data: bytes) -> None:
    if kind == "t":
        del content[offset:]
        content.extend(bytes(offset - len(content)))
        return
    content.extend(bytes(max(0, offset + len(data) - len(content))))
    content[offset : offset + len(data)] = data


def records(log: Path) -> Iterator[tuple[str, int, int, bytes]]:
    data = log.read_bytes()
    place = 0
    while place + _HEAD.size <= len(data):
        kind, file, offset, length = _HEAD.unpack_from(data, place)
        place += _HEAD.size
        yield kind.decode(), file, offset, data[place : place + length]
        place += length


def told(answer: bytes) -> tuple[str, bool] | None:
    """Of which execution an answer tells, and whether it says that it has succeeded."""
    _, _, rest = answer.rpartition(b"\r\n\r\n")
    try:
        body: Any = json.loads(rest)
    except ValueError:
        return None
    if not isinstance(body, dict) or "execution_id" not in body:
        return None
    return body["execution_id"], body.get("status") == "succeeded"


def missing(database: Path, acknowledged: dict[str, bool]) -> list[str]:
    """What was acknowledged and is not there, or is not whole."""
    counted = "SELECT coalesce(sum(count), 0) FROM journal AS j WHERE j.tenant = e.tenant AND j.execution = e.id"
    connection = sqlite3.connect(database)
    try:
        if connection.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            return ["the file is damaged"]
        rows = connection.execute(f"SELECT id, status, seq, ({counted}) FROM executions AS e").fetchall()
    except sqlite3.DatabaseError as error:
        return [f"the file is damaged: {error}"]
    finally:
        connection.close()
    found = {name: status for name, status, seq, count in rows if seq == count}
    return [name for name, ended in acknowledged.items() if name not in found or (ended and found[name] != "succeeded")]


async def served(
    folder: Path, point: str
) -> tuple[list[tuple[str, int, int, bytes]], dict[str, bytes], dict[str, int]]:
    """What a server wrote, synced and answered while it served; its files before that, and their inodes."""
    library = folder / "disk_log.so"
    source = Path(__file__).with_name("disk_log.c")
    await anyio.run_process(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"])
    log = folder / "disk.log"
    async with house(folder, lease=5.0) as place, anyio.create_task_group() as group:
        # This process has the database open, so that the files are the same ones from here on. It must not read them by itself:
        # closing a file drops the locks that SQLite has on it.
        names = ("data.db", "data.db-wal")
        before = {name: (await anyio.run_process(["cat", str(folder / name)])).stdout for name in names}
        inodes = {name: (folder / name).stat().st_ino for name in names}
        watch = {"LD_PRELOAD": str(library), "DISK_LOG": str(log), "DISK_LOG_FILES": str(folder / "data.db")}
        process = await place.serve(point=point, **watch)
        clients = Clients(place)
        group.start_soon(clients.run)
        while clients.count < 60:
            await anyio.sleep(0.05)
        process.kill()
        process.wait()
        group.cancel_scope.cancel()
    return [*records(log)], before, inodes


def lost_by_power_failures(
    folder: Path, log: list[tuple[str, int, int, bytes]], before: dict[str, bytes], inodes: dict[str, int]
) -> tuple[int, list[str]]:
    """How many answers there were, and what they had acknowledged that a power failure would have undone."""
    randomness = random.Random(5)
    answers = [number for number, (kind, _, _, data) in enumerate(log) if kind == "a" and told(data) is not None]
    cuts = {*randomness.sample(answers, min(_CUTS, len(answers))), answers[-1]}
    disk = Disk({inodes[name]: bytearray(data) for name, data in before.items()})
    acknowledged: dict[str, bool] = {}
    lost: list[str] = []
    for number, (kind, file, offset, data) in enumerate(log):
        disk.take(kind, file, offset, data)
        if number not in answers:
            continue
        name, ended = told(data) or ("", False)
        acknowledged[name] = ended or acknowledged.get(name, False)
        for chance in (None, randomness) if number in cuts else ():
            found = folder / f"cut-{number}-{chance is None}"
            found.mkdir()
            for name, inode in inodes.items():
                (found / name).write_bytes(disk.after_power_failed(inode, chance))
            lost += missing(found / "data.db", acknowledged)
            shutil.rmtree(found)
    return len(answers), lost


async def test_what_is_acknowledged_survives_a_power_failure(tmp_path: Path) -> None:
    answers, lost = lost_by_power_failures(tmp_path, *await served(tmp_path, "none"))
    assert answers > 60
    assert not lost


@pytest.mark.parametrize("level", ["NORMAL", "OFF"])
async def test_a_database_that_syncs_less_would_be_caught(tmp_path: Path, level: str) -> None:
    """The test of the test."""
    _, lost = lost_by_power_failures(tmp_path, *await served(tmp_path, f"careless:{level}"))
    assert lost
