"""A load generator that costs little: `python benchmarks/load.py '{"port": …, "path": …, …}'`, a process of its own.

Keep-alive connections, each with one request on its way at a time, over bare sockets and one selector: 20 to 40 µs of
processor time a request, so that it is neither the bottleneck nor takes much of the cores that it shares with what it
measures. Every answer is compared: the first one to each request as JSON with what it has to be, the rest byte by byte
with that first one. The process answers with one line of JSON behind `ANSWER`.
"""

import contextlib
import json
import select
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

ANSWER = "benchmark-answer: "
HOST = "127.0.0.1"
PATIENCE = 30  # seconds without any answer before it is given up


def body_of(data: bytes) -> bytes | None:
    """The body of a whole answer; `None` while some of it is missing."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[:end].lower()
    if not head.startswith(b"http/1.1 200"):
        raise RuntimeError(f"an answer that is not 200: {data[:300].decode(errors='replace')}")
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        raise RuntimeError(f"an answer without Content-Length: {data[:300].decode(errors='replace')}")
    stop = head.find(b"\r\n", at + 2)
    length = int(head[at + 17 : stop if stop > 0 else end])
    return data[end + 4 :] if len(data) - end - 4 >= length else None


class Load:
    """Some connections to one address, and what is asked over them."""

    def __init__(self, port: int, path: str, bodies: Sequence[Any], answers: Sequence[Any], connections: int) -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Type: application/json\r\n"
        self.requests = []
        for body in bodies:
            data = json.dumps(body).encode()
            self.requests.append(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        self.wanted = answers
        self.seen: list[bytes | None] = [None] * len(bodies)
        self.port = port
        self.poll = select.epoll()
        self.sockets: dict[int, socket.socket] = {}
        self.again = 0  # connections that were closed on the other side and opened again
        for _ in range(connections):
            self.connect()

    def connect(self) -> int:
        """Open a connection. Its number."""
        one = socket.create_connection((HOST, self.port), PATIENCE)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sockets[one.fileno()] = one
        self.poll.register(one.fileno(), select.EPOLLIN)
        return one.fileno()

    def reconnect(self, number: int) -> int:
        """In place of one that the server closed when it should have read: a busy one takes it for idle."""
        self.again += 1
        if self.again > len(self.sockets) * 4:
            raise RuntimeError("the server closes its connections")
        self.poll.unregister(number)
        self.sockets.pop(number).close()
        return self.connect()

    def send(self, number: int, which: int) -> None:
        """Send a request. That the connection was closed is seen when it is read from."""
        with contextlib.suppress(ConnectionError):
            self.sockets[number].sendall(self.requests[which])

    def check(self, which: int, body: bytes) -> None:
        seen = self.seen[which]
        if seen is None:
            if json.loads(body) != self.wanted[which]:
                raise RuntimeError(f"a wrong answer: {body[:300].decode(errors='replace')}")
            self.seen[which] = body
        elif body != seen:
            raise RuntimeError(f"another answer than before: {body[:300].decode(errors='replace')}")

    def run(self, more: Callable[[int], bool]) -> list[float]:
        """The seconds of each request. `more`: whether to send another one when so many were sent."""
        asked: dict[int, tuple[int, float]] = {}
        parts: dict[int, bytes] = {}
        took: list[float] = []
        requests, clock, sent = self.requests, time.perf_counter, 0
        for number in self.sockets:
            if more(sent):
                asked[number] = sent % len(requests), clock()
                self.send(number, sent % len(requests))
                sent += 1
        while asked:
            ready = self.poll.poll(PATIENCE)
            if not ready:
                raise RuntimeError(f"no answer within {PATIENCE} s")
            for number, _ in ready:
                try:
                    data = self.sockets[number].recv(65536)
                except ConnectionError:
                    data = b""
                if not data and number not in asked:  # it was idle
                    self.poll.unregister(number)
                    continue
                if not data:
                    if number in parts:
                        raise RuntimeError("the server closed a connection in the middle of an answer")
                    waiting, fresh = asked.pop(number), self.reconnect(number)
                    asked[fresh] = waiting
                    self.send(fresh, waiting[0])
                    continue
                if number in parts:
                    data = parts.pop(number) + data
                body = body_of(data)
                if body is None:
                    parts[number] = data
                    continue
                which, begun = asked.pop(number)
                now = clock()
                took.append(now - begun)
                self.check(which, body)
                if more(sent):
                    which = sent % len(requests)
                    asked[number] = which, now
                    self.send(number, which)
                    sent += 1
        return took

    def close(self) -> None:
        self.poll.close()
        for one in self.sockets.values():
            one.close()


def measure(order: dict[str, Any]) -> dict[str, Any]:
    """Carry out an order: `port`, `path`, `bodies`, `answers`, `connections`, and `seconds` or `requests`."""
    load = Load(order["port"], order["path"], order["bodies"], order["answers"], order["connections"])
    try:
        used, began = time.process_time(), time.perf_counter()
        if "seconds" in order:
            until = began + order["seconds"]
            took = sorted(load.run(lambda _: time.perf_counter() < until))
        else:
            took = sorted(load.run(lambda sent: sent < order["requests"]))
        wall, cpu = time.perf_counter() - began, time.process_time() - used
    finally:
        load.close()
    return {
        "requests": len(took),
        "again": load.again,
        "seconds": wall,
        "cpu": cpu,
        "p50": took[len(took) // 2],
        "p99": took[min(len(took) - 1, len(took) * 99 // 100)],
    }


if __name__ == "__main__":
    print(ANSWER + json.dumps(measure(json.loads(sys.argv[1]))), flush=True)
