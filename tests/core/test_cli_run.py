"""`orchestrator run`: what a person gives, what they get back, and how it ends."""

import json
import re
import signal
import sys
import textwrap
from datetime import datetime
from io import BytesIO, TextIOWrapper

import pytest

from orchestrator_core import Engine, Workflow
from orchestrator_core.cli import main
from orchestrator_core.codec import parse_json
from orchestrator_core.results import result_to_json

pytest.importorskip("orchestrator_nodes_std")

ORDER = """
schema: 1
id: order
nodes:
  - {id: price, type: code, config: {source: "console.log('pricing'); return {total: context.input.qty * 3}"}}
  - {id: big, type: if, config: {condition: "{{ input.total > 100 }}"}}
  - {id: notify, type: set, config: {values: {to: "{{ vars.to }}", total: "{{ nodes.price.output.total }}"}}}
edges:
  - {source: price, target: big}
  - {source: big, port: "true", target: notify}
output: "{{ nodes.notify.output ?? 'small order' }}"
"""


@pytest.fixture
def file(tmp_path):
    def write(text, name="workflow.yaml"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write


@pytest.fixture
def run(file, capsys):
    def run(text, *arguments, name="workflow.yaml"):
        code = main(["run", file(text, name), *arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return run


# --- a run that succeeds --------------------------------------------------------------------------------------------


def test_a_line_for_everything_that_happens_and_the_output_at_the_end(run):
    code, out, err = run(ORDER, "--input", '{"qty": 50}', "--var", 'to="shop"')
    assert (code, err) == (0, "")
    lines = [re.sub(r"^ +\d+\.\d{3} s  |\d+(\.\d+)? ms|exe_\w+", "", line).strip() for line in out.splitlines()]
    assert lines == [
        "► order   start ()",
        "► price   start",
        "price   info: pricing",
        "✓ price   succeeded in",
        "► big     start",
        "✓ big     succeeded in , on port true",
        "► notify  start",
        "✓ notify  succeeded in",
        "order succeeded in : 3 nodes (3 succeeded)",
        'output: {"to": "shop", "total": 150}',
    ]


def test_what_is_skipped_says_why(run):
    _, out, _ = run(ORDER, "--input", '{"qty": 1}')
    assert re.search(r"» notify +skipped \(nothing was delivered to it\)", out)
    assert out.endswith('output: "small order"\n')


def test_every_port_that_delivered_is_named(run):
    text = """
    schema: 1
    id: ports
    nodes:
      - {id: some, type: filter, config: {items: "{{ input }}", where: "{{ item > 1 }}"}}
      - {id: one, type: if, config: {condition: "{{ true }}"}}
      - {id: plain, type: set}
    """
    _, out, _ = run(text, "--input", "[1, 2, 3]")
    assert re.search(r"✓ some +succeeded in .*, on ports main and rejected\n", out)
    assert re.search(r"✓ one +succeeded in .*, on port true\n", out)
    assert re.search(r"✓ plain +succeeded in [^,]*\n", out)


def test_json_is_the_result_and_nothing_else(run):
    code, out, err = run(ORDER, "--input", '{"qty": 50}', "--var", 'to="shop"', "--json")
    result = parse_json(out)
    assert (code, err) == (0, "")
    assert set(result) == {
        *("execution_id", "workflow", "version", "status", "output", "error", "nodes", "started_at", "finished_at"),
    }
    assert result["execution_id"].startswith("exe_")
    assert (result["workflow"], result["version"], result["status"]) == ("order", None, "succeeded")
    assert [node["path"] for node in result["nodes"]] == ["price", "big", "notify"]
    price, big, _ = result["nodes"]
    assert set(price) == {
        *("path", "node", "type", "status", "input", "output", "outputs", "error", "attempts", "logs"),
        *("started_at", "finished_at"),
    }
    assert price["output"] == {"total": 150}
    assert big["output"] is None
    assert big["outputs"] == {"true": {"total": 150}}
    assert [attempt["number"] for attempt in price["attempts"]] == [1]
    assert price["logs"][0]["message"] == "pricing"
    for moment in (result["started_at"], price["finished_at"], price["attempts"][0]["started_at"]):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", moment)
        datetime.fromisoformat(moment)


def test_a_result_as_json_can_be_written_and_says_what_failed():
    document = {
        "schema": 1,
        "id": "w",
        "nodes": [{"id": "a", "type": "fail", "config": {"message": "no", "code": "x"}}],
    }
    result = result_to_json(Engine().run_sync(Workflow.from_dict(document)))
    assert result == parse_json(json.dumps(result))
    assert result["error"] == result["nodes"][0]["error"] == result["nodes"][0]["attempts"][0]["error"]
    assert (result["error"]["code"], result["error"]["node"], result["error"]["attempt"]) == ("x", "a", 1)


def test_quiet_is_the_output_and_nothing_else(run):
    code, out, err = run(ORDER, "--quiet", "--input", '{"qty": 1}')
    assert (code, json.loads(out), err) == (0, "small order", "")


def test_the_payload_from_a_file_and_from_standard_input(run, file, monkeypatch):
    payload = file('{"qty": 1}', "payload.json")
    assert run(ORDER, "-q", "--input", f"@{payload}")[1] == '"small order"\n'
    payload = file("qty: 1\n", "payload.yaml")
    assert run(ORDER, "-q", "--input", f"@{payload}")[1] == '"small order"\n'
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"qty: 1")))
    assert run(ORDER, "-q", "--input", "@-")[1] == '"small order"\n'


