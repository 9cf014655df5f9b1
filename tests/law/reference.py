"""The law of execution, read aloud: a naive interpreter of cases, to compare the machine with.

Written from the law alone (the numbers below are its rules), for a reader who checks it sentence by sentence. Nothing
here is quick: every step looks at everything again. How it works:

* Time is virtual (seconds from the start). What will happen is a list; the least one happens next: the earliest, and
  at one time what happens outside, then completions in document order, then timers (the fine print's *Ties*).
* Whatever happens is one *event* (a completion, a timer, a signal, a cancel, the answer to an evaluation, the start).
  After an event its consequences travel: as long as something can be decided, the first decision is taken, inner
  graphs before outer ones, upstream before downstream. Then free slots are given.
* An evaluation (`when`, `for_each`, `until`, `output`) is answered before anything else happens, in the order of asking,
  and the answer is an event of its own (12).

`interpret(case)` takes the parsed mapping of a case (format: the README beside the law's examples) and gives a plain
dict; `check(case, outcome)` lists in words where an outcome is not what the case expects.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from reference_expressions import ExpressionError, render, truthy
from reference_graph import (
    ENDED,
    Edge,
    Record,
    Scope,
    gather_inputs,
    join_says,
    name_of,
    nodes_seen,
    plan,
    port_of,
    seconds,
    terminal_output,
    upstream_first,
)

OUTSIDE, COMPLETION, TIMER = range(3)


@dataclass(eq=False)
class Happening:
    """Something that will happen at a time, unless what it belongs to ends first."""

    at: float
    rank: int
    place: tuple[int, ...]
    owner: Record | Scope | None
    act: Callable[[], None]


@dataclass(eq=False)
class Question:
    """A command `Evaluate` (12): `then` gets the value, `failed` the message of an evaluation error."""

    event: int
    place: tuple[int, ...]
    owner: Record | Scope
    template: Any
    names: Callable[[], dict[str, Any]]
    then: Callable[[Any], None]
    failed: Callable[[str], None]


# --- the interpreter --------------------------------------------------------------------------------------------------


class Interpreter:
    """One execution of one case."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.case = case
        settings = case["workflow"].get("settings") or {}
        self.max_parallel: int = settings.get("max_parallel", 32)
        self.drain = settings.get("failure", "stop") == "drain"
        self.now: float = 0
        self.event = 0
        self.pending: list[Happening] = []
        self.questions: list[Question] = []
        self.live: list[Scope] = []
        self.scopes: list[Scope] = []
        self.records: list[Record] = []
        self.ready: list[Record] = []  # due, and without a slot
        self.running: list[Record] = []  # holding a slot
        self.signals: dict[tuple[str, str], list[Any]] = {}
        self.signal_ids: set[str] = set()
        self.order: list[str] = []
        self.max_running = 0
        self.result: tuple[str, Any, dict[str, Any] | None] | None = None

    def run(self) -> dict[str, Any]:
        """Until the execution is over, or nothing is left that could happen (then its status stays `running`)."""
        for happening in self.case.get("happens") or []:
            act = partial(self.signal, **happening["signal"]) if "signal" in happening else None
            act = act or partial(self.cancel, happening.get("path"))
            self.pending.append(Happening(happening["at"], OUTSIDE, (), None, act))
        payload = self.case.get("payload")
        self.happen(lambda: self.begin_scope(Scope(self.case["workflow"], "", (), None, payload, {})))
        while self.result is None and (self.questions or self.pending):
            if self.questions:
                question = min(self.questions, key=lambda q: (q.event, q.place))
                self.questions.remove(question)
                self.happen(partial(self.answer, question))
            else:
                following = min(self.pending, key=lambda h: (h.at, h.rank, h.place))
                self.pending.remove(following)
                self.now = following.at
                self.happen(following.act)
        status, output, error = self.result or ("running", None, None)
        names: list[str] = []
        edges: dict[str, str | None] = {}
        for edge in (edge for scope in self.scopes for edge in scope.edges):
            names.append(edge.name)
            repeats = names.count(edge.name)
            edges[edge.name if repeats == 1 else f"{edge.name}#{repeats}"] = edge.state
        return {
            "status": status,
            "output": output,
            "error": error,
            "nodes": {r.path: describe(r) for r in sorted(self.records, key=lambda r: r.place)},
            "edges": edges,
            "finished_at": self.now if self.result else None,
            "max_running": self.max_running,
            "order": self.order,
        }

    def happen(self, act: Callable[[], None]) -> None:
        """One event: what it does, how that travels, what its nodes see, and who gets a slot."""
        self.event += 1
        act()
        while self.result is None and (step := self.next_step()):
            step()
        for record in self.records:
            if record.due == self.event:
                record.seen = nodes_seen(record.scope)  # after the event's skips have travelled
        if self.result is None:
            self.give_slots()

    def next_step(self) -> Callable[[], None] | None:
        """The first thing that can be decided without waiting for an event: innermost graph, then upstream, first."""
        for scope in sorted(self.live, key=lambda s: (-len(s.place), s.place)):
            if scope.ending:
                continue
            for record in scope.records.values():
                if record.due is None and record.status == "pending" and (word := join_says(record)):
                    return partial(self.decide, record, word)
                if record.items is not None and record.status == "running":
                    begun = [item for item in record.items if item.due is not None and item.status not in ENDED]
                    waiting = [item for item in record.items if item.due is None]
                    if not begun and not waiting:
                        return partial(self.collect, record)
                    if waiting and len(begun) < record.node.get("max_parallel", math.inf):
                        return partial(self.begin, waiting[0])  # 6. at most `max_parallel` items at a time, in order
            if all(record.status in ENDED for record in scope.records.values()):
                return partial(self.end_scope, scope)
        return None

    # --- edges and joins (2-4)

    def settle(self, record: Record, *, tainted: bool = False) -> None:
        """2. Each edge of a node that has ended is delivered, if something was emitted on its port, else skipped."""
        for edge in record.scope.out_of(record):
            if edge.state is None:
                port = port_of(edge.document)
                edge.state = "delivered" if port in record.outputs else "skipped"
                edge.value = record.outputs.get(port)
                edge.event = self.event
                edge.tainted = tainted and edge.state == "skipped"

    def decide(self, record: Record, word: str) -> None:
        """3. What the join said is done. `due` leads to `cancel_rest`, then (4) `when`, once."""
        if word != "due":
            record.status = word
            self.settle(record, tainted=word == "cancelled")  # a skip travels on, and so does its taint
            return
        record.due = self.event
        record.inputs = gather_inputs(record)
        if record.node.get("cancel_rest"):
            self.cancel_rest(record)
        if "when" in record.node:
            self.ask(record, record.node["when"], self.names_of(record), partial(self.after_when, record))
        else:
            self.begin(record)

    def cancel_rest(self, join: Record) -> None:
        """3. Losers that have begun are cancelled if all their outgoing edges go to the join; not transitively."""
        scope = join.scope
        for edge in scope.into(join):
            loser = scope.records[edge.document["source"]]
            feeds_only_this = all(e.document["target"] == join.node["id"] for e in scope.out_of(loser))
            if edge.state is None and loser.due is not None and loser.status not in ENDED and feeds_only_this:
                self.halt(loser)
                self.settle(loser)

    def after_when(self, record: Record, value: Any) -> None:
        """4. False (as JavaScript sees it), and the node is skipped."""
        if truthy(value):
            self.begin(record)
        else:
            record.status = "skipped"
            self.settle(record)

    # --- what a due node does (4, 6, 7, 11)

    def begin(self, record: Record) -> None:
        """A node after its `when`, or an item that got its place: pinned, disabled, many, a group, or attempts."""
        if record.due is None:
            record.due = self.event
        pins = self.case.get("pins") or {}
        if record.path in pins:
            self.succeed(record, dict(pins[record.path]))
        elif record.node.get("disabled"):
            self.succeed(record, {"main": record.input})
        elif "for_each" in record.node and record.item_of is None:
            names = self.names_of(record)
            self.ask(record, record.node["for_each"], names, partial(self.after_for_each, record))
        elif record.is_group:
            record.status = "running"
            self.begin_body(record, 0, record.input)
        else:
            record.queued = record.due  # the place in the queue counts from here, whatever `when` took
            self.ready.append(record)

    def succeed(self, record: Record, outputs: dict[str, Any]) -> None:
        self.drop(record)
        record.status = "succeeded"
        record.outputs = outputs
        if record.item_of is None:
            self.settle(record)

    def after_for_each(self, record: Record, value: Any) -> None:
        """6. `for_each` must give a list; the rest of the items' life is in `next_step`."""
        if not isinstance(value, list):
            self.fail(record, self.error(record, "expression", "`for_each` did not give a list"))
            return
        record.status = "running"
        record.items = []
        for index, item in enumerate(value):
            path, place = f"{record.path}/{index}", (*record.place, index)
            inputs = {**record.inputs, "main": item}
            record.items.append(Record(record.scope, record.node, path, place, item_of=record, inputs=inputs))
        self.records += record.items

    def collect(self, record: Record) -> None:
        """6. Each port but `error` delivers the list, in the items' order, of what was emitted there; none: `[]`."""
        items = record.items or []
        ports = {port for item in items for port in item.outputs if port != "error"}
        outputs = {port: [item.outputs[port] for item in items if port in item.outputs] for port in ports}
        self.succeed(record, outputs if items else {"main": []})

    def begin_body(self, record: Record, iteration: int, value: Any) -> None:
        """7. A `workflow`'s body runs once under the group's path, a `loop`'s under `path/iteration`, from 0."""
        record.iteration = iteration
        path, place = record.path, record.place
        if record.node["type"] == "loop":
            path, place = f"{path}/{iteration}", (*place, iteration)
        around = record.scope.around
        if record.item_of is not None:
            around = {"item": record.input, "index": record.place[-1]}
        record.body = Scope(record.node["config"]["body"], path, place, record, value, around)
        self.begin_scope(record.body)

    def begin_scope(self, scope: Scope) -> None:
        """1. The plan becomes records and edges; its roots become due in this very event (see `next_step`)."""
        document = scope.document
        prefix = f"{scope.path}/" if scope.path else ""
        nodes, edges = plan(document, self.case.get("start") if scope.owner is None else None)
        for node in upstream_first(nodes, edges):
            position = document["nodes"].index(node)
            scope.records[node["id"]] = Record(scope, node, prefix + node["id"], (*scope.place, position))
        scope.edges = [Edge(edge, prefix + name_of(edge)) for edge in edges]
        self.scopes.append(scope)
        self.live.append(scope)
        self.records += scope.records.values()
        timeout = (document.get("settings") or {}).get("timeout")
        if timeout is not None:
            self.later(TIMER, seconds(timeout), scope, partial(self.scope_fails, scope, "timeout", "it took too long"))

    def end_scope(self, scope: Scope) -> None:
        """11. All has ended: a drained failure (9), or the `output`, or what the terminal nodes gave."""
        scope.ending = True
        if scope.failures:
            _, error, path = min(scope.failures, key=lambda failure: failure[0])  # the first by document order
            self.stop(scope, error, path)
        elif scope.document.get("output") is not None:
            names = {"input": scope.input, "inputs": {"main": scope.input}, "nodes": nodes_seen(scope), **scope.around}
            then, failed = partial(self.scope_gives, scope), partial(self.scope_fails, scope, "expression")
            output = scope.document["output"]
            self.questions.append(Question(self.event, scope.place, scope, output, lambda: names, then, failed))
        else:
            self.scope_gives(scope, terminal_output(scope))

    def scope_gives(self, scope: Scope, value: Any) -> None:
        """7. A `workflow` gives what its body gave; a `loop` asks `until`, where the document has one."""
        self.close(scope)
        owner = scope.owner
        if owner is None:
            self.result = ("succeeded", value, None)
        elif owner.node["type"] == "workflow":
            self.succeed(owner, {"main": value})
        elif "until" in owner.node["config"]:
            names = {"input": value, "inputs": {"main": value}, "nodes": nodes_seen(scope), **scope.around}
            then = partial(self.after_until, owner, value)
            self.ask(owner, owner.node["config"]["until"], lambda: names, then)
        else:
            self.after_until(owner, value, None)

    def after_until(self, record: Record, value: Any, answer: Any) -> None:
        """7. Iteration *n* gets what *n*-1 gave, at most `max_iterations` of them, `delay` between them only."""
        config = record.node["config"]
        last = record.iteration + 1 >= config["max_iterations"]
        if truthy(answer) or (last and "until" not in config):
            self.succeed(record, {"main": value})
        elif last:
            self.fail(record, self.error(record, "loop_exhausted", "`until` did not come true"))
        elif delay := seconds(config.get("delay", 0)):
            self.later(TIMER, delay, record, partial(self.begin_body, record, record.iteration + 1, value))
        else:
            self.begin_body(record, record.iteration + 1, value)

    # --- attempts, slots, waits (8-10)

    def give_slots(self) -> None:
        """8. Only leaf attempts hold slots. *Slots*: first due first, then document order."""
        while self.ready and len(self.running) < self.max_parallel:
            record = min(self.ready, key=lambda r: (r.queued, r.place))
            self.ready.remove(record)
            self.running.append(record)
            self.max_running = max(self.max_running, len(self.running))
            record.status = "running"
            doing, record.waking = record.waking, None
            if doing is None:
                record.attempts += 1
                self.order.append(record.path)
                doing = self.next_entry(record, repeat=True) or {"emit": {"main": record.input}}
            self.later(COMPLETION, doing.get("after", 0), record, partial(self.complete, record, doing))
            timeout = record.node.get("timeout")
            if timeout is not None:  # an attempt's time-out, afresh on waking
                fail = {"code": "timeout", "message": "the attempt took too long", "retryable": True}
                self.later(TIMER, seconds(timeout), record, partial(self.complete, record, {"fail": fail}))

    def next_entry(self, record: Record, *, repeat: bool) -> dict[str, Any] | None:
        """The entry of the script that comes next; past the end None, or the last again for a new attempt."""
        in_document = (record.node.get("config") or {}).get("script")
        entries: list[dict[str, Any]] = (self.case.get("script") or {}).get(record.path) or in_document or []
        if record.entry + 1 < len(entries):
            record.entry += 1
        elif not repeat or not entries:
            return None
        return entries[record.entry]

    def complete(self, record: Record, doing: dict[str, Any]) -> None:
        """An attempt ends, by itself or by its time-out: it emitted, failed, or waits."""
        self.drop(record)
        if "fail" in doing:
            self.attempt_fails(record, doing["fail"])
        elif "wait" in doing:
            self.wait(record, doing)
        else:
            self.succeed(record, dict(doing.get("emit", {"main": record.input})))

    def attempt_fails(self, record: Record, fail: dict[str, Any]) -> None:
        """9. `retry` only tries again what is retryable; its delays grow by the factor up to `max_delay`."""
        retry = record.node.get("retry") or {}
        if not fail.get("retryable", False) or record.attempts >= retry.get("attempts", 1):
            self.fail(record, self.error(record, fail["code"], fail.get("message", ""), fail.get("data")))
            return
        delay = seconds(retry.get("delay", 0)) * retry.get("factor", 1) ** (record.attempts - 1)
        delay = min(delay, seconds(retry.get("max_delay", math.inf)))
        if delay:
            self.later(TIMER, delay, record, partial(self.queue, record, None))
        else:
            self.queue(record, None)

    def queue(self, record: Record, waking: dict[str, Any] | None) -> None:
        """It is due for a slot again: a new attempt, or a woken one."""
        self.drop(record)
        record.queued = self.event
        record.waking = waking
        record.status = "running"
        self.ready.append(record)

    def wait(self, record: Record, doing: dict[str, Any]) -> None:
        """10. A wait ends the attempt without spending it and holds nothing."""
        record.status = "waiting"
        wait = doing["wait"]
        if "signal" not in wait:
            self.later(TIMER, seconds(wait["for"]), record, lambda: self.wake(record, record.input))
            return
        record.waits_for = wait["signal"]
        if self.signals.get((record.path, wait["signal"])):
            self.wake(record, self.signals[record.path, wait["signal"]].pop(0))  # buffered, first in, first out
        elif wait.get("expires") is not None:
            expired = doing.get("expired") or {"fail": {"code": "expired", "message": "the wait expired"}}
            self.later(TIMER, seconds(wait["expires"]), record, partial(self.queue, record, expired))

    def wake(self, record: Record, value: Any) -> None:
        """The attempt goes on with its next entry; where that is left out it emits the signal's payload, or its input."""
        self.queue(record, self.next_entry(record, repeat=False) or {"emit": {"main": value}})

    def signal(self, path: str, name: str, payload: Any = None, id: str | None = None) -> None:
        """10. Signals are buffered from the start, deduplicated by id, consumed once."""
        if id is not None:
            if id in self.signal_ids:
                return
            self.signal_ids.add(id)
        self.signals.setdefault((path, name), []).append(payload)
        for record in self.records:
            if record.path == path and record.status == "waiting" and record.waits_for == name:
                self.wake(record, self.signals[path, name].pop(0))

    # --- failure and cancelling (9)

    def error(self, record: Record, code: str, message: str, data: Any = None) -> dict[str, Any]:
        """The object `{code, message, node, attempt, data}`; `node` is the id, also of an item."""
        return {"code": code, "message": message, "node": record.node["id"], "attempt": record.attempts, "data": data}

    def fail(self, record: Record, error: dict[str, Any], path: str | None = None) -> None:
        """9. After the last attempt. `path`: the innermost record where it began, if not this one."""
        path = path or record.path
        self.drop(record)
        record.status = "failed"
        record.error = error
        continues = record.node.get("on_error") == "continue"
        if record.item_of is not None:
            if continues:
                record.outputs = {"main": error}
            else:  # 6. the first item to fail fails the node
                self.fail(record.item_of, {**error, "data": {"items": main_outputs(record.item_of)}}, path)
            return
        scope = record.scope
        if any(port_of(edge.document) == "error" for edge in scope.out_of(record)):
            record.outputs = {"error": error}
            self.settle(record)
        elif continues:
            record.outputs = {"main": error}
            self.settle(record)
        elif self.drain:
            scope.failures.append((record.place, error, path))
            self.settle(record, tainted=True)
        else:
            self.stop(scope, error, path)

    def scope_fails(self, scope: Scope, code: str, message: str) -> None:
        """A time-out (it acts as stop, under drain too) or an error in `output`: no node of the graph is to blame."""
        error = {"code": code, "message": message, "node": None, "attempt": 0, "data": None}
        self.stop(scope, error, scope.path)

    def stop(self, scope: Scope, error: dict[str, Any], path: str) -> None:
        """9. The graph ends at once: the execution fails, or the group with the inner code, and says where."""
        self.close(scope)
        if scope.owner is None:
            self.result = ("failed", None, error)
        else:
            self.fail(scope.owner, {**error, "node": scope.owner.node["id"], "data": {"path": path}}, path)

    def cancel(self, path: str | None) -> None:
        """9. The execution is cancelled; or one group alone, whose node then fails with `cancelled`."""
        if path is None:
            self.close(self.scopes[0])
            self.result = ("cancelled", None, None)
            return
        for record in self.records:
            if record.path == path and record.is_group and record.status == "running":
                self.drop(record)
                data = None if record.items is None else {"items": main_outputs(record)}
                self.fail(record, self.error(record, "cancelled", "the group was cancelled", data))
                return

    def close(self, scope: Scope) -> None:
        """What ran or waited in a graph, and what never became due, is cancelled; unsettled edges are skipped."""
        for record in scope.records.values():
            self.halt(record)
            self.settle(record)
        self.forget(scope)
        self.live = [other for other in self.live if other is not scope]

    def halt(self, record: Record) -> None:
        if record.status not in ENDED:
            self.drop(record)
            record.status = "cancelled"

    def drop(self, record: Record) -> None:
        """Its slot, timers and questions, and whatever runs beneath it (items, a body), are no more."""
        self.forget(record)
        record.waits_for = None
        self.ready = [other for other in self.ready if other is not record]
        self.running = [other for other in self.running if other is not record]
        for item in record.items or []:
            self.halt(item)
        if record.body in self.live:
            self.close(record.body)

    # --- time and questions

    def later(self, rank: int, delay: float, owner: Record | Scope, act: Callable[[], None]) -> None:
        self.pending.append(Happening(self.now + delay, rank, owner.place, owner, act))

    def forget(self, owner: Record | Scope) -> None:
        self.pending = [happening for happening in self.pending if happening.owner is not owner]
        self.questions = [question for question in self.questions if question.owner is not owner]

    def names_of(self, record: Record) -> Callable[[], dict[str, Any]]:
        return lambda: {
            "input": record.input,
            "inputs": record.inputs,
            "nodes": record.seen,
            **record.scope.around,
        }

    def ask(
        self,
        record: Record,
        template: Any,
        names: Callable[[], dict[str, Any]],
        then: Callable[[Any], None],
    ) -> None:
        """12. What needs a value is asked; an evaluation error is a failure of the node like any other."""

        def failed(message: str) -> None:
            self.fail(record, self.error(record, "expression", message))

        self.questions.append(Question(self.event, record.place, record, template, names, then, failed))

    def answer(self, question: Question) -> None:
        names = {"payload": self.case.get("payload"), "vars": {}, "execution": {}, **question.names()}
        try:
            value = render(question.template, names)
        except ExpressionError as error:
            question.failed(str(error))
        else:
            question.then(value)


