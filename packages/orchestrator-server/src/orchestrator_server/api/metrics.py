"""Counts and durations, as the text that Prometheus reads. No label holds a tenant, an id or anything else from outside."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["Metrics"]

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """What has been counted since the start of this process."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, int], int] = {}
        self._durations: dict[tuple[str, str], list[float]] = {}  # a count for each bound, then count and sum
        self._accepted: dict[str, int] = {}
        self.in_flight = 0

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered. ``route`` is the table's path, not the request's."""
        key = (method, route, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        numbers = self._durations.setdefault((method, route), [0.0] * (len(_BOUNDS) + 2))
        for index, bound in enumerate(_BOUNDS):
            if seconds <= bound:
                numbers[index] += 1
        numbers[-2] += 1
        numbers[-1] += seconds

    def accepted(self, source: str) -> None:
        """An execution was accepted. ``source`` is ``api``, ``webhook``, ``trial`` or ``retry``."""
        self._accepted[source] = self._accepted.get(source, 0) + 1

    def render(self) -> str:
        """The text, version 0.0.4 of the format."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield "# HELP orchestrator_http_requests_total Requests answered."
        yield "# TYPE orchestrator_http_requests_total counter"
        for (method, route, status), count in sorted(self._requests.items()):
            yield f'orchestrator_http_requests_total{{method="{method}",route="{route}",status="{status}"}} {count}'
        yield "# HELP orchestrator_http_request_seconds Time from a request's head to the end of its answer."
        yield "# TYPE orchestrator_http_request_seconds histogram"
        for (method, route), numbers in sorted(self._durations.items()):
            labels = f'method="{method}",route="{route}"'
            for bound, within in zip(_BOUNDS, numbers, strict=False):
                yield f'orchestrator_http_request_seconds_bucket{{{labels},le="{bound}"}} {within:.0f}'
            yield f'orchestrator_http_request_seconds_bucket{{{labels},le="+Inf"}} {numbers[-2]:.0f}'
            yield f"orchestrator_http_request_seconds_sum{{{labels}}} {numbers[-1]:.6f}"
            yield f"orchestrator_http_request_seconds_count{{{labels}}} {numbers[-2]:.0f}"
        yield "# HELP orchestrator_http_requests_in_flight Requests that are being answered."
        yield "# TYPE orchestrator_http_requests_in_flight gauge"
        yield f"orchestrator_http_requests_in_flight {self.in_flight}"
        yield "# HELP orchestrator_executions_accepted_total Executions accepted by this process."
        yield "# TYPE orchestrator_executions_accepted_total counter"
        for source, count in sorted(self._accepted.items()):
            yield f'orchestrator_executions_accepted_total{{source="{source}"}} {count}'