def test_the_workflow_from_standard_input(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(ORDER.encode())))
    assert main(["run", "-", "-q", "-i", '{"qty": 1}']) == 0
    assert capsys.readouterr().out == '"small order"\n'


def test_a_pin_replaces_what_a_node_gives(run):
    code, out, _ = run(ORDER, "-q", "--pin", 'price={"total": 1000}', "--var", "to=1")
    assert (code, json.loads(out)) == (0, {"to": 1, "total": 1000})
    code, out, _ = run(ORDER, "-q", "--pin", 'big:false={"x": 1}', "--input", '{"qty": 1}')
    assert json.loads(out) == "small order"


def test_a_seed_makes_chance_reproducible(run):
    chance = """
    schema: 1
    id: chance
    nodes: [{id: a, type: code, config: {source: "return Math.random()"}}]
    """
    first = run(chance, "-q", "--seed", "7")[1]
    assert first == run(chance, "-q", "--seed", "7")[1]
    assert first != run(chance, "-q", "--seed", "8")[1]


def test_a_trigger_is_chosen(run):
    two = """
    schema: 1
    id: two
    nodes:
      - {id: left, type: manual}
      - {id: right, type: manual}
    """
    code, _, err = run(two)
    assert code == 2
    assert "left, right" in err
    assert "--start" in err
    assert run(two, "-q", "--start", "right", "--input", "3")[:2] == (0, "3\n")
    code, _, err = run(two, "--start", "centre")
    assert code == 2
    assert "'centre' is no trigger" in err


def test_callables_and_stored_workflows_are_given_on_the_command_line(run, file, tmp_path, monkeypatch):
    (tmp_path / "my_functions.py").write_text("def double(value):\n    return 2 * value\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    inner = file(
        '{"schema": 1, "id": "inner", "nodes": [{"id": "d", "type": "call", "config": {"function": "double"}}]}',
        "inner.json",
    )
    outer = """
    schema: 1
    id: outer
    nodes: [{id: sub, type: workflow, config: {workflow: inner}}]
    """
    given = ("--workflow", inner, "--callable", "double=my_functions:double", "--input", "21", "-q")
    assert run(outer, *given)[:2] == (0, "42\n")
    code, _, err = run(outer, "-q")
    assert code == 2
    assert "there is no workflow 'inner'" in err


