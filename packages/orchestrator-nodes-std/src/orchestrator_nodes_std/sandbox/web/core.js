// Chance, exceptions, copies: what the other scripts of this folder build on. Each of them is the text of a function of
// `host`, an object that these scripts and the driver share and that user code never sees. It holds at first: `global`, the
// global object of the realm that the script is evaluated in; `clock` and `needs`, ArrayBuffers over memory that the host
// writes or reads; `data`. They run once, when the image is made.
(function (host) {
  "use strict";

  const { global } = host;

  delete global.performance; // its origin is the image's, which means nothing
  delete global.SharedArrayBuffer; // there is no one to share with, and no Atomics

  // Adds properties as the language's own are: not enumerable.
  host.define = (object, properties) => {
    for (const name of Reflect.ownKeys(properties)) {
      Object.defineProperty(object, name, { ...Object.getOwnPropertyDescriptor(properties, name), enumerable: false });
    }
  };

  // Makes a class look like one of the platform's.
  host.platform = (made, name = made.name) => {
    Object.defineProperty(made.prototype, Symbol.toStringTag, { value: name, configurable: true });
    host.define(global, { [name]: made });
    host.notCloned.push(made);
  };

  // ---- mending -----------------------------------------------------------------------------------------------------

  // This engine's iterator helpers fail when they are closed over an iterator that cannot be closed, such as an array's.
  const helper = Object.getPrototypeOf([].values().map((item) => item));
  const close = helper.return;
  host.define(helper, {
    return() {
      try {
        return Reflect.apply(close, this, []);
      } catch (error) {
        if (error instanceof TypeError && error.message === "not a function") return { value: undefined, done: true };
        throw error;
      }
    },
  });

  // This engine takes the flag `v` and then matches as if there were none at all: wrong, and without a word. Refusing it
  // makes every match slower by a fifth or more, so programs have it only where the flag may occur.
  host.guardRegExp = () => {
    const native = RegExp.prototype.exec;
    host.define(RegExp.prototype, {
      exec(text) {
        if (this.unicodeSets) throw new SyntaxError("the flag v of regular expressions is not supported: use u");
        return native.call(this, text);
      },
    });
  };
  if (host.data.pure) host.guardRegExp();

  // ---- chance ----------------------------------------------------------------------------------------------------

  let a = 0, b = 0, c = 0, d = 1;
  let waiting = false; // the state is mixed when the first number is asked for: few programs ask for one

  function next() {
    if (waiting) {
      waiting = false;
      for (let i = 0; i < 12; i++) next();
    }
    const t = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + t) | 0;
    return t >>> 0;
  }

  Math.random = { random() { return ((next() >>> 5) * 67108864 + (next() >>> 6)) / 9007199254740992; } }.random;

  host.random = next;
  host.reseed = (seed, offset) => {
    a = seed[0]; b = seed[1]; c = seed[2]; d = (seed[3] + offset) | 0;
    waiting = true;
  };

  // ---- structuredClone -------------------------------------------------------------------------------------------

  const { DOMException } = global;
  const TypedArray = Object.getPrototypeOf(Uint8Array);
  const kindOf = Object.getOwnPropertyDescriptor(TypedArray.prototype, Symbol.toStringTag).get;
  const VIEWS = new Map([
    DataView, Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array, BigInt64Array,
    BigUint64Array, Float16Array, Float32Array, Float64Array,
  ].map((made) => [made.name, made]));
  const ERRORS = new Map([Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError]
    .map((made) => [made.name, made]));

  // Objects that are more than their properties, and of which no copy can be made.
  host.notCloned = [Promise, WeakMap, WeakSet, WeakRef, FinalizationRegistry, Iterator];

  function refuse(value) {
    let text = "an object";
    try {
      text = String(value);
    } catch {
      // It cannot be shown, so it is not.
    }
    throw new DOMException(`${text} could not be cloned.`, "DataCloneError");
  }

  function copy(value, seen) {
    if (typeof value === "function" || typeof value === "symbol") refuse(value);
    if (typeof value !== "object" || value === null) return value;
    if (seen.has(value)) return seen.get(value);
    const made = empty(value, seen);
    seen.set(value, made);
    if (value instanceof Map) {
      for (const [key, item] of [...value]) made.set(copy(key, seen), copy(item, seen));
    } else if (value instanceof Set) {
      for (const item of [...value]) made.add(copy(item, seen));
    } else if (value instanceof Error) {
      if (Object.hasOwn(value, "cause")) host.define(made, { cause: copy(value.cause, seen) });
    } else if (Array.isArray(value) || !SLOTS.some((kind) => value instanceof kind)) {
      for (const key of Object.keys(value)) put(made, key, copy(value[key], seen));
    }
    return made;
  }

  function put(object, key, value) {
    if (key !== "__proto__") object[key] = value;
    else Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true });
  }

  // What copies without their properties; not arrays, maps, sets and errors.
  const SLOTS = [Date, RegExp, ArrayBuffer, TypedArray, DataView, Number, String, Boolean, BigInt, DOMException];

  function empty(value, seen) {
    if (Array.isArray(value)) return new Array(value.length);
    const prototype = Object.getPrototypeOf(value);
    if (prototype === Object.prototype || prototype === null) return {};
    if (value instanceof Date) return new Date(value.getTime());
    if (value instanceof RegExp) return new RegExp(value.source, value.flags);
    if (value instanceof Map) return new Map();
    if (value instanceof Set) return new Set();
    if (value instanceof ArrayBuffer) {
      if (value.detached) refuse(value);
      if (!value.resizable) return value.slice(0);
      const made = new ArrayBuffer(value.byteLength, { maxByteLength: value.maxByteLength });
      new Uint8Array(made).set(new Uint8Array(value));
      return made;
    }
    if (ArrayBuffer.isView(value)) {
      const View = VIEWS.get(value instanceof DataView ? "DataView" : Reflect.apply(kindOf, value, []));
      return new View(copy(value.buffer, seen), value.byteOffset, value instanceof DataView ? value.byteLength : value.length);
    }
    if (value instanceof DOMException) return new DOMException(value.message, value.name);
    if (value instanceof Error) return emptyError(value);
    for (const kind of [Number, String, Boolean, BigInt]) {
      if (value instanceof kind) return Object(kind.prototype.valueOf.call(value));
    }
    if (value instanceof Symbol || host.notCloned.some((kind) => value instanceof kind)) refuse(value);
    return {};
  }

  function emptyError(value) {
    const name = String(value.name);
    const made = Object.create((ERRORS.get(name) ?? Error).prototype);
    const error = Reflect.construct(Error, [], function () {});
    Object.setPrototypeOf(error, Object.getPrototypeOf(made));
    host.define(error, { stack: value.stack });
    const message = Object.getOwnPropertyDescriptor(value, "message");
    if (message && "value" in message) host.define(error, { message: String(message.value) });
    return error;
  }

  host.define(global, {
    structuredClone(value, options = undefined) {
      if (!arguments.length) throw new TypeError("structuredClone needs a value");
      const transfer = [...(options?.transfer ?? [])];
      for (const buffer of transfer) {
        if (Object(buffer) !== buffer) throw new TypeError("what is transferred must be objects");
        if (!(buffer instanceof ArrayBuffer) || buffer.detached) {
          throw new DOMException("Only an ArrayBuffer can be transferred, and only once.", "DataCloneError");
        }
      }
      if (new Set(transfer).size < transfer.length) {
        throw new DOMException("The same ArrayBuffer is to be transferred twice.", "DataCloneError");
      }
      const made = copy(value, new Map());
      for (const buffer of transfer) buffer.transfer(); // a copy and an original that is gone: as if it had moved
      return made;
    },
  });
})
