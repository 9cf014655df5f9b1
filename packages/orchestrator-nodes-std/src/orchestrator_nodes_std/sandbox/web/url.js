// URL and URLSearchParams, as the URL Standard (WHATWG) has them.
//
// The standard describes a machine that reads character by character. Here a text is cut instead: nothing but `#` ends
// what precedes a fragment and nothing but `?` what precedes a query, so that both come off first, and the path last.
(function (host) {
  "use strict";

  const { global } = host;

  const { encodeURIComponent, decodeURIComponent } = global;
  const { encode, decode } = host;

  // ---- percent-encoding ------------------------------------------------------------------------------------------

  // What each set encodes; \x7e is the last that is left as it is.
  const CONTROL = /[^\x20-\x7e]/gu;
  const FRAGMENT = /[^\x21\x23-\x3b\x3d\x3f-\x5f\x61-\x7e]/gu;
  const QUERY = /[^\x21\x24-\x3b\x3d\x3f-\x7e]/gu;
  const SPECIAL_QUERY = /[^\x21\x24-\x26\x28-\x3b\x3d\x3f-\x7e]/gu;
  const PATH = /[^\x21\x24-\x3b\x3d\x40-\x5d\x5f\x61-\x7a\x7c\x7e]/gu;
  const USERINFO = /[^\x21\x24-\x2e\x30-\x39\x41-\x5a\x5f\x61-\x7a\x7e]/gu;
  const FORM = /[^*\-.0-9A-Z_a-z]/gu;

  function escaped(character) {
    const code = character.charCodeAt(0);
    if (code > 0x7f) return encodeURIComponent(character);
    return (code < 16 ? "%0" : "%") + code.toString(16).toUpperCase();
  }

  const percentEncode = (text, set) => text.toWellFormed().replace(set, escaped);

  function percentDecode(text) {
    if (!text.includes("%")) return text;
    try {
      return decodeURIComponent(text);
    } catch {
      const bytes = [];
      for (const [, byte, plain] of text.toWellFormed().matchAll(/%([0-9a-f]{2})|([^%]+|%)/gi)) {
        if (byte) bytes.push(parseInt(byte, 16));
        else bytes.push(...encode(plain));
      }
      return decode(new Uint8Array(bytes));
    }
  }

  // ---- hosts -----------------------------------------------------------------------------------------------------

  // Why an input is no URL. Carries no stack: the function that user code called throws the error.
  class Invalid {
    constructor(reason) {
      this.reason = reason;
    }
  }

  function fail(reason) {
    throw new Invalid(reason);
  }

  const FORBIDDEN_HOST = /[\0\t\n\r #/:<>?@[\\\]^|]/;
  const FORBIDDEN_DOMAIN = /[\0-\x20#%/:<>?@[\\\]^|\x7f]/;

  function parseHost(text, special) {
    if (text[0] === "[") {
      if (!text.endsWith("]")) fail("the address in brackets does not end");
      return `[${writeIPv6(parseIPv6(text.slice(1, -1)))}]`;
    }
    if (!special) {
      if (FORBIDDEN_HOST.test(text)) fail("the host holds a character that hosts may not hold");
      return percentEncode(text, CONTROL);
    }
    const domain = domainToASCII(percentDecode(text));
    if (!domain) fail("the host is empty");
    if (FORBIDDEN_DOMAIN.test(domain)) {
      fail("the host holds a character that hosts may not hold");
    }
    return endsInNumber(domain) ? parseIPv4(domain) : domain;
  }

  function endsInNumber(domain) {
    const parts = domain.split(".");
    if (parts.at(-1) === "" && parts.length > 1) parts.pop();
    return /^(?:[0-9]+|0[xX][0-9a-fA-F]*)$/.test(parts.at(-1));
  }

  function parseIPv4(domain) {
    const parts = domain.split(".");
    if (parts.at(-1) === "" && parts.length > 1) parts.pop();
    if (parts.length > 4) fail("the address has more than four parts");
    const numbers = parts.map((part) => {
      const match = /^(?:0x([0-9a-f]*)|0([0-7]+)|([0-9]+))$/i.exec(part);
      if (!match || (match[3]?.length > 1 && part[0] === "0")) fail("a part of the address is no number");
      const [, hex, octal, decimal] = match;
      return hex !== undefined ? parseInt(hex || "0", 16) : octal !== undefined ? parseInt(octal, 8) : parseInt(decimal, 10);
    });
    const last = numbers.pop();
    if (numbers.some((number) => number > 255) || last >= 256 ** (4 - numbers.length)) {
      fail("a number of the address is too large");
    }
    let address = last;
    numbers.forEach((number, i) => { address += number * 256 ** (3 - i); });
    return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join(".");
  }

  function parseIPv6(text) {
    const bad = "the address in brackets is no IPv6 address";
    let [head, tail, ...more] = text.split("::");
    if (more.length || !text) fail(bad);
    const pieces = (part, isLast) => {
      if (!part) return [];
      const list = part.split(":");
      const dotted = isLast && list.at(-1).includes(".") ? list.pop() : null;
      const numbers = list.map((piece) => (/^[0-9a-f]{1,4}$/i.test(piece) ? parseInt(piece, 16) : fail(bad)));
      if (dotted !== null) {
        const bytes = dotted.split(".");
        if (bytes.length !== 4 || !bytes.every((byte) => /^(?:0|[1-9][0-9]{0,2})$/.test(byte) && byte < 256)) fail(bad);
        numbers.push(bytes[0] * 256 + +bytes[1], bytes[2] * 256 + +bytes[3]);
      }
      return numbers;
    };
    if (tail === undefined) {
      head = pieces(head, true);
      return head.length === 8 ? head : fail(bad);
    }
    head = pieces(head, false);
    tail = pieces(tail, true);
    if (head.length + tail.length > 7) fail(bad);
    return [...head, ...new Array(8 - head.length - tail.length).fill(0), ...tail];
  }

  function writeIPv6(pieces) {
    let best = 0, length = 1;
    for (let i = 0; i < 8; i++) {
      let end = i;
      while (end < 8 && pieces[end] === 0) end++;
      if (end - i > length) [best, length] = [i, end - i];
    }
    const texts = pieces.map((piece) => piece.toString(16));
    if (length < 2) return texts.join(":");
    return `${texts.slice(0, best).join(":")}::${texts.slice(best + length).join(":")}`;
  }

  // ---- names beyond ASCII ----------------------------------------------------------------------------------------

  // Mapping a name (UTS 46) takes tables that are not here. For the scripts below, lower case and compatibility
  // normalisation give the same; names in any other are refused, and so are those written from right to left.
  const KNOWN = new RegExp(
    "^(?:[\\-0-9a-z_.\\u00b7\\u30fb\\u30fc]|(?=[\\p{L}\\p{M}\\p{Nd}])[" +
      ["Latin", "Greek", "Cyrillic", "Armenian", "Han", "Hiragana", "Katakana", "Hangul", "Bopomofo", "Devanagari", "Bengali",
        "Tamil", "Telugu", "Thai", "Lao", "Ethiopic", "Khmer"].map((script) => `\\p{Script=${script}}`).join("") +
      "\\p{Script=Inherited}]|\\p{Emoji_Presentation})*$", "u",
  );
  // Where it does not give the same.
  const OTHERWISE = /[\u0345\u034f\u03f2\u03f9\u04c0\u115f\u1160\u17b4\u17b5\u1c80-\u1c8f\u1e9e\u1f80-\u1fff\u3164\uffa0\u{1d6d3}\u{1d70d}\u{1d747}\u{1d781}\u{1d7bb}]/u;
  const IGNORED = /[\u00ad\u200b\u2060\ufeff\ufe00-\ufe0f\u{e0100}-\u{e01ef}]/gu;

  function mapped(text) {
    const lower = (part) => Array.from(part, (character) => character.toLowerCase()).join("");
    const dotted = text.replace(IGNORED, "").replace(/[\u3002\uff0e\uff61]/g, ".");
    const domain = lower(lower(dotted).normalize("NFKC")).normalize("NFKC");
    if (domain.split(".").length > dotted.split(".").length) fail("the host holds a character that stands for a dot and others");
    return domain;
  }

  function domainToASCII(text) {
    if (!/[^\0-\x7f]/.test(text)) {
      const lower = text.toLowerCase();
      return /(?:^|\.)xn--/.test(lower) ? lower.split(".").map(checkedLabel).join(".") : lower;
    }
    const domain = mapped(text);
    if (OTHERWISE.test(text) || !KNOWN.test(domain.replace(/[\0-\x7f]/g, "a"))) {
      fail("the host holds characters that are not supported here: write it in its ASCII form, which begins with xn--");
    }
    return domain.split(".").map((label) => {
      if (!/[^\0-\x7f]/.test(label)) return checkedLabel(label);
      if (/^\p{M}/u.test(label)) fail("a label of the host begins with a combining mark");
      if (label.startsWith("xn--")) fail("a label of the host that begins with xn-- is not ASCII");
      return `xn--${punycode(label)}`;
    }).join(".");
  }

  function checkedLabel(label) {
    if (!label.startsWith("xn--")) return label;
    const text = punycodeDecoded(label.slice(4));
    if (!/[^\0-\x7f]/.test(text) || (KNOWN.test(text.replace(/[\0-\x7f]/g, "a")) && mapped(text) !== text) || /^\p{M}/u.test(text)) {
      fail("a label of the host that begins with xn-- is not valid");
    }
    return label;
  }

  // RFC 3492; its parameters.
  const BASE = 36, T_MIN = 1, T_MAX = 26, SKEW = 38, DAMP = 700, BIAS = 72, FIRST = 128;
  const threshold = (k, bias) => Math.min(Math.max(k - bias, T_MIN), T_MAX);

  function adapt(delta, count, first) {
    delta = Math.floor(delta / (first ? DAMP : 2));
    delta += Math.floor(delta / count);
    let k = 0;
    for (; delta > ((BASE - T_MIN) * T_MAX) / 2; k += BASE) delta = Math.floor(delta / (BASE - T_MIN));
    return k + Math.floor(((BASE - T_MIN + 1) * delta) / (delta + SKEW));
  }

  function punycode(label) {
    const points = Array.from(label, (character) => character.codePointAt(0));
    const basic = points.filter((point) => point < FIRST);
    let text = String.fromCharCode(...basic) + (basic.length ? "-" : "");
    let n = FIRST, delta = 0, bias = BIAS;
    for (let handled = basic.length; handled < points.length; delta++, n++) {
      const m = Math.min(...points.filter((point) => point >= n));
      delta += (m - n) * (handled + 1);
      n = m;
      for (const point of points) {
        if (point < n) delta++;
        if (point !== n) continue;
        let q = delta;
        for (let k = BASE; ; k += BASE) {
          const t = threshold(k, bias);
          if (q < t) break;
          text += (t + ((q - t) % (BASE - t))).toString(36).replace(/[0-9a-z]/, digit);
          q = Math.floor((q - t) / (BASE - t));
        }
        text += q.toString(36).replace(/[0-9a-z]/, digit);
        bias = adapt(delta, handled + 1, handled === basic.length);
        delta = 0;
        handled++;
      }
    }
    return text;
  }

  // Punycode's digits begin with the letters, those of toString(36) with the figures.
  function digit(character) {
    const value = parseInt(character, 36);
    return value < 26 ? String.fromCharCode(97 + value) : String.fromCharCode(22 + value);
  }

  function punycodeDecoded(text) {
    const bad = "a label of the host that begins with xn-- is not valid";
    const cut = text.lastIndexOf("-");
    const points = Array.from(cut > 0 ? text.slice(0, cut) : "", (character) => character.charCodeAt(0));
    let n = FIRST, i = 0, bias = BIAS;
    for (let at = cut > 0 ? cut + 1 : 0; at < text.length;) {
      const before = i;
      for (let weight = 1, k = BASE; ; k += BASE) {
        const code = text.charCodeAt(at++);
        const value = code >= 97 && code <= 122 ? code - 97 : code >= 48 && code <= 57 ? code - 22 : fail(bad);
        i += value * weight;
        if (i > 0x7fffffff) fail(bad);
        const t = threshold(k, bias);
        if (value < t) break;
        weight *= BASE - t;
      }
      bias = adapt(i - before, points.length + 1, before === 0);
      n += Math.floor(i / (points.length + 1));
      i %= points.length + 1;
      if (n > 0x10ffff) fail(bad);
      points.splice(i++, 0, n);
    }
    return String.fromCodePoint(...points);
  }

  // ---- parsing ---------------------------------------------------------------------------------------------------

  const PORTS = { "http:": 80, "https:": 443, "ws:": 80, "wss:": 443, "ftp:": 21, "file:": null };
  const isSpecial = (scheme) => Object.hasOwn(PORTS, scheme);
  const DRIVE = /^[A-Za-z][:|]$/;
  const BEGINS_WITH_DRIVE = /^[A-Za-z][:|](?:[/\\]|$)/;

  // A record of what a URL consists of. `path` is a list of segments, or one text where it is opaque.
  function parse(input, base) {
    const text = input.replace(/^[\0-\x20]+|[\0-\x20]+$/g, "").replace(/[\t\n\r]/g, "");
    const [, scheme, rest, query, fragment] = /^([A-Za-z][A-Za-z0-9+.\-]*:)?([^?#]*)(?:\?([^#]*))?(?:#([^]*))?$/.exec(text);
    const url = {
      scheme: scheme?.toLowerCase(), username: "", password: "", host: null, port: null, path: [], query: null, fragment: null,
    };
    if (scheme !== undefined) {
      begin(url, rest, query, base);
    } else if (!base) {
      fail("it has no scheme, and there is no base");
    } else if (typeof base.path === "string") {
      if (rest || query !== undefined || fragment === undefined) fail("its base cannot be one");
      Object.assign(url, base);
    } else {
      url.scheme = base.scheme;
      if (base.scheme === "file:") file(url, rest, query, base);
      else relative(url, rest, query, base);
    }
    if (query !== undefined) setQuery(url, query);
    url.fragment = fragment === undefined ? null : percentEncode(fragment, FRAGMENT);
    return url;
  }

  function setQuery(url, query) {
    url.query = percentEncode(query, isSpecial(url.scheme) ? SPECIAL_QUERY : QUERY);
  }

  function begin(url, rest, query, base) {
    if (url.scheme === "file:") {
      file(url, rest, query, base?.scheme === "file:" ? base : null);
    } else if (isSpecial(url.scheme)) {
      if (base?.scheme === url.scheme && !rest.startsWith("//")) relative(url, rest, query, base);
      else authority(url, rest.replace(/^[/\\]+/, ""));
    } else if (rest.startsWith("//")) {
      authority(url, rest.slice(2));
    } else if (rest[0] === "/") {
      setPath(url, rest.slice(1));
    } else {
      url.path = percentEncode(rest, CONTROL).replace(/ $/, "%20");
    }
  }

  function relative(url, rest, query, base) {
    const slashes = isSpecial(url.scheme) ? /^[/\\]*/.exec(rest)[0].length : /^\/*/.exec(rest)[0].length;
    if (slashes > 1) {
      authority(url, rest.slice(isSpecial(url.scheme) ? slashes : 2));
      return;
    }
    for (const part of ["username", "password", "host", "port"]) url[part] = base[part];
    if (slashes) {
      setPath(url, rest.slice(1));
      return;
    }
    inherit(url, rest, query, base);
  }

  function inherit(url, rest, query, base) {
    url.path = [...base.path];
    if (rest) {
      shorten(url);
      addPath(url, rest);
    } else if (query === undefined) {
      url.query = base.query;
    }
  }

  function file(url, rest, query, base) {
    url.host = "";
    const slash = /^[/\\]/.test(rest);
    if (slash && /^[/\\]/.test(rest.slice(1))) {
      const name = /^[^/\\]*/.exec(rest.slice(2))[0];
      if (DRIVE.test(name)) {
        setPath(url, rest.slice(2));
      } else {
        if (name) setFileHost(url, name);
        setPath(url, rest.slice(2 + name.length).replace(/^[/\\]/, ""));
      }
    } else if (slash) {
      if (base) {
        url.host = base.host;
        if (!BEGINS_WITH_DRIVE.test(rest.slice(1)) && /^[A-Za-z]:$/.test(base.path[0])) url.path.push(base.path[0]);
      }
      addPath(url, rest.slice(1));
    } else if (base) {
      url.host = base.host;
      if (BEGINS_WITH_DRIVE.test(rest)) setPath(url, rest);
      else inherit(url, rest, query, base);
    } else {
      setPath(url, rest);
    }
  }

  function setFileHost(url, name) {
    const parsed = name && parseHost(name, true);
    url.host = parsed === "localhost" ? "" : parsed;
  }

  function authority(url, rest) {
    const special = isSpecial(url.scheme);
    const text = (special ? /^[^/\\]*/ : /^[^/]*/).exec(rest)[0];
    const at = text.lastIndexOf("@");
    if (at >= 0) {
      const [, name, password] = /^([^:]*)(?::([^]*))?$/.exec(text.slice(0, at));
      url.username = percentEncode(name, USERINFO);
      url.password = percentEncode(password ?? "", USERINFO);
    }
    const [, name, port] = splitPort(text.slice(at + 1));
    if (!name && (special || at >= 0 || port !== undefined)) fail("it has no host");
    url.host = name ? parseHost(name, special) : "";
    if (port) {
      if (/[^0-9]/.test(port)) fail("the port is no number");
      setPort(url, port);
    }
    const path = rest.slice(text.length);
    if (special) setPath(url, path.slice(1));
    else if (path) setPath(url, path.slice(1));
  }

  // The host, with its brackets, and what follows the colon after it.
  const splitPort = (text) => /^((?:\[[^\]]*(?:\]|$)|[^:[])*)(?::([^]*))?$/.exec(text) ?? fail("the host is not valid");

  function setPort(url, digits) {
    const number = parseInt(digits, 10);
    if (number > 65535) fail("the port is too large");
    url.port = number === PORTS[url.scheme] ? null : number;
  }

  function shorten(url) {
    if (url.scheme === "file:" && url.path.length === 1 && /^[A-Za-z]:$/.test(url.path[0])) return;
    url.path.pop();
  }

  function setPath(url, text) {
    url.path = [];
    addPath(url, text);
  }

  function addPath(url, text) {
    const segments = text.split(isSpecial(url.scheme) ? /[/\\]/ : "/");
    segments.forEach((segment, i) => {
      const last = i === segments.length - 1;
      const dots = segment.replace(/%2e/gi, ".");
      if (dots === "..") {
        shorten(url);
        if (last) url.path.push("");
      } else if (dots === ".") {
        if (last) url.path.push("");
      } else if (url.scheme === "file:" && !url.path.length && DRIVE.test(segment)) {
        url.path.push(`${segment[0]}:`);
      } else {
        url.path.push(percentEncode(segment, PATH));
      }
    });
  }

  // ---- writing ---------------------------------------------------------------------------------------------------

  function pathOf(url) {
    return typeof url.path === "string" ? url.path : url.path.map((segment) => `/${segment}`).join("");
  }

  function hostOf(url) {
    return url.host === null ? "" : url.port === null ? url.host : `${url.host}:${url.port}`;
  }

  function write(url) {
    let text = url.scheme;
    if (url.host !== null) {
      text += "//";
      if (url.username || url.password) text += `${url.username}${url.password && `:${url.password}`}@`;
      text += hostOf(url);
    } else if (typeof url.path !== "string" && url.path.length > 1 && url.path[0] === "") {
      text += "/.";
    }
    return text + pathOf(url) + (url.query === null ? "" : `?${url.query}`) + (url.fragment === null ? "" : `#${url.fragment}`);
  }

  function originOf(url) {
    if (url.scheme === "blob:") {
      try {
        const inner = parse(pathOf(url), null);
        return /^(?:https?|file):$/.test(inner.scheme) ? originOf(inner) : "null";
      } catch {
        return "null";
      }
    }
    return isSpecial(url.scheme) && url.scheme !== "file:" ? `${url.scheme}//${hostOf(url)}` : "null";
  }

  // ---- URL -------------------------------------------------------------------------------------------------------

  const unspaced = (value) => `${value}`.replace(/[\t\n\r]/g, "");

  // A setter changes nothing where the standard's parser fails.
  function quietly(change) {
    try {
      change();
    } catch (error) {
      if (!(error instanceof Invalid)) throw error;
    }
  }

  function attempt(input, base) {
    return parse(`${input}`, base === undefined ? null : parse(`${base}`, null));
  }

  class URL {
    #url;
    #params = null;

    constructor(input, base = undefined) {
      if (!arguments.length) throw new TypeError("URL needs an input");
      try {
        this.#url = attempt(input, base);
      } catch (error) {
        if (!(error instanceof Invalid)) throw error;
        const about = base === undefined ? "" : ` with the base "${base}"`;
        throw new TypeError(`Invalid URL: "${input}"${about}: ${error.reason}`);
      }
    }

    static canParse(input, base = undefined) {
      return URL.parse(input, base) !== null;
    }

    static parse(input, base = undefined) {
      try {
        return new URL(write(attempt(input, base)));
      } catch (error) {
        if (!(error instanceof Invalid)) throw error;
        return null;
      }
    }

    get href() { return write(this.#url); }
    set href(value) {
      this.#url = new URL(value).#url;
      this.#reread();
    }

    get origin() { return originOf(this.#url); }

    get protocol() { return this.#url.scheme; }
    set protocol(value) {
      const url = this.#url;
      const scheme = /^([A-Za-z][A-Za-z0-9+.\-]*)(?::|$)/.exec(unspaced(value))?.[1].toLowerCase().concat(":");
      if (scheme === undefined || isSpecial(scheme) !== isSpecial(url.scheme)) return;
      if (scheme === "file:" && (url.username || url.password || url.port !== null)) return;
      if (url.scheme === "file:" && !url.host) return;
      url.scheme = scheme;
      if (url.port === PORTS[scheme]) url.port = null;
    }

    get username() { return this.#url.username; }
    set username(value) {
      if (this.#url.host && this.#url.scheme !== "file:") this.#url.username = percentEncode(`${value}`, USERINFO);
    }

    get password() { return this.#url.password; }
    set password(value) {
      if (this.#url.host && this.#url.scheme !== "file:") this.#url.password = percentEncode(`${value}`, USERINFO);
    }

    get host() { return hostOf(this.#url); }
    set host(value) { this.#setHost(value, true); }

    get hostname() { return this.#url.host ?? ""; }
    set hostname(value) { this.#setHost(value, false); }

    #setHost(value, withPort) {
      const url = this.#url;
      if (typeof url.path === "string") return;
      const special = isSpecial(url.scheme);
      const text = (special ? /^[^/\\?#]*/ : /^[^/?#]*/).exec(unspaced(value))[0];
      quietly(() => {
        if (url.scheme === "file:") {
          setFileHost(url, text);
          return;
        }
        const [, name, port] = splitPort(text);
        if (port !== undefined && (!withPort || !name)) return;
        if (!name && (special || url.username || url.password || url.port !== null)) return;
        url.host = name ? parseHost(name, special) : "";
        const digits = /^[0-9]+/.exec(port ?? "")?.[0];
        if (digits) setPort(url, digits);
      });
    }

    get port() { return this.#url.port === null ? "" : String(this.#url.port); }
    set port(value) {
      const url = this.#url;
      if (!url.host || url.scheme === "file:") return;
      const text = unspaced(value);
      const digits = /^[0-9]+/.exec(text)?.[0];
      if (text === "") url.port = null;
      else if (digits) quietly(() => setPort(url, digits));
    }

    get pathname() { return pathOf(this.#url); }
    set pathname(value) {
      const url = this.#url;
      if (typeof url.path === "string") return;
      const text = unspaced(value);
      if (!isSpecial(url.scheme) && !text) url.path = url.host === null ? [""] : [];
      else setPath(url, text.replace(isSpecial(url.scheme) ? /^[/\\]/ : /^\//, ""));
    }

    get search() { return this.#url.query ? `?${this.#url.query}` : ""; }
    set search(value) {
      const text = unspaced(value);
      if (`${value}` === "") this.#url.query = null;
      else setQuery(this.#url, text.replace(/^\?/, ""));
      this.#reread();
    }

    get searchParams() {
      if (this.#params === null) {
        this.#params = new URLSearchParams();
        this.#reread();
        link(this.#params, (text) => { this.#url.query = text || null; });
      }
      return this.#params;
    }

    #reread() {
      if (this.#params !== null) reread(this.#params, this.#url.query ?? "");
    }

    get hash() { return this.#url.fragment ? `#${this.#url.fragment}` : ""; }
    set hash(value) {
      this.#url.fragment = `${value}` === "" ? null : percentEncode(unspaced(value).replace(/^#/, ""), FRAGMENT);
    }

    toString() { return this.href; }

    toJSON() { return this.href; }
  }

  // ---- URLSearchParams -------------------------------------------------------------------------------------------

  function formParse(text) {
    return text.split("&").filter(Boolean).map((part) => {
      const at = part.indexOf("=");
      return (at < 0 ? [part, ""] : [part.slice(0, at), part.slice(at + 1)]).map((item) => percentDecode(item.replaceAll("+", " ")));
    });
  }

  const formWrite = (text) => percentEncode(text, FORM).replaceAll("%20", "+");

  let link, reread; // for URL only

  class URLSearchParams {
    #list;
    #changed = null;

    constructor(init = "") {
      if (init !== null && (typeof init === "object" || typeof init === "function")) {
        const pairs = init[Symbol.iterator] ? Array.from(init, (pair) => [...pair]) : Reflect.ownKeys(init)
          .filter((key) => Object.getOwnPropertyDescriptor(init, key).enumerable).map((key) => [key, init[key]]);
        if (pairs.some((pair) => pair.length !== 2)) throw new TypeError("each pair must hold a name and a value");
        this.#list = pairs.map(([name, value]) => [`${name}`.toWellFormed(), `${value}`.toWellFormed()]);
      } else {
        this.#list = formParse(`${init}`.replace(/^\?/, "").toWellFormed());
      }
    }

    static {
      link = (params, changed) => { params.#changed = changed; };
      reread = (params, text) => { params.#list = formParse(text); };
    }

    #update() { this.#changed?.(this.toString()); }

    get size() { return this.#list.length; }

    append(name, value) {
      this.#list.push([`${name}`.toWellFormed(), `${value}`.toWellFormed()]);
      this.#update();
    }

    delete(name, value = undefined) {
      this.#list = this.#list.filter(([key, item]) => key !== `${name}` || (value !== undefined && item !== `${value}`));
      this.#update();
    }

    get(name) { return this.#list.find(([key]) => key === `${name}`)?.[1] ?? null; }

    getAll(name) { return this.#list.filter(([key]) => key === `${name}`).map(([, item]) => item); }

    has(name, value = undefined) {
      return this.#list.some(([key, item]) => key === `${name}` && (value === undefined || item === `${value}`));
    }

    set(name, value) {
      const first = this.#list.findIndex(([key]) => key === `${name}`);
      if (first < 0) {
        this.append(name, value);
        return;
      }
      this.#list = this.#list.filter(([key], i) => key !== `${name}` || i === first);
      this.#list[first][1] = `${value}`.toWellFormed();
      this.#update();
    }

    sort() {
      this.#list.sort(([one], [other]) => (one < other ? -1 : one > other ? 1 : 0));
      this.#update();
    }

    forEach(callback, self = undefined) {
      for (const [name, value] of this) Reflect.apply(callback, self, [value, name, this]);
    }

    * entries() { for (let i = 0; i < this.#list.length; i++) yield [...this.#list[i]]; }

    * keys() { for (let i = 0; i < this.#list.length; i++) yield this.#list[i][0]; }

    * values() { for (let i = 0; i < this.#list.length; i++) yield this.#list[i][1]; }

    toString() { return this.#list.map(([name, value]) => `${formWrite(name)}=${formWrite(value)}`).join("&"); }
  }

  host.define(URLSearchParams.prototype, { [Symbol.iterator]: URLSearchParams.prototype.entries });
  host.platform(URL);
  host.platform(URLSearchParams);
})
