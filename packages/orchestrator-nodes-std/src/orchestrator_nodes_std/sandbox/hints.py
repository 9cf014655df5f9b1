"""What to say to who uses what is not there: the error's message, and what to do instead."""

import re

_MODULES = "code has no modules: the language's own functions, URL, Buffer, TextEncoder, crypto and Intl are there"
_HTTP = "code has no network: put an http node before this one, and read its answer from context.input"
_FILES = "code has no files: what it needs comes in as context.input"
_BROWSER = "code runs in no browser"
_INPUT = "what came in is context.input (other inputs: context.inputs; what started the execution: context.payload)"
_NODES = "code sees what its edges deliver, as context.input and context.inputs; draw an edge from that node"

_FOR_PROGRAMS = {
    "require": _MODULES,
    "module": _MODULES,
    "exports": _MODULES,
    "fetch": _HTTP,
    "axios": _HTTP,
    "XMLHttpRequest": _HTTP,
    "WebSocket": _HTTP,
    "EventSource": _HTTP,
    "Headers": _HTTP,
    "Request": _HTTP,
    "Response": _HTTP,
    "FormData": _HTTP,
    "Blob": "use a Uint8Array or a Buffer",
    "File": _FILES,
    "FileReader": _FILES,
    "fs": _FILES,
    "localStorage": "nothing is kept between runs: return it, and let a later node read it",
    "sessionStorage": "nothing is kept between runs: return it, and let a later node read it",
    "process": "code has no environment: settings come in through the workflow's variables, in the node's input",
    "__dirname": _FILES,
    "__filename": _FILES,
    "os": "code has no operating system",
    "std": "code has no operating system",
    "window": f"{_BROWSER}: globals are properties of globalThis",
    "self": f"{_BROWSER}: globals are properties of globalThis",
    "global": "globals are properties of globalThis",
    "document": f"{_BROWSER}: there is no page",
    "navigator": f"{_BROWSER}: there is no navigator",
    "location": f"{_BROWSER}: there is no page",
    "alert": f"{_BROWSER}: use console.log, which writes to the node's logs",
    "prompt": f"{_BROWSER}: what came in is context.input",
    "requestAnimationFrame": f"{_BROWSER}: use setTimeout",
    "WebAssembly": "code cannot run other WebAssembly",
    "Worker": "code has one thread; use for_each to run a node for many items at once",
    "SharedArrayBuffer": "code has one thread: use an ArrayBuffer",
    "Atomics": "code has one thread",
    "Temporal": "use Date and Intl.DateTimeFormat",
    "moment": f"use Date and Intl.DateTimeFormat; {_MODULES}",
    "luxon": f"use Date and Intl.DateTimeFormat; {_MODULES}",
    "DateTime": f"use Date and Intl.DateTimeFormat; {_MODULES}",
    "dayjs": f"use Date and Intl.DateTimeFormat; {_MODULES}",
    "_": _MODULES,
    "lodash": _MODULES,
    "input": _INPUT,
    "inputs": _INPUT,
    "payload": "it is context.payload",
    "item": "inside a for_each it is context.item",
    "index": "inside a for_each it is context.index",
    "items": _INPUT,
    "$input": _INPUT,
    "$json": _INPUT,
    "$node": _NODES,
    "$items": _INPUT,
    "$": _NODES,
    "nodes": _NODES,
    "vars": "code sees no variables: pass them in, with a set node before this one",
    "$vars": "code sees no variables: pass them in, with a set node before this one",
    "secrets": "code sees no secrets: use them in fields that are made for them, as those of an http node",
    "execution": "it is context.execution",
    "event": _INPUT,
    "print": "use console.log, which writes to the node's logs",
}
_FOR_EXPRESSIONS = _FOR_PROGRAMS | {
    "fetch": "expressions have no network: use an http node before this one",
    "context": "in expressions the names stand by themselves: input, inputs, payload, nodes, vars, execution",
    "$json": "what came in is input",
    "$input": "what came in is input",
    "$node": "other nodes' outputs are nodes.<id>.output",
    "$": "other nodes' outputs are nodes.<id>.output",
    "$vars": "variables are vars.<name>",
    "secrets": "secrets.<name> may stand only in fields that are made for secrets",
    "event": "what came in is input",
    "console": "expressions have no logs",
    "setTimeout": "expressions have no timers: use a wait node",
    "setInterval": "expressions have no timers: use a wait node",
    **dict.fromkeys(["input", "inputs", "payload", "item", "index", "nodes", "vars", "execution"]),
}
_MISSING = re.compile(r"ReferenceError: (\S+) is not defined")
_LOADED = re.compile(r"ReferenceError: could not load module '(.*)'", re.DOTALL)
_IMPORT = re.compile(r"(?:import|export)\b")


def hint(message: str, *, program: bool, snippet: str = "") -> str:
    """`message`, and what to do where it says that something known is missing.

    `program`: it comes from a program, not from an expression; `snippet`: the line it is about.
    """
    missing = _MISSING.fullmatch(message)
    if missing:
        advice = (_FOR_PROGRAMS if program else _FOR_EXPRESSIONS).get(missing[1])
        return f"{message}: {advice}" if advice else message
    loaded = _LOADED.fullmatch(message)
    if loaded:
        return f"TypeError: import('{loaded[1]}') is not possible: {_MODULES}"
    if message.startswith("SyntaxError") and _IMPORT.match(snippet):
        return f"{message}: {_MODULES}"
    return message