def main_outputs(record: Record) -> list[Any]:
    """`error.data.items`: what the items gave on `main`, in order, `null` where unfinished."""
    return [i.outputs.get("main") if i.status == "succeeded" else None for i in record.items or []]


def describe(record: Record) -> dict[str, Any]:
    """A record as results show it, `attempts` as a number."""
    return {
        "status": record.status,
        "input": record.input,
        "output": record.outputs.get("main"),
        "outputs": record.outputs,
        "error": record.error,
        "attempts": record.attempts,
    }


def interpret(case: dict[str, Any]) -> dict[str, Any]:
    """Run a case in virtual time.

    Gives `status`, `output`, `error`, `nodes` (by path), `edges` (by name), `finished_at` (seconds), `max_running` and
    `order`. Where nothing can happen any more and the execution still waits, `status` is `running` and `finished_at`
    None. Raises ValueError for a cycle and for several triggers without a `start`.
    """
    return Interpreter(case).run()


# --- comparing an outcome with what a case expects -------------------------------------------------------------------


def same(a: Any, b: Any) -> bool:
    """Equality of JSON: `true` is not 1, 1 is 1.0, the order of an object's members means nothing."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def same_error(wanted: Any, got: Any) -> bool:
    """Of an error only the keys given are compared."""
    if isinstance(wanted, dict) and isinstance(got, dict):
        return all(key in got and same(wanted[key], got[key]) for key in wanted)
    return same(wanted, got)


def check(case: dict[str, Any], outcome: dict[str, Any]) -> list[str]:
    """Where `outcome` (the shape of `interpret`) is not what `case["expect"]` says, in words; empty when it all is."""
    differences: list[str] = []

    def compare(what: str, wanted: Any, found: dict[str, Any], key: str) -> None:
        if key not in found:
            differences.append(f"{what}: expected {wanted!r}, and there is none")
        elif not (same_error if key == "error" else same)(wanted, found[key]):
            differences.append(f"{what}: expected {wanted!r}, got {found[key]!r}")

    for key, wanted in case["expect"].items():
        if key == "nodes":
            for path, fields in wanted.items():
                for name, value in fields.items():
                    compare(f"node {path}, {name}", value, outcome["nodes"].get(path, {}), name)
        elif key == "edges":
            for name, value in wanted.items():
                compare(f"edge {name}", value, outcome["edges"], name)
        else:
            compare(key, wanted, outcome, key)
    return differences
