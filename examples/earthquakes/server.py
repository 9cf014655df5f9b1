"""A small web service over real earthquake records, for the workflows beside it.

    python examples/earthquakes/server.py --port 8123

The records are those of the US Geological Survey for Indonesia and the Philippines, April to July 2024, as the package
``hvsampledata`` carries them. Only the standard library is used. It answers

* ``GET /events?page=1&limit=100``: a list, the newest last, with ``Link: <...>; rel="next"`` while there is more;
* ``&min_magnitude=5``: only those from this magnitude on;
* ``&near=-2.1,127.9&within_km=200&after=2024-04-09T09:47:59Z&days=14``: only those near a place, after a time.

The first request is answered ``503``, with ``Retry-After``, where ``--flaky`` is given: services are like that.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import math
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

PACKAGE = "hvsampledata"
_EARTH_KM = 6371.0

Event = dict[str, Any]


def read_events() -> list[Event]:
    """The records of the data package, oldest first.

    Raises:
        SystemExit: The package is not installed, or holds no such file; says what to do.
    """
    try:
        found = [file for file in files(PACKAGE) or () if file.name == "earthquakes.csv"]
    except PackageNotFoundError:
        found = []
    if not found:
        sys.exit(f"the earthquake records come with a package: pip install {PACKAGE}")
    with Path(str(found[0].locate())).open(encoding="utf-8", newline="") as file:
        return sorted((_event(row) for row in csv.DictReader(file)), key=lambda event: str(event["time"]))


def _event(row: Mapping[str, str]) -> Event:
    return {
        "time": row["time"].replace(" ", "T") + "Z",
        "mag": float(row["mag"]),
        "depth_km": float(row["depth"]),
        "lat": float(row["lat"]),
        "lon": float(row["lon"]),
        "place": row["place"],
    }


def distance_km(a_lat: float, a_lon: float, b_lat: float, b_lon: float) -> float:
    """Along the surface (the haversine formula), in kilometres; degrees in."""
    a, b = math.radians(a_lat), math.radians(b_lat)
    half = math.sin((b - a) / 2) ** 2 + math.cos(a) * math.cos(b) * math.sin(math.radians(b_lon - a_lon) / 2) ** 2
    return 2 * _EARTH_KM * math.asin(math.sqrt(half))


def select(events: Sequence[Event], query: Mapping[str, str]) -> list[Event]:
    """The events that a query asks for.

    Raises:
        ValueError: A parameter is not what it should be.
    """
    least = float(query.get("min_magnitude", "-inf"))
    chosen = [event for event in events if event["mag"] >= least]
    if "near" in query:
        lat, lon = (float(number) for number in query["near"].split(","))
        reach = float(query.get("within_km", "100"))
        chosen = [event for event in chosen if distance_km(lat, lon, event["lat"], event["lon"]) <= reach]
    if "after" in query:
        begin = datetime.fromisoformat(query["after"])
        end = begin + timedelta(days=float(query.get("days", "30")))
        chosen = [event for event in chosen if begin < datetime.fromisoformat(event["time"]) <= end]
    return chosen


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        """Answer one request."""
        time.sleep(self.server.latency)
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        if self.server.take_failure():
            self._answer(503, {"message": "busy, try again"}, {"Retry-After": "1"})
        elif url.path != "/events":
            self._answer(404, {"message": "there is only /events here"})
        else:
            try:
                page, limit = int(query.pop("page", "1")), int(query.pop("limit", "100"))
                chosen = select(self.server.events, query)
                if page < 1 or not 1 <= limit <= 1000:
                    raise ValueError("page counts from 1, and limit is 1 to 1000")  # noqa: TRY301 - one place answers
            except ValueError as error:
                self._answer(400, {"message": str(error)})
                return
            more = {}
            if page * limit < len(chosen):
                following = urlencode({**query, "page": page + 1, "limit": limit})
                more = {"Link": f'<{self.server.url}/events?{following}>; rel="next"'}
            self._answer(200, chosen[(page - 1) * limit : page * limit], more)

    def _answer(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # whoever asked has gone
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the picture of the execution is on the same terminal."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, events: Sequence[Event], port: int, latency: float, failures: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.events = events
        self.latency = latency
        self._failures = failures
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def take_failure(self) -> bool:
        """Whether this request is one of those that fail."""
        with self._lock:
            self._failures -= 1
            return self._failures >= 0


@contextlib.contextmanager
def serving(
    events: Sequence[Event] | None = None, *, port: int = 0, latency: float = 0.0, failures: int = 0
) -> Iterator[str]:
    """Run the service in a thread; gives its URL.

    Args:
        events: What it serves; the records of the data package unless said.
        port: Where it listens on this machine; 0: any free port.
        latency: Seconds that every answer takes, as those of a service far away would.
        failures: How many of the first requests are answered 503.
    """
    with _Server(read_events() if events is None else events, port, latency, failures) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Serve real earthquake records on this machine.")
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that every answer takes")
    parser.add_argument("--flaky", action="store_true", help="answer the first request with 503")
    given = parser.parse_args()
    with serving(port=given.port, latency=given.latency, failures=int(given.flaky)) as url:
        events = read_events()
        since, until = (
            datetime.fromisoformat(event["time"]).astimezone(UTC).date() for event in (events[0], events[-1])
        )
        print(f"{len(events)} earthquakes, {since} to {until}, at {url}/events (Ctrl-C ends it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
