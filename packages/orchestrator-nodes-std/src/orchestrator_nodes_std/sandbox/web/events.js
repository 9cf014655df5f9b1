// Timers on a clock that nothing waits for, and what is built on them: events, AbortSignal, performance.
(function (host) {
  "use strict";

  const { global } = host;

  const apply = Reflect.apply;
  const { DOMException } = global;

  // ---- timers ----------------------------------------------------------------------------------------------------

  // The cell that the guest's clock shows, in nanoseconds since 1970. It is moved on rather than waited for.
  const clock = new BigUint64Array(host.clock);
  let elapsed = 0; // milliseconds since the call began, of that clock
  let count = 0;
  const timers = new Map();
  const heap = []; // a binary heap of timers: the one that is due first is at 0

  const before = (one, other) => one.due < other.due || (one.due === other.due && one.order < other.order);

  function push(timer) {
    let at = heap.length;
    for (; at > 0; at = (at - 1) >> 1) {
      const above = heap[(at - 1) >> 1];
      if (!before(timer, above)) break;
      heap[at] = above;
    }
    heap[at] = timer;
  }

  function pop() {
    const first = heap[0];
    const last = heap.pop();
    if (!heap.length) return first;
    let at = 0;
    for (let below = 1; below < heap.length; below = 2 * at + 1) {
      if (below + 1 < heap.length && before(heap[below + 1], heap[below])) below++;
      if (!before(heap[below], last)) break;
      heap[at] = heap[below];
      at = below;
    }
    heap[at] = last;
    return first;
  }

  function start(callback, delay, args, repeat) {
    if (typeof callback !== "function") throw new TypeError("the callback of a timer must be a function");
    const timer = { id: ++count, order: count, due: elapsed + delay, callback, args, delay, repeat };
    timers.set(timer.id, timer);
    push(timer);
    return timer.id;
  }

  // As Node has it: at least 1, and 1 for what is too large or no number.
  function milliseconds(delay) {
    const number = Math.trunc(Number(delay));
    return number >= 1 && number <= 0x7fffffff ? number : 1;
  }

  function clear(id) {
    timers.delete(Number(id)); // what is left in the heap is passed over
  }

  host.define(global, {
    setTimeout(callback, delay = 0, ...args) { return start(callback, milliseconds(delay), args, false); },
    setInterval(callback, delay = 0, ...args) { return start(callback, milliseconds(delay), args, true); },
    setImmediate(callback, ...args) { return start(callback, 0, args, false); },
    clearTimeout(id) { clear(id); },
    clearInterval(id) { clear(id); },
    clearImmediate(id) { clear(id); },
  });

  // When the next timer is due, in milliseconds since the call began; -1 if there is none.
  host.due = () => {
    while (heap.length && timers.get(heap[0].id) !== heap[0]) pop();
    return heap.length ? heap[0].due : -1;
  };

  // Runs the timer that `due` spoke of; throws what it throws.
  host.runTimer = () => {
    const timer = pop();
    clock[0] += BigInt(timer.due - elapsed) * 1000000n;
    elapsed = timer.due;
    if (timer.repeat) {
      timer.due += timer.delay;
      timer.order = ++count;
      push(timer);
    } else {
      timers.delete(timer.id);
    }
    apply(timer.callback, undefined, timer.args);
  };

  // ---- performance -----------------------------------------------------------------------------------------------

  const dateNow = Date.now;

  class Performance {
    now() { return elapsed; }

    get timeOrigin() { return dateNow() - elapsed; }

    toJSON() { return { timeOrigin: this.timeOrigin }; }
  }

  // ---- events ----------------------------------------------------------------------------------------------------

  let dispatch; // set by Event

  class Event {
    #type;
    #time = elapsed;
    #options;
    #prevented = false;
    #stopped = 0; // 1: after this target; 2: at once
    #target = null;
    #running = false;

    constructor(type, options = {}) {
      if (!arguments.length) throw new TypeError("an event needs a type");
      this.#type = `${type}`;
      this.#options = { bubbles: Boolean(options?.bubbles), cancelable: Boolean(options?.cancelable), composed: Boolean(options?.composed) };
    }

    get type() { return this.#type; }

    get target() { return this.#target; }

    get currentTarget() { return this.#running ? this.#target : null; }

    get bubbles() { return this.#options.bubbles; }

    get cancelable() { return this.#options.cancelable; }

    get composed() { return this.#options.composed; }

    get defaultPrevented() { return this.#prevented; }

    get eventPhase() { return this.#running ? 2 : 0; }

    get timeStamp() { return this.#time; }

    get isTrusted() { return false; }

    composedPath() { return this.#running ? [this.#target] : []; }

    preventDefault() { if (this.#options.cancelable) this.#prevented = true; }

    stopPropagation() { this.#stopped = Math.max(this.#stopped, 1); }

    stopImmediatePropagation() { this.#stopped = 2; }

    static {
      dispatch = (event, target, listeners) => {
        if (event.#running) throw new DOMException("The event is being dispatched already.", "InvalidStateError");
        event.#target = target;
        event.#running = true;
        for (const listener of event.#stopped ? [] : [...listeners]) {
          if (event.#stopped === 2) break;
          if (listener.gone) continue;
          if (listener.once) listener.remove();
          try {
            const { callback } = listener;
            if (typeof callback === "function") apply(callback, target, [event]);
            else callback.handleEvent(event);
          } catch (error) {
            queueMicrotask(() => { throw error; }); // the others are called; then the error ends the program
          }
        }
        event.#running = false;
        event.#stopped = 0;
        return !event.#prevented;
      };
    }
  }

  class CustomEvent extends Event {
    #detail;

    constructor(type, options = {}) {
      super(type, options);
      this.#detail = options?.detail ?? null;
    }

    get detail() { return this.#detail; }
  }

  class EventTarget {
    #listeners = new Map();

    addEventListener(type, callback, options = {}) {
      if (callback === null || callback === undefined) return;
      if (typeof callback !== "function" && typeof callback !== "object") throw new TypeError("a listener must be a function or an object");
      const { capture = false, once = false, signal = undefined } = typeof options === "boolean" ? { capture: options } : options ?? {};
      if (signal?.aborted) return;
      const key = `${type}`;
      const list = this.#listeners.get(key) ?? [];
      this.#listeners.set(key, list);
      if (list.some((item) => item.callback === callback && item.capture === Boolean(capture))) return;
      const listener = {
        callback, capture: Boolean(capture), once: Boolean(once), gone: false,
        remove() {
          listener.gone = true;
          if (list.includes(listener)) list.splice(list.indexOf(listener), 1);
        },
      };
      list.push(listener);
      signal?.addEventListener("abort", listener.remove, { once: true });
    }

    removeEventListener(type, callback, options = {}) {
      const capture = Boolean(typeof options === "boolean" ? options : options?.capture);
      this.#listeners.get(`${type}`)?.find((item) => item.callback === callback && item.capture === capture)?.remove();
    }

    dispatchEvent(event) {
      if (!(event instanceof Event)) throw new TypeError("an Event is needed");
      return dispatch(event, this, this.#listeners.get(event.type) ?? []);
    }
  }

  // ---- abort -----------------------------------------------------------------------------------------------------

  let make = null; // whether an AbortSignal may be made: only from here
  let abort, follow;

  class AbortSignal extends EventTarget {
    #aborted = false;
    #reason = undefined;
    #handler = null;
    #followers = [];

    constructor() {
      if (!make) throw new TypeError("Illegal constructor: use an AbortController");
      super();
    }

    static abort(reason = undefined) {
      const signal = create();
      abort(signal, reason);
      return signal;
    }

    static timeout(delay) {
      const signal = create();
      start(() => abort(signal, new DOMException("The operation was aborted due to timeout", "TimeoutError")), milliseconds(delay), [], false);
      return signal;
    }

    static any(signals) {
      const made = create();
      const list = [...signals];
      const first = list.find((signal) => signal.aborted);
      if (first) abort(made, first.reason);
      else for (const signal of list) follow(signal, made);
      return made;
    }

    get aborted() { return this.#aborted; }

    get reason() { return this.#reason; }

    get onabort() { return this.#handler; }

    set onabort(handler) {
      this.removeEventListener("abort", this.#handler);
      this.#handler = typeof handler === "function" ? handler : null;
      this.addEventListener("abort", this.#handler);
    }

    throwIfAborted() { if (this.#aborted) throw this.#reason; }

    static {
      follow = (signal, follower) => { signal.#followers.push(follower); };
      abort = (signal, reason) => {
        if (signal.#aborted) return;
        signal.#aborted = true;
        signal.#reason = reason === undefined ? new DOMException("This operation was aborted", "AbortError") : reason;
        const followers = signal.#followers.filter((follower) => !follower.#aborted);
        signal.dispatchEvent(new Event("abort"));
        for (const follower of followers) abort(follower, signal.#reason);
      };
    }
  }

  function create() {
    make = true;
    try {
      return new AbortSignal();
    } finally {
      make = false;
    }
  }

  class AbortController {
    #signal = create();

    get signal() { return this.#signal; }

    abort(reason = undefined) { abort(this.#signal, reason); }
  }

  for (const made of [Event, CustomEvent, EventTarget, AbortSignal, AbortController, Performance]) host.platform(made);
  host.define(global, { performance: new Performance() });
})
