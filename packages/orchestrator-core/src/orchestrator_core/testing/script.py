"""The node type ``script`` of cases and generated workflows: what each attempt does is written down beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from orchestrator_core.types import Failure, Json, Resumed, Wait

__all__ = ["Action", "action_of", "next_entry", "takes_an_entry"]

Entry = Mapping[str, Any]


@attrs.frozen
class Action:
    """What one run of an attempt does, ``after`` so many seconds: exactly one of the others is set."""

    after: float = 0.0
    outputs: dict[str, Json] | None = None
    failure: Failure | None = None
    wait: Mapping[str, Any] | None = None

    def wait_at(self, now: float) -> Wait:
        """The wait in absolute times."""
        wait = self.wait or {}
        if "for" in wait:
            return Wait(until=now + wait["for"])
        expires = wait.get("expires")
        return Wait(signal=wait["signal"], expires=None if expires is None else now + expires)


def takes_an_entry(resumed: Resumed | None) -> bool:
    """Whether a run takes an entry of the script: what follows an expiry stands beside the wait."""
    return resumed is None or resumed.kind != "expired"


def next_entry(entries: Sequence[Entry], run: int, resumed: Resumed | None, input: Json) -> Entry:
    """The entry of a run, by how many have taken one before (:func:`takes_an_entry`); or the last one again.

    An attempt that was woken and has no further entry emits the signal's payload, or its input after a time. An expiry
    does what stands beside the wait under ``expired``, by default it fails with the code ``expired``.
    """
    if resumed is not None and resumed.kind == "expired":
        waited = entries[min(run, len(entries)) - 1]
        fail = {"fail": {"code": "expired", "message": "nobody answered in time", "retryable": False, "data": None}}
        expired: Entry = waited.get("expired", fail)
        return expired
    if run < len(entries):
        return entries[run]
    if resumed is not None:
        return {"emit": {"main": resumed.payload if resumed.kind == "signal" else input}}
    return entries[-1] if entries else {"emit": {"main": input}}


def action_of(entry: Entry, input: Json) -> Action:
    """An entry as an action."""
    after = float(entry.get("after", 0))
    if "fail" in entry:
        fail = entry["fail"]
        failure = Failure(
            fail["code"], fail.get("message", ""), data=fail.get("data"), retryable=fail.get("retryable", False)
        )
        return Action(after, failure=failure)
    if "wait" in entry:
        return Action(after, wait=entry["wait"])
    return Action(after, outputs=dict(entry["emit"]) if "emit" in entry else {"main": input})