def test_secrets_come_from_the_environment_and_are_never_shown(run, monkeypatch):
    monkeypatch.setenv("TOKEN_FOR_TEST", "s3cr3t-value")
    text = """
    schema: 1
    id: hidden
    nodes:
      - id: call
        type: http
        config: {url: "http://127.0.0.1:9/", auth: {type: bearer, token: "{{ secrets.token }}"}}
    """
    code, out, err = run(text, "--secret", "token=@env:TOKEN_FOR_TEST")
    assert code == 1
    assert "address_refused" in out
    assert "--allow-address" in out
    assert "s3cr3t" not in out + err


def test_the_picture_shows_how_it_ended(run, tmp_path):
    picture = tmp_path / "graph.svg"
    run(ORDER, "-q", "--input", '{"qty": 1}', "--svg", str(picture))
    text = picture.read_text()
    assert text.startswith("<svg")
    assert {"✓", "»"} <= set(text)


# --- a run that does not succeed ------------------------------------------------------------------------------------


def test_a_failure_says_where_what_and_what_may_help(run):
    text = """
    schema: 1
    id: broken
    nodes:
      - id: look
        type: code
        config:
          source: |
            const row = null
            return row.name
    """
    code, out, err = run(text)
    assert (code, err) == (1, "")
    assert re.search(r"✕ look +failed in .*: exception: ", out)
    assert "error: node 'look' failed: exception:" in out
    assert "line 2" in out
    code, out, err = run(text, "--quiet")
    assert (code, out) == (1, "")
    assert "error: node 'look' failed" in err
    code, out, err = run(text, "--json")
    assert (code, json.loads(out)["error"]["node"], err) == (1, "look", "")


