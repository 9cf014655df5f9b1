// Text and bytes: TextEncoder, TextDecoder, Buffer.
(function (host) {
  "use strict";

  const { global } = host;

  const { define } = host;
  const { btoa, atob, unescape, escape, encodeURIComponent, decodeURIComponent } = global;
  const fromBase64 = Uint8Array.fromBase64.bind(Uint8Array);
  const apply = Reflect.apply;
  const toBase64 = Uint8Array.prototype.toBase64;
  const toHex = Uint8Array.prototype.toHex;
  const TypedArray = Object.getPrototypeOf(Uint8Array);

  // ---- UTF-8 -----------------------------------------------------------------------------------------------------

  // A string with a character for each byte, and back: the engine's base64 is the fastest way between the two.
  const binary = (bytes) => atob(apply(toBase64, bytes, []));
  const bytesOfBinary = (text) => fromBase64(btoa(text));

  function encode(text) {
    if (!/[^\0-\x7f]/.test(text)) return bytesOfBinary(text);
    return bytesOfBinary(unescape(encodeURIComponent(text.toWellFormed())));
  }

  // Decodes what is no UTF-8 as the standard says: one replacement for each longest beginning of a character.
  function decodeDamaged(bytes) {
    let text = "";
    let point = 0, needed = 0, lower = 0x80, upper = 0xbf;
    for (let i = 0; i < bytes.length; i++) {
      const byte = bytes[i];
      if (needed) {
        if (byte < lower || byte > upper) {
          needed = 0;
          text += "\ufffd";
          i--; // it may begin something itself
        } else {
          point = (point << 6) | (byte & 0x3f);
          if (--needed === 0) text += String.fromCodePoint(point);
        }
        lower = 0x80; upper = 0xbf;
      } else if (byte < 0x80) {
        text += String.fromCharCode(byte);
      } else if (byte >= 0xc2 && byte <= 0xdf) {
        needed = 1; point = byte & 0x1f;
      } else if (byte >= 0xe0 && byte <= 0xef) {
        needed = 2; point = byte & 0xf;
        if (byte === 0xe0) lower = 0xa0;
        if (byte === 0xed) upper = 0x9f;
      } else if (byte >= 0xf0 && byte <= 0xf4) {
        needed = 3; point = byte & 0x7;
        if (byte === 0xf0) lower = 0x90;
        if (byte === 0xf4) upper = 0x8f;
      } else {
        text += "\ufffd";
      }
    }
    return needed ? text + "\ufffd" : text;
  }

  function decode(bytes, fatal = false) {
    try {
      const text = binary(bytes);
      return /[^\0-\x7f]/.test(text) ? decodeURIComponent(escape(text)) : text;
    } catch (error) {
      if (!(error instanceof URIError)) throw error;
      if (fatal) throw new TypeError("The encoded data was not valid for encoding utf-8");
      return decodeDamaged(bytes);
    }
  }

  // How many bytes at the end are the beginning of a character that could still go on.
  function unfinished(bytes) {
    for (let count = 1; count <= 3 && count <= bytes.length; count++) {
      const byte = bytes[bytes.length - count];
      if (byte < 0x80) return 0;
      if (byte < 0xc0) continue;
      // A beginning that cannot go on gives more than one replacement, or none.
      const length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
      return count < length && decodeDamaged(bytes.subarray(bytes.length - count)).length === 1 ? count : 0;
    }
    return 0;
  }

  // ---- other encodings -------------------------------------------------------------------------------------------

  function units(bytes, little) {
    const even = bytes.length & ~1;
    let text = "";
    for (let at = 0; at < even; at += 8192) {
      const codes = [];
      for (let i = at; i < even && i < at + 8192; i += 2) {
        codes.push(little ? bytes[i] | (bytes[i + 1] << 8) : bytes[i + 1] | (bytes[i] << 8));
      }
      text += apply(String.fromCharCode, undefined, codes);
    }
    return text;
  }

  function bytesOfUnits(text) {
    const bytes = new Uint8Array(2 * text.length);
    for (let i = 0; i < text.length; i++) {
      const unit = text.charCodeAt(i);
      bytes[2 * i] = unit;
      bytes[2 * i + 1] = unit >> 8;
    }
    return bytes;
  }

  // What windows-1252 has from 0x80 on.
  const WINDOWS = "€\x81‚ƒ„…†‡ˆ‰Š‹Œ\x8dŽ\x8f\x90‘’“”•–—˜™š›œ\x9džŸ";

  // ---- TextEncoder and TextDecoder -------------------------------------------------------------------------------

  class TextEncoder {
    get encoding() { return "utf-8"; }

    encode(text = "") { return encode(`${text}`); }

    encodeInto(source, destination) {
      const text = `${source}`.toWellFormed();
      let read = 0, written = 0;
      for (const character of text) {
        const point = character.codePointAt(0);
        const size = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
        if (written + size > destination.length) break;
        written += size;
        read += character.length;
      }
      destination.set(encode(text.slice(0, read)));
      return { read, written };
    }
  }

  const LABELS = new Map();
  for (const [encoding, labels] of Object.entries({
    "utf-8": "unicode-1-1-utf-8 unicode11utf8 unicode20utf8 utf-8 utf8 x-unicode20utf8",
    "utf-16le": "csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff utf-16 utf-16le",
    "utf-16be": "unicodefffe utf-16be",
    "windows-1252": "ansi_x3.4-1968 ascii cp1252 cp819 csisolatin1 ibm819 iso-8859-1 iso-ir-100 iso8859-1 iso88591 " +
      "iso_8859-1 iso_8859-1:1987 l1 latin1 us-ascii windows-1252 x-cp1252",
  })) {
    for (const label of labels.split(" ")) LABELS.set(label, encoding);
  }

  function bytesOf(source) {
    if (source === undefined) return new Uint8Array();
    if (ArrayBuffer.isView(source)) return new Uint8Array(source.buffer, source.byteOffset, source.byteLength);
    if (source instanceof ArrayBuffer) return new Uint8Array(source);
    throw new TypeError("an ArrayBuffer, a typed array or a DataView is needed");
  }

  class TextDecoder {
    #encoding;
    #fatal;
    #ignoreBOM;
    #rest = new Uint8Array();
    #begun = false;

    constructor(label = "utf-8", options = {}) {
      const encoding = LABELS.get(`${label}`.replace(/^[\t\n\f\r ]+|[\t\n\f\r ]+$/g, "").toLowerCase());
      if (encoding === undefined) {
        throw new RangeError(`The "${label}" encoding is not supported: utf-8, utf-16le, utf-16be and windows-1252 are`);
      }
      this.#encoding = encoding;
      this.#fatal = Boolean(options?.fatal);
      this.#ignoreBOM = Boolean(options?.ignoreBOM);
    }

    get encoding() { return this.#encoding; }

    get fatal() { return this.#fatal; }

    get ignoreBOM() { return this.#ignoreBOM; }

    decode(source = undefined, options = {}) {
      let bytes = bytesOf(source);
      if (this.#rest.length) {
        const joined = new Uint8Array(this.#rest.length + bytes.length);
        joined.set(this.#rest);
        joined.set(bytes, this.#rest.length);
        bytes = joined;
      }
      const stream = Boolean(options?.stream);
      const held = stream ? this.#held(bytes) : 0;
      this.#rest = bytes.slice(bytes.length - held);
      let text;
      try {
        text = this.#text(held ? bytes.subarray(0, bytes.length - held) : bytes);
      } catch (error) {
        this.#rest = new Uint8Array();
        this.#begun = false;
        throw error;
      }
      if (text && !this.#begun) {
        this.#begun = true;
        if (!this.#ignoreBOM && this.#encoding !== "windows-1252" && text[0] === "\ufeff") text = text.slice(1);
      }
      if (!stream) this.#begun = false;
      return text;
    }

    // How many bytes at the end wait for those to come.
    #held(bytes) {
      if (this.#encoding === "windows-1252") return 0;
      if (this.#encoding === "utf-8") return unfinished(bytes);
      const odd = bytes.length & 1;
      const high = bytes[bytes.length - odd - (this.#encoding === "utf-16le" ? 1 : 2)];
      return high >= 0xd8 && high <= 0xdb ? odd + 2 : odd;
    }

    #text(bytes) {
      if (this.#encoding === "utf-8") return decode(bytes, this.#fatal);
      if (this.#encoding === "windows-1252") {
        return binary(bytes).replace(/[\x80-\x9f]/g, (character) => WINDOWS[character.charCodeAt(0) - 0x80]);
      }
      const text = units(bytes, this.#encoding === "utf-16le");
      if (this.#fatal && (bytes.length & 1 || !text.isWellFormed())) {
        throw new TypeError(`The encoded data was not valid for encoding ${this.#encoding}`);
      }
      // What is left at the end is one error, half a pair before half a unit included.
      const half = bytes.length & 1 && !/[\ud800-\udbff]$/.test(text);
      return text.toWellFormed() + (half ? "\ufffd" : "");
    }
  }

  host.platform(TextEncoder);
  host.platform(TextDecoder);
  host.encode = encode;
  host.decode = decode;
  host.bytesOf = bytesOf;

  // ---- Buffer ----------------------------------------------------------------------------------------------------

  const ENCODINGS = {
    utf8: [encode, (bytes) => decode(bytes)],
    hex: [bytesOfHex, (bytes) => apply(toHex, bytes, [])],
    base64: [bytesOfBase64, (bytes) => apply(toBase64, bytes, [])],
    base64url: [bytesOfBase64, (bytes) => apply(toBase64, bytes, [{ alphabet: "base64url", omitPadding: true }])],
    latin1: [(text) => bytesOfBinary(text.replace(/[^\0-\xff]/g, low)), binary],
    ascii: [(text) => bytesOfBinary(text.replace(/[^\0-\xff]/g, low)), (bytes) => binary(bytes.map((byte) => byte & 0x7f))],
    utf16le: [bytesOfUnits, (bytes) => units(bytes, true)],
  };
  const OTHER_NAMES = { "utf-8": "utf8", binary: "latin1", "utf-16le": "utf16le", ucs2: "utf16le", "ucs-2": "utf16le" };

  function low(character) {
    return String.fromCharCode(character.charCodeAt(0) & 0xff);
  }

  // Like Node's, these end at what they do not understand rather than refuse it.
  function bytesOfHex(text) {
    const clean = /^(?:[0-9a-f]{2})*/i.exec(text)[0];
    return Uint8Array.fromHex(clean);
  }

  function bytesOfBase64(text) {
    const clean = text.replace(/-/g, "+").replace(/_/g, "/").replace(/=[^]*$/, "").replace(/[^A-Za-z0-9+/]/g, "");
    return fromBase64(clean.length % 4 === 1 ? clean.slice(0, -1) : clean);
  }

  function codec(name) {
    const lower = `${name ?? "utf8"}`.toLowerCase();
    const found = ENCODINGS[OTHER_NAMES[lower] ?? lower];
    if (!found) throw new TypeError(`Unknown encoding: ${name}`);
    return found;
  }

  class Buffer extends Uint8Array {
    constructor(value, ...rest) {
      if (typeof value === "string") super(codec(rest[0])[0](value));
      else super(value, ...rest);
    }

    static from(value, ...rest) {
      if (typeof value === "string") {
        const bytes = codec(rest[0])[0](value);
        return new Buffer(bytes.buffer, bytes.byteOffset, bytes.length);
      }
      if (value instanceof ArrayBuffer) return new Buffer(value, ...rest);
      if (value?.type === "Buffer" && Array.isArray(value.data)) return new Buffer(value.data);
      if (value === null || typeof value !== "object") {
        throw new TypeError("The first argument must be a string, an array, a Buffer or an ArrayBuffer");
      }
      const primitive = value.valueOf?.();
      return typeof primitive === "string" ? Buffer.from(primitive, ...rest) : new Buffer(value);
    }

    static of(...bytes) { return new Buffer(bytes); }

    static alloc(size, fill = 0, encoding = "utf8") {
      if (typeof size !== "number") throw new TypeError("The size must be a number");
      return fill === 0 ? new Buffer(size) : new Buffer(size).fill(fill, encoding);
    }

    static allocUnsafe(size) { return Buffer.alloc(size); }

    static isBuffer(value) { return value instanceof Buffer; }

    static isEncoding(name) {
      const lower = String(name).toLowerCase();
      return Object.hasOwn(ENCODINGS, lower) || Object.hasOwn(OTHER_NAMES, lower);
    }

    static byteLength(value, encoding = "utf8") {
      return typeof value === "string" ? codec(encoding)[0](value).length : bytesOf(value).length;
    }

    static concat(list, length = undefined) {
      const size = length ?? list.reduce((sum, item) => sum + item.length, 0);
      const made = new Buffer(size);
      let at = 0;
      for (const item of list) {
        if (at >= size) break;
        made.set(item.length > size - at ? item.subarray(0, size - at) : item, at);
        at += item.length;
      }
      return made;
    }

    static compare(one, other) {
      const count = Math.min(one.length, other.length);
      for (let i = 0; i < count; i++) if (one[i] !== other[i]) return one[i] < other[i] ? -1 : 1;
      return Math.sign(one.length - other.length);
    }

    toString(encoding = "utf8", start = 0, end = this.length) {
      const decoder = codec(encoding)[1];
      const bytes = new Uint8Array(this.buffer, this.byteOffset, this.length);
      return decoder(start > 0 || end < this.length ? bytes.subarray(Math.max(0, start), Math.max(0, end)) : bytes);
    }

    toJSON() { return { type: "Buffer", data: Array.from(this) }; }

    equals(other) { return Buffer.compare(this, other) === 0; }

    compare(other) { return Buffer.compare(this, other); }

    slice(start, end) { return this.subarray(start, end); } // a view of the same bytes, as Node has it

    write(text, offset = 0, length = undefined, encoding = "utf8") {
      if (typeof offset === "string") [offset, length, encoding] = [0, undefined, offset];
      else if (typeof length === "string") [length, encoding] = [undefined, length];
      const bytes = codec(encoding)[0](text);
      let size = Math.max(0, Math.min(bytes.length, length ?? bytes.length, this.length - offset));
      if (codec(encoding) === ENCODINGS.utf8) while (size < bytes.length && (bytes[size] & 0xc0) === 0x80) size--;
      this.set(bytes.subarray(0, size), offset);
      return size;
    }

    copy(target, at = 0, start = 0, end = this.length) {
      const part = this.subarray(start, end);
      const size = Math.max(0, Math.min(part.length, target.length - at));
      target.set(part.subarray(0, size), at);
      return size;
    }

    fill(value, start = 0, end = this.length, encoding = "utf8") {
      if (typeof start === "string") [start, end, encoding] = [0, this.length, start];
      else if (typeof end === "string") [end, encoding] = [this.length, end];
      if (typeof value !== "string" && !ArrayBuffer.isView(value)) return super.fill(value, start, end);
      const bytes = typeof value === "string" ? codec(encoding)[0](value) : value;
      for (let i = start; i < end; i++) this[i] = bytes.length ? bytes[(i - start) % bytes.length] : 0;
      return this;
    }

    indexOf(value, from = 0, encoding = "utf8") {
      if (typeof value === "number") return super.indexOf(value & 0xff, from);
      if (typeof from === "string") [from, encoding] = [0, from];
      const sought = binary(typeof value === "string" ? codec(encoding)[0](value) : value);
      return binary(this).indexOf(sought, from < 0 ? Math.max(0, this.length + from) : from);
    }

    lastIndexOf(value, from = this.length, encoding = "utf8") {
      if (typeof value === "number") return super.lastIndexOf(value & 0xff, from);
      const sought = binary(typeof value === "string" ? codec(encoding)[0](value) : value);
      return binary(this).lastIndexOf(sought, from < 0 ? this.length + from : from);
    }

    includes(value, from = 0, encoding = "utf8") { return this.indexOf(value, from, encoding) !== -1; }
  }

  // readUInt16LE and the like, with both spellings of what Node spells twice.
  const { prototype: views } = DataView;
  for (const [name, size] of [
    ["Uint8", 1], ["Int8", 1], ["Uint16", 2], ["Int16", 2], ["Uint32", 4], ["Int32", 4], ["BigUint64", 8], ["BigInt64", 8],
    ["Float32", 4], ["Float64", 8],
  ]) {
    const get = views[`get${name}`], set = views[`set${name}`];
    const plain = { Float32: "Float", Float64: "Double" }[name] ?? name;
    for (const order of size === 1 ? [""] : ["LE", "BE"]) {
      const view = (buffer) => new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
      const read = function (offset = 0) { return apply(get, view(this), [offset, order === "LE"]); };
      const write = function (value, offset = 0) {
        apply(set, view(this), [offset, value, order === "LE"]);
        return offset + size;
      };
      for (const spelled of new Set([plain, plain.replace("Uint", "UInt")])) {
        define(Buffer.prototype, { [`read${spelled}${order}`]: read, [`write${spelled}${order}`]: write });
      }
    }
  }
  define(global, { Buffer });
})
