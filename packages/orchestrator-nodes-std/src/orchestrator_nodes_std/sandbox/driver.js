// The part of the JavaScript sandbox that runs inside the guest. It is evaluated once, when the image is made; every
// call begins from that image. It lives in a realm of its own, apart from user code, so that nothing user code does to
// its intrinsics changes what happens here. All of this is inside the sandbox: it makes results right, not safe.
//
// The value of this script is a function of two things, called once:
//   host         what the scripts of the realm of user code share with this one. Where `host.data.pure` is true, that is the
//                realm of expressions, which is frozen, since those of one call share it; else it is that of programs
//   logs         an ArrayBuffer over the memory where console output is left for the host
// and answers [start, uncaught, tick, finish]. `start(request, context)` says whether jobs are to be run; `uncaught(error)`
// is told what such a job throws; `tick()`, when there are none left, runs the next timer and says whether it did;
// `finish()` gives the answer: a letter and a JSON text. "v": a value, "u": undefined, "e": {code, message, stack}.
(function (host, logs) {
  "use strict";

  const code = host.global;

  const MAX_DEPTH = 256;
  const MAX_MESSAGE = 2000;
  const MAX_STACK = 8000;

  // ---- realms ----------------------------------------------------------------------------------------------------

  // Where stack traces are made by user code it meets the functions of this script; and what is set so is kept by the
  // realm itself, which freezing does not change.
  function hideStacks(Error) {
    delete Error.prepareStackTrace;
    delete Error.stackTraceLimit;
  }

  function prepare(global) {
    hideStacks(global.Error);
    return {
      eval: global.eval,
      parse: global.JSON.parse,
      ObjectPrototype: global.Object.prototype,
      Map: global.Map, Set: global.Set, Date: global.Date, Promise: global.Promise,
      Number: global.Number, String: global.String, Boolean: global.Boolean,
      mapEntries: global.Map.prototype.forEach, setValues: global.Set.prototype.forEach,
      dateValue: global.Date.prototype.getTime, dateText: global.Date.prototype.toISOString,
    };
  }

  // Intrinsics that no property leads to.
  const HIDDEN = `[
    function* () {}, async function () {}, async function* () {}, (function* () {})(), (async function* () {})(),
    [].values(), new Map().entries(), new Set().values(), ""[Symbol.iterator](), "".matchAll(/x/g), /x/,
    [].values().map((x) => x), Iterator.from({next() {}}), (function () { return arguments; })(), new Proxy({}, {}),
  ]`;

  function freeze(...todo) {
    const seen = new Set();
    while (todo.length) {
      const object = todo.pop();
      if ((typeof object !== "object" && typeof object !== "function") || object === null || seen.has(object)) continue;
      seen.add(object);
      todo.push(Object.getPrototypeOf(object));
      for (const key of Reflect.ownKeys(object)) {
        const property = Object.getOwnPropertyDescriptor(object, key);
        todo.push(property.value, property.get, property.set);
      }
    }
    for (const object of seen) Object.freeze(object);
  }

  // ---- values to JSON --------------------------------------------------------------------------------------------

  class Refused {
    constructor(code, message) {
      this.code = code;
      this.message = message;
    }
  }

  // Whether `value` is plain data, which JSON.stringify writes without changing anything. Nearly every result is.
  function isPlain(realm, value, depth) {
    if (depth > MAX_DEPTH || value.toJSON !== undefined) return false;
    let keys = null;
    if (!Array.isArray(value)) {
      const prototype = Object.getPrototypeOf(value);
      if (prototype !== realm.ObjectPrototype && prototype !== null) return false;
      keys = Object.keys(value);
    }
    const count = keys === null ? value.length : keys.length;
    for (let i = 0; i < count; i++) {
      const item = value[keys === null ? i : keys[i]];
      switch (typeof item) {
        case "string": case "boolean": case "undefined": break;
        case "number":
          if (item - item !== 0) return false; // NaN for NaN and infinities
          break;
        case "object":
          if (item !== null && !isPlain(realm, item, depth + 1)) return false;
          break;
        default: return false;
      }
    }
    return true;
  }

  // A JSON text of `value`, or undefined for undefined. Throws Refused, and whatever getters and the like throw.
  // Halves of surrogate pairs are written as escapes; the host refuses them, where looking for them costs little.
  function write(realm, value, limit) {
    if (typeof value === "object" && value !== null && isPlain(realm, value, 1)) return JSON.stringify(value);
    return writeAny(realm, value, limit);
  }

  function writeAny(realm, value, limit) {
    const path = [];
    const above = new Set();
    let size = 0;

    function place() {
      let text = "$";
      for (const key of path) {
        text += typeof key === "number" ? `[${key}]` : /^[A-Za-z_$][\w$]*$/.test(key) ? `.${key}` : `[${JSON.stringify(key)}]`;
      }
      return text.length > 200 ? text.slice(0, 200) + "…" : text;
    }
    function refuse(what) {
      throw new Refused("not_json", `${what} at ${place()} is not a JSON value`);
    }
    function counted(text) {
      size += text.length; // not all of it, and not in bytes: the host counts exactly, this ends what is far too large
      if (size > limit) throw new Refused("output_limit", "the result is too large");
      return text;
    }
    function list(count, at) {
      let text = "[";
      for (let i = 0; i < count; i++) {
        path.push(i);
        const item = any(at(i), i);
        text += (i ? "," : "") + (item === undefined ? counted("null") : item);
        path.pop();
      }
      return text + "]";
    }
    function record(keys, at) {
      let text = "{";
      let first = true;
      for (let i = 0; i < keys.length; i++) {
        const key = keys[i];
        path.push(key);
        const item = any(at(key, i), key);
        if (item !== undefined) {
          text += (first ? "" : ",") + counted(JSON.stringify(key)) + ":" + item;
          first = false;
        }
        path.pop();
      }
      return text + "}";
    }
    function collection(object) {
      if (Array.isArray(object)) return list(object.length, (i) => object[i]);
      if (object instanceof realm.Map) {
        const keys = [];
        const values = [];
        Reflect.apply(realm.mapEntries, object, [(item, key) => {
          if (typeof key !== "string") refuse("a Map whose keys are not all strings");
          keys.push(key);
          values.push(item);
        }]);
        return record(keys, (_, i) => values[i]);
      }
      if (object instanceof realm.Set) {
        const values = [];
        Reflect.apply(realm.setValues, object, [(item) => { values.push(item); }]);
        return list(values.length, (i) => values[i]);
      }
      if (ArrayBuffer.isView(object) && typeof object.length === "number") return list(object.length, (i) => object[i]);
      if (object instanceof realm.Promise) refuse("a promise (is an `await` missing?)");
      return record(Object.keys(object), (key) => object[key]);
    }
    function any(item, key) {
      if (item !== null && typeof item === "object") {
        if (item instanceof realm.Date && Number.isNaN(Reflect.apply(realm.dateValue, item, []))) refuse("an invalid date");
        const custom = item.toJSON;
        if (typeof custom === "function") item = Reflect.apply(custom, item, [String(key)]);
      }
      switch (typeof item) {
        case "string": return counted(JSON.stringify(item));
        case "number":
          if (!Number.isFinite(item)) refuse(String(item));
          return counted(String(item));
        case "boolean": return counted(item ? "true" : "false");
        case "undefined": return undefined;
        case "bigint": return refuse("a BigInt");
        case "function": return refuse("a function");
        case "symbol": return refuse("a symbol");
      }
      if (item === null) return counted("null");
      if (item instanceof realm.Number || item instanceof realm.String || item instanceof realm.Boolean) {
        return any(item.valueOf(), key);
      }
      if (above.has(item)) refuse("a reference to an object that holds it (a cycle)");
      if (above.size >= MAX_DEPTH) throw new Refused("not_json", `the result is nested more than ${MAX_DEPTH} deep`);
      above.add(item);
      counted("[]");
      const text = collection(item);
      above.delete(item);
      return text;
    }
    return any(value, "");
  }

  // ---- errors ----------------------------------------------------------------------------------------------------

  function cut(text, limit) {
    return (text.length > limit ? text.slice(0, limit) + "…" : text).toWellFormed();
  }

  function messageOf(error) {
    if (error === null || typeof error !== "object") return `${String(error)} was thrown`;
    const { name, message } = error;
    if (typeof message !== "string") return `${inspect(error, 200)} was thrown`;
    return typeof name === "string" && name ? (message ? `${name}: ${message}` : name) : message;
  }

  function described(error, code) {
    if (error instanceof Refused) return { code: error.code, message: error.message, stack: "" };
    let message = "an error that cannot be read was thrown";
    let stack = "";
    try {
      message = cut(messageOf(error), MAX_MESSAGE);
      if (error !== null && typeof error === "object" && typeof error.stack === "string") stack = cut(error.stack, MAX_STACK);
    } catch {
      // Its own properties throw: the message above says so.
    }
    if (message === "InternalError: out of memory") code = "memory_limit";
    return { code, message, stack };
  }

  // Ready made, since making one takes memory.
  const NO_MEMORY = 'e{"code":"memory_limit","message":"out of memory","stack":""}';

  function failed(error, code) {
    try {
      return "e" + JSON.stringify(described(error, code));
    } catch {
      return NO_MEMORY;
    }
  }

  // ---- console ---------------------------------------------------------------------------------------------------

  // A readable text of any value, of at most about `room` characters; never throws.
  function inspect(value, room) {
    const above = new Set();
    let left = room;
    function taken(text) {
      left -= text.length;
      return text;
    }
    function inner(item) {
      if (left <= 0) return "…";
      switch (typeof item) {
        case "string": return taken(JSON.stringify(item.length > left ? item.slice(0, left) + "…" : item));
        case "bigint": return taken(`${item}n`);
        case "function": return taken("[Function]");
        case "object": break;
        default: return taken(String(item));
      }
      if (item === null) return taken("null");
      if (above.has(item)) return taken("[Circular]");
      if (above.size >= 20) return taken("…");
      above.add(item);
      let text;
      try {
        text = object(item);
      } catch {
        text = "[unreadable]";
      }
      above.delete(item);
      return text;
    }
    function object(item) {
      if (typeof item.stack === "string" && typeof item.message === "string") return taken(messageOf(item));
      if (item instanceof code.Map) item = Object.fromEntries(item);
      else if (item instanceof code.Set) item = [...item];
      else if (typeof item.toJSON === "function") {
        const other = item.toJSON();
        if (typeof other !== "object") return inner(other);
        item = other;
      }
      const entries = [];
      if (Array.isArray(item)) {
        for (let i = 0; i < item.length && left > 0; i++) entries.push(inner(item[i]) + taken(""));
        return taken("[") + entries.join(",") + taken("]");
      }
      for (const key of Object.keys(item)) {
        if (left <= 0) break;
        entries.push(taken(JSON.stringify(key)) + taken(":") + inner(item[key]));
      }
      return taken("{") + entries.join(",") + taken("}");
    }
    try {
      return inner(value);
    } catch {
      return "[unreadable]";
    }
  }

  // Records in `logs`: a head of two words (bytes used, whether something was dropped), then for each line its level,
  // its length and its UTF-8 bytes. The head is written last, so that the host can read it after a call was stopped.
  const head = new Uint32Array(logs, 0, 2);
  const bytes = new Uint8Array(logs, 8);
  let room = 0;

  function log(level, parts) {
    if (head[1]) return;
    const left = room - head[0] - 5;
    if (left <= 0) {
      head[1] = 1;
      return;
    }
    let text = "";
    for (let i = 0; i < parts.length && text.length <= left; i++) {
      const part = parts[i];
      text += (i ? " " : "") + (typeof part === "string" ? part : inspect(part, left));
    }
    const whole = text.length <= left;
    const utf8 = unescape(encodeURIComponent((whole ? text : text.slice(0, left)).toWellFormed()));
    const size = Math.min(utf8.length, left);
    const at = head[0];
    bytes.subarray(at + 5, at + 5 + size).setFromBase64(btoa(size < utf8.length ? utf8.slice(0, size) : utf8));
    bytes[at] = level;
    for (let i = 0; i < 4; i++) bytes[at + 1 + i] = size >>> (8 * i);
    head[0] = at + 5 + size;
    if (!whole || size < utf8.length) head[1] = 1;
  }

  // ---- the calls -------------------------------------------------------------------------------------------------

  const realm = prepare(code);
  const counts = new Map(); // of console.count
  const starts = new Map(); // of console.time, in milliseconds

  function since(label) {
    return starts.has(label) ? [`${label}: ${Date.now() - starts.get(label)} ms`] : [`there is no timer ${label}`];
  }

  code.console = {
    debug: (...parts) => log(0, parts), trace: (...parts) => log(0, parts),
    log: (...parts) => log(1, parts), info: (...parts) => log(1, parts),
    warn: (...parts) => log(2, parts), error: (...parts) => log(3, parts),
    dir: (item) => log(1, [item]), table: (item) => log(1, [item]),
    group: (...parts) => log(1, parts), groupCollapsed: (...parts) => log(1, parts), groupEnd: () => {},
    assert: (right, ...parts) => { if (!right) log(3, ["Assertion failed", ...parts]); },
    count: (name = "default") => {
      const label = `${name}`;
      counts.set(label, (counts.get(label) ?? 0) + 1);
      log(1, [`${label}: ${counts.get(label)}`]);
    },
    countReset: (name = "default") => { counts.delete(`${name}`); },
    time: (name = "default") => { starts.set(`${name}`, Date.now()); },
    timeLog: (name = "default", ...parts) => log(1, [...since(`${name}`), ...parts]),
    timeEnd: (name = "default") => {
      log(1, since(`${name}`));
      starts.delete(`${name}`);
    },
  };
  Object.defineProperty(code, "console", { enumerable: false });
  if (host.data.pure) {
    delete code.console; // expressions have none
    freeze(code, ...code.eval(HIDDEN));
  }

  let answer = null;
  let broken = null;
  let limit = 0; // milliseconds that the program's clock may advance

  // A source is compiled between brackets, and may be written to close them early, so that the rest stands outside and
  // is run while it is compiled. Hence it is parsed first where nothing can run: what is evaluated begins with `throw`.
  // One pair of brackets is not enough, as a source can close it, and open one like it at its end. After what closes a
  // declaration another statement must follow; after what closes a method, a comma or a brace. No source does both.
  //
  // The user's first line is the fourth in each.
  const BEFORE = 3;
  const STOPPED = 0;

  // What `text` gives: a function; or STOPPED, which is what its `throw` throws.
  function parsed(source, text) {
    try {
      return realm.eval(text);
    } catch (error) {
      if (error === STOPPED) return STOPPED;
      // Where a bracket is left open, the parser stumbles over what was put after the source. Say what the matter is.
      const line = /at <input>:(\d+)/.exec(error?.stack)?.[1];
      if (line > BEFORE + source.split("\n").length) error.message = "unexpected end of the source";
      throw error;
    }
  }

  function compile(source) {
    if (source.indexOf("}") < source.lastIndexOf("{")) { // else it cannot close a brace and open another
      parsed(source, `"use strict"; throw 0;\n\nasync function anonymous(context) {\n${source}\n}`);
    }
    return parsed(source, `"use strict"; ({\n\nasync anonymous(context) {\n${source}\n}}).anonymous`);
  }

  // Told of how the program ends by its promise's own jobs: an async function around it would take as many again.
  const { then } = code.Promise.prototype;

  function ended(value, request) {
    try {
      const text = write(realm, value, request.output);
      answer = text === undefined ? "u" : "v" + text;
    } catch (error) {
      answer = failed(error, "exception");
    }
  }

  function run(request, context) {
    let body;
    try {
      if (request.sets) host.guardRegExp();
      body = compile(request.source);
    } catch (error) {
      answer = failed(error, "syntax");
      return;
    }
    Reflect.apply(then, body(context), [(value) => ended(value, request), (error) => { answer = failed(error, "exception"); }]);
  }

  function compileExpression(names, source) {
    const put = (first, open, close) => `"use strict"; ${first}\n(function (${names.join(", ")}) { return ${open}\n\n${source}\n${close} })`;
    // The same: what closes a bracket early does not close a parenthesis.
    if (source.includes(")")) parsed(source, put("throw 0;", "[", "]"));
    return parsed(source, put("", "(", ")"));
  }

  // Expressions that only read: paths, literals, and operators between them. They call nothing, so that the next may
  // see the same values; any other gets values of its own.
  const ONLY_READS = /^(?:[\w$.?:\s[\]'"%*/|&!,-]|\+(?!\+)|<(?!<)|>(?!>)|[=!<>]=+)*$/;
  const DOES_MORE = /--|\b(?:delete|new|instanceof|in|class|function|yield|await)\b/;

  function evaluate(request) {
    const names = Object.keys(request.scope);
    const values = new Map();
    const answers = request.expressions.map((source, number) => {
      try {
        const made = compileExpression(names, source);
        const all = source.includes("\\");
        const given = names.map((name) => {
          if (!all && !source.includes(name)) return undefined;
          if (!values.has(name)) values.set(name, realm.parse(request.scope[name]));
          return values.get(name);
        });
        if (!ONLY_READS.test(source) || DOES_MORE.test(source)) values.clear();
        host.reseed(request.seed, number);
        const text = write(realm, made(...given), request.output);
        return text === undefined ? '["u"]' : `["v",${text}]`;
      } catch (error) {
        if (error instanceof Refused && error.code === "output_limit") throw error;
        return JSON.stringify(["e", described(error, "exception").message]);
      }
    });
    return `v[${answers.join(",")}]`;
  }

  function check(request) {
    if (request.expression) compileExpression([], request.source);
    else compile(request.source);
    return "vtrue";
  }

  function start(request, context) {
    try {
      if (request.mode === "run") {
        room = request.logs;
        host.reseed(request.seed, 0);
        limit = request.time;
        run(request, context);
        return true;
      }
      answer = request.mode === "check" ? check(request) : evaluate(request);
    } catch (error) {
      answer = failed(error, request.mode === "check" ? "syntax" : "exception");
    }
    return false;
  }

  const never = "e" + JSON.stringify({ code: "exception", message: "the promise that was returned never settles", stack: "" });

  function uncaught(error) {
    if (broken === null) broken = failed(error, "exception");
  }

  // Nothing sleeps: when all wait for a timer, the clock is moved on to it.
  function tick() {
    if (answer !== null || broken !== null) return false;
    const due = host.due();
    if (due < 0) return false;
    try {
      if (due > limit) {
        throw new Refused("timeout", `stopped after ${limit / 1000} seconds by the program's clock: its next timer is due after ${due / 1000} seconds`);
      }
      host.runTimer();
      return true;
    } catch (error) {
      uncaught(error);
      return false;
    }
  }

  function finish() {
    return broken ?? answer ?? never;
  }

  hideStacks(Error);
  freeze(globalThis, ...eval(HIDDEN));
  return [start, uncaught, tick, finish];
})