def test_a_retry_shows_each_attempt(run, tmp_path, monkeypatch):
    (tmp_path / "flaky_functions.py").write_text(
        "tries = []\n\ndef flaky(value):\n    tries.append(1)\n    if len(tries) < 3:\n        raise OSError('down')\n    return 'up'\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    text = """
    schema: 1
    id: retried
    nodes: [{id: a, type: call, config: {function: flaky}, retry: {attempts: 3, delay: 0.01}}]
    """
    code, out, _ = run(text, "--callable", "flaky=flaky_functions:flaky")
    assert code == 0
    assert "attempt 1 failed, next in 10 ms: OSError: down" in out
    assert "attempt 3 of 3" in out


def test_loops_and_lists_are_counted(run):
    text = """
    schema: 1
    id: groups
    nodes:
      - {id: rows, type: set, for_each: "{{ input }}"}
      - {id: poll, type: loop, config: {max_iterations: 2, body: {nodes: [{id: step, type: set}]}}}
    """
    _, out, _ = run(text, "--input", "[{}, {}, {}]")
    assert re.search(r"rows +start: 3 items", out)
    assert re.search(r"rows +succeeded in .*, 3 items", out)
    assert re.search(r"poll +iteration 1 \(2 at most\)", out)
    assert "poll/1/step" in out
    _, out, _ = run(text, "--input", json.dumps([{}] * 1000))
    assert "100 of 1,000 items" in out
    assert out.count("rows/") == 0, "a thousand lines help nobody"


def test_a_timeout_on_the_command_line_wins(run):
    text = """
    schema: 1
    id: slow
    settings: {timeout: 1h}
    nodes: [{id: a, type: wait, config: {for: 30}}]
    """
    code, out, _ = run(text, "--timeout", "100ms")
    assert code == 1
    assert "error: the execution failed: timeout" in out
    assert re.search(r"… a +waits until .* \(in 30.0 s\)", out)


def test_the_handlers_of_the_process_are_as_they_were(run):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run(ORDER, "-q", "--input", '{"qty": 1}')
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


# --- what was not given ---------------------------------------------------------------------------------------------

PAYLOAD = ("--input JSON", "no payload was given")


@pytest.mark.parametrize(
    ("node", "parts"),
    [
        ('type: set, config: {values: {a: "{{ payload.url }}"}}', PAYLOAD),
        ('type: set, config: {values: {a: "{{ payload.url.length + 1 }}"}}', PAYLOAD),
        ('type: set, config: {values: {a: "{{ input.url }}"}}', PAYLOAD),
        ('type: set, when: "{{ payload.go }}"', PAYLOAD),
        ("type: code, config: {source: 'return context.input.qty * 3'}", PAYLOAD),
        ("type: code, config: {source: 'return context.payload.qty * 3'}", PAYLOAD),
        ("type: call, config: {function: first}", PAYLOAD),
        ('type: set, config: {values: {a: "to {{ vars.to }}"}}', ("vars.to was not given: --var to=JSON",)),
        ('type: set, config: {values: {a: "{{ vars.to.name }}"}}', ("vars.to was not given: --var to=JSON",)),
        ('type: http, config: {url: "{{ vars.url }}"}', ("vars.url was not given: --var url=JSON",)),
        (
            'type: loop, config: {max_iterations: 1, body: {nodes: [{id: b, type: http, config: {url: "{{ vars.u }}"}}]}}',
            ("vars.u was not given: --var u=JSON",),
        ),
        (
            'type: set, config: {values: {a: "{{ vars.x + vars.y.z }}"}}',
            ("vars.x and vars.y were", "--var x=JSON --var y=JSON"),
        ),
    ],
)
def test_a_failure_over_what_was_not_given_says_how_to_give_it(run, tmp_path, monkeypatch, node, parts):
    (tmp_path / "first_functions.py").write_text("def first(value):\n    return value[0]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    text = f"schema: 1\nid: given\nnodes:\n  - {{id: a, {node}}}\n"
    code, out, _ = run(text, "--callable", "first=first_functions:first")
    assert code == 1
    (hint,) = [line for line in out.splitlines() if line.startswith("hint:")]
    for part in parts:
        assert part in hint
    given = ("--input", "{}", *(f"--var={name}={{}}" for name in ("to", "url", "u", "x", "y")))
    _, out, _ = run(text, "--callable", "first=first_functions:first", *given)
    assert "given" not in "".join(line for line in out.splitlines() if line.startswith("hint:"))


def test_a_failure_of_its_own_does_not_blame_the_payload(run):
    text = """
    schema: 1
    id: own
    nodes: [{id: a, type: code, config: {source: "const row = null; return row.name"}}]
    """
    assert "hint:" not in run(text)[1]
    assert "hint:" not in run(text.replace("null; return row.name", "context.input; throw new Error('no')"))[1]


# --- signals --------------------------------------------------------------------------------------------------------

APPROVAL = """
schema: 1
id: approval
nodes:
  - {id: approve, type: wait, config: {signal: approved}}
"""


def test_an_execution_that_nobody_can_go_on_with_says_what_it_waits_for(run):
    code, out, err = run(APPROVAL)
    assert code == 1
    assert "approval waiting" in out
    assert "approve waits for the signal 'approved'" in err
    assert "--signal approve:approved=JSON" in err
    code, out, _ = run(APPROVAL, "--json")
    assert (code, json.loads(out)["status"], json.loads(out)["finished_at"]) == (1, "waiting", None)


def test_a_signal_may_be_given_up_front(run):
    assert run(APPROVAL, "-q", "--signal", 'approve:approved={"by": "me"}')[:2] == (0, '{\n  "by": "me"\n}\n')
    assert run(APPROVAL, "-q", "--signal", "approve:approved")[:2] == (0, "null\n")


def test_a_wait_that_ends_by_itself_is_waited_for(run):
    text = APPROVAL.replace("approved}", "approved, expires: 0.4, on_expiry: port}")
    code, out, _ = run(text)
    assert code == 0
    assert "goes on: no signal came in time" in out
    assert "on port expired" in out


# --- bad usage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--input", '{"a": 1,}'], ["--input: not JSON", "remove the comma", "column 8"]),
        (["--input", "{'a': 1}"], ["--input: not JSON", "double quotes", "column 2"]),
        (["--input", "hello"], ["--input: not JSON", "quotes", "@FILE"]),
        (["--input", "@nowhere.json"], ["nowhere.json: there is no such file"]),
        (["--input", "@"], ["name a file"]),
        (["--input", "NaN"], ["NaN is not JSON"]),
        (["--input", '{"a": 1, "a": 2}'], ["'a' stands twice"]),
        (["--var", "x"], ["write --var NAME=JSON"]),
        (["--var", "x=hello"], ["--var x: not JSON", "quotes"]),
        (["--var", "x=1", "--var", "x=2"], ["given twice"]),
        (["--pin", "nobody=1"], ["no node at 'nobody'"]),
        (["--pin", "prise=1"], ["did you mean 'price'?"]),
        (["--pin", "price"], ["write --pin PATH=JSON"]),
        (["--signal", "price"], ["write --signal PATH:NAME=JSON"]),
        (["--signal", "nobody:go=1"], ["no node at 'nobody'"]),
        (["--secret", "t=abc"], ["others can read a command line", "@env:"]),
        (["--secret", "t=@env:NO_SUCH_VARIABLE"], ["no environment variable 'NO_SUCH_VARIABLE'"]),
        (["--secret", "t=@file:/no/such/file"], ["/no/such/file cannot be read"]),
        (["--secret", "t-t=@env:HOME"], ["letters, digits and _"]),
        (["--callable", "f=no_such_module:f"], ["no_such_module cannot be imported"]),
        (["--callable", "f=json:no_such"], ["json has no function 'no_such'"]),
        (["--callable", "f=json"], ["module:function"]),
        (["--allow-address", "10.0.0.0/99"], ["host", "network"]),
        (["--allow-address", "???"], ["host", "network"]),
        (["--allow-address", ""], ["host", "network"]),
        (["--allow-address", "-a.example"], ["host", "network"]),
        (["--allow-address", "a..example"], ["host", "network"]),
        (["--allow-address", "10.1.2.3/16"], ["write the network as 10.1.0.0/16"]),
        (["--allow-address", "127.1"], ["an address (127.0.0.1)"]),
        (["--allow-address", "0x7f000001"], ["an address (127.0.0.1)"]),
        (["--allow-address", "http://localhost:8000/"], ["the host alone"]),
        (["--allow-address", "localhost:8000"], ["the host alone"]),
        (["--allow-address", "bücher.example"], ["in ASCII (xn--…)"]),
        (["--svg", "/no/such/folder/x.svg"], ["--svg /no/such/folder/x.svg", "there is no folder /no/such/folder"]),
        (["--svg", "/"], ["--svg /", "is a directory"]),
        (["--svg", "x.png"], ["it writes SVG", "x.svg"]),
        (["--input", '"\udcff"'], ["--input: not UTF-8", "0xff at position 2"]),
        (["--timeout", "soon"], ["--timeout 'soon'", "15m"]),
        (["--timeout", "0"], ["more than 0"]),
        (["--seed", "x"], ["orchestrator run:", "--seed"]),
        (["--nonsense"], ["orchestrator run:", "--nonsense", "--help"]),
        (["--workflow", "nowhere.yaml"], ["nowhere.yaml: there is no such file"]),
    ],
)
def test_bad_usage_is_one_line_and_code_2(run, arguments, said):
    code, out, err = run(ORDER, *arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    for part in said:
        assert part in err


@pytest.mark.parametrize(
    "address",
    ["localhost", "intranet.example", "db_1.internal.", "127.0.0.1", "::1", "[::1]", "10.1.0.0/16", "fd00::/8"],
)
def test_what_http_may_reach_is_a_host_an_address_or_a_network(run, address):
    assert run(ORDER, "-q", "--input", '{"qty": 1}', "--allow-address", address)[::2] == (0, "")


def test_texts_that_the_locale_cannot_read_are_what_they_were_meant_to_be(run):
    # As Python reads the bytes of UTF-8 where the locale is ASCII.
    meant = json.dumps({"qty": 50, "to": "Zoë 🎉"}, ensure_ascii=False).encode().decode("ascii", "surrogateescape")
    echo = """
    schema: 1
    id: echo
    nodes: [{id: a, type: set}]
    output: "{{ [payload.to, vars.to.to, nodes.a.output.to] }}"
    """
    code, out, _ = run(echo, "-q", "--input", meant, "--var", f"to={meant}", "--pin", f"a={meant}")
    assert (code, json.loads(out)) == (0, ["Zoë 🎉"] * 3)


def test_a_payload_file_is_told_with_its_line(run, file):
    bad = file('{"a":\n [1,}\n', "bad.json")
    code, _, err = run(ORDER, "--input", f"@{bad}")
    assert (code, err.startswith(f"{bad}:2: ")) == (2, True)


@pytest.mark.parametrize("name", ["nowhere.yaml", "."])
def test_a_file_that_cannot_be_read(name, capsys):
    assert main(["run", name]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"{name}: ")
    assert len(err.splitlines()) == 1


def test_what_a_node_writes_cannot_steer_the_terminal(run):
    text = """
    schema: 1
    id: tricky
    nodes: [{id: a, type: code, config: {source: "console.log('\\\\u001b[2J\\\\u009bred\\\\u202e'); throw new Error('\\\\u001b]0;title\\\\u0007')"}}]
    """
    _, out, err = run(text)
    assert "\\x1b[2J\\x9bred\\u202e" in out
    assert not set("\x1b\x9b\x07\u202e") & set(out + err)


def test_a_long_output_is_cut_for_a_terminal_only(run, monkeypatch):
    text = """
    schema: 1
    id: long
    nodes: [{id: a, type: code, config: {source: "return Array.from({length: 500}, (_, i) => 'row number ' + i)"}}]
    """
    _, out, _ = run(text)
    assert "row number 499" in out
    monkeypatch.setattr("orchestrator_core.cli.run.is_terminal", lambda _: True)
    _, out, _ = run(text, "--plain")
    assert "row number 499" not in out
    assert "more lines: --quiet or --json writes them all" in out


def test_a_fault_of_the_engine_ends_the_run_instead_of_hanging(run, monkeypatch):
    async def broken(*_):
        raise RuntimeError("the driver broke")

    monkeypatch.setattr("orchestrator_core.driver.Driver.perform", broken)
    code, _, err = run(ORDER, "--input", '{"qty": 1}')
    assert code == 2
    assert "the driver broke" in err


HINTED = {
    "unknown": ("{{ [1].map(x => JSN.parse(x)) }}", None),
    "deep": ("{{ input.order.total }}", "`orchestrator run … --json` shows what came in as `input`"),
}


@pytest.mark.parametrize("name", HINTED)
def test_a_hint_stands_only_where_it_helps(run, name):
    template, hint = HINTED[name]
    document = {"schema": 1, "id": "w", "nodes": [{"id": "a", "type": "set", "config": {"values": {"x": template}}}]}
    code, out, err = run(json.dumps(document), "--input", "{}")
    assert code in {1, 2}, "an unknown name may be found before anything runs"
    assert ("hint:" in out + err) == (hint is not None)
    assert hint is None or hint in out


def test_what_is_no_list_is_said_without_a_hint(run):
    document = {"schema": 1, "id": "w", "nodes": [{"id": "a", "type": "set", "for_each": "{{ input }}"}]}
    code, out, _ = run(json.dumps(document), "--input", "{}")
    assert code == 1
    assert "no list" in out
    assert "hint:" not in out


def test_a_callable_that_nobody_gave_is_named_even_where_a_later_node_fails(run):
    document = {
        "schema": 1,
        "id": "w",
        "nodes": [
            {"id": "a", "type": "call", "config": {"function": "price"}, "on_error": "continue"},
            {"id": "b", "type": "set", "config": {"values": {"x": "{{ nodes.a.output.total.euros }}"}}},
        ],
        "edges": [{"source": "a", "target": "b"}],
    }
    code, out, _ = run(json.dumps(document))
    assert code == 1
    assert "node 'b' failed: expression" in out
    assert "hint:  on the command line: --callable price=module:function" in out
