// crypto: random values of the seeded generator, digests and HMAC. `crypto.subtle` is of programs only, since its
// functions give promises.
(function (host) {
  "use strict";

  const { global } = host;

  const { DOMException } = global;
  const { bytesOf, random } = host;

  // ---- random values ---------------------------------------------------------------------------------------------

  function fill(bytes) {
    for (let i = 0; i < bytes.length; i++) bytes[i] = random() >>> 24;
    return bytes;
  }

  class Crypto {
    getRandomValues(array) {
      if (!ArrayBuffer.isView(array) || array instanceof DataView || array instanceof Float32Array ||
          array instanceof Float64Array || array instanceof Float16Array) {
        throw new DOMException("An array of integers is needed.", "TypeMismatchError");
      }
      if (array.byteLength > 65536) throw new DOMException("At most 65536 bytes can be had at once.", "QuotaExceededError");
      fill(bytesOf(array));
      return array;
    }

    randomUUID() {
      const bytes = fill(new Uint8Array(16));
      bytes[6] = (bytes[6] & 0x0f) | 0x40;
      bytes[8] = (bytes[8] & 0x3f) | 0x80;
      return bytes.toHex().replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
    }
  }

  // ---- SHA -------------------------------------------------------------------------------------------------------

  // The constants of SHA-2: the first 64 bits of the fractions of the primes' square and cube roots.
  const PRIMES = [];
  for (let n = 2; PRIMES.length < 80; n++) if (PRIMES.every((prime) => n % prime)) PRIMES.push(n);

  function rootFraction(prime, power) {
    const target = BigInt(prime) << BigInt(64 * power);
    let low = 0n, high = 1n << 70n;
    while (high - low > 1n) {
      const middle = (low + high) >> 1n;
      if (middle ** BigInt(power) <= target) low = middle;
      else high = middle;
    }
    return BigInt.asUintN(64, low);
  }

  const words = (list) => Int32Array.from(list.flatMap((word) => [Number(word >> 32n), Number(word & 0xffffffffn)]), (word) => word | 0);
  const CUBES = words(PRIMES.map((prime) => rootFraction(prime, 3)));
  const K256 = CUBES.filter((_, i) => i < 128 && i % 2 === 0);
  const SQUARES = words(PRIMES.slice(0, 16).map((prime) => rootFraction(prime, 2)));
  const START = {
    "SHA-1": [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0],
    "SHA-256": SQUARES.filter((_, i) => i < 16 && i % 2 === 0),
    "SHA-384": SQUARES.slice(16),
    "SHA-512": SQUARES.slice(0, 16),
  };
  const BLOCK = { "SHA-1": 64, "SHA-256": 64, "SHA-384": 128, "SHA-512": 128 };
  const LENGTH = { "SHA-1": 20, "SHA-256": 32, "SHA-384": 48, "SHA-512": 64 };

  function round1(state, w) {
    for (let i = 16; i < 80; i++) {
      const x = w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16];
      w[i] = (x << 1) | (x >>> 31);
    }
    let [a, b, c, d, e] = state;
    for (let i = 0; i < 80; i++) {
      const f = i < 20 ? ((b & c) | (~b & d)) + 0x5a827999 : i < 40 ? (b ^ c ^ d) + 0x6ed9eba1
        : i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc : (b ^ c ^ d) + 0xca62c1d6;
      const t = (((a << 5) | (a >>> 27)) + f + e + w[i]) | 0;
      e = d; d = c; c = (b << 30) | (b >>> 2); b = a; a = t;
    }
    state[0] += a; state[1] += b; state[2] += c; state[3] += d; state[4] += e;
  }

  function round256(state, w) {
    for (let i = 16; i < 64; i++) {
      const x = w[i - 15], y = w[i - 2];
      w[i] = (((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3)) + w[i - 7] + w[i - 16] +
        (((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10));
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < 64; i++) {
      const t = (h + (((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7))) + ((e & f) ^ (~e & g)) + K256[i] + w[i]) | 0;
      const u = (((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10))) + ((a & b) ^ (a & c) ^ (b & c));
      h = g; g = f; f = e; e = (d + t) | 0; d = c; c = b; b = a; a = (t + u) | 0;
    }
    [a, b, c, d, e, f, g, h].forEach((value, i) => { state[i] += value; });
  }

  // Numbers of 64 bits are pairs of 32, the high half first: the lower halves are added first, and give the carry.
  function round512(state, w) {
    for (let i = 32; i < 160; i += 2) {
      const xh = w[i - 30], xl = w[i - 29], yh = w[i - 4], yl = w[i - 3];
      const low = ((((xl >>> 1) | (xh << 31)) ^ ((xl >>> 8) | (xh << 24)) ^ ((xl >>> 7) | (xh << 25))) >>> 0) + (w[i - 13] >>> 0) +
        ((((yl >>> 19) | (yh << 13)) ^ ((yh >>> 29) | (yl << 3)) ^ ((yl >>> 6) | (yh << 26))) >>> 0) + (w[i - 31] >>> 0);
      w[i] = (((xh >>> 1) | (xl << 31)) ^ ((xh >>> 8) | (xl << 24)) ^ (xh >>> 7)) + w[i - 14] +
        (((yh >>> 19) | (yl << 13)) ^ ((yl >>> 29) | (yh << 3)) ^ (yh >>> 6)) + w[i - 32] + Math.floor(low / 4294967296);
      w[i + 1] = low;
    }
    const s = Int32Array.from(state); // a b c d e f g h, two words each
    for (let i = 0; i < 160; i += 2) {
      const eh = s[8], el = s[9], ah = s[0], al = s[1];
      const low = (s[15] >>> 0) + ((((el >>> 14) | (eh << 18)) ^ ((el >>> 18) | (eh << 14)) ^ ((eh >>> 9) | (el << 23))) >>> 0) +
        (((el & s[11]) ^ (~el & s[13])) >>> 0) + (CUBES[i + 1] >>> 0) + (w[i + 1] >>> 0);
      const high = (s[14] + (((eh >>> 14) | (el << 18)) ^ ((eh >>> 18) | (el << 14)) ^ ((el >>> 9) | (eh << 23))) +
        ((eh & s[10]) ^ (~eh & s[12])) + CUBES[i] + w[i] + Math.floor(low / 4294967296)) | 0;
      const low2 = ((((al >>> 28) | (ah << 4)) ^ ((ah >>> 2) | (al << 30)) ^ ((ah >>> 7) | (al << 25))) >>> 0) +
        (((al & s[3]) ^ (al & s[5]) ^ (s[3] & s[5])) >>> 0);
      const high2 = (((ah >>> 28) | (al << 4)) ^ ((al >>> 2) | (ah << 30)) ^ ((al >>> 7) | (ah << 25))) +
        ((ah & s[2]) ^ (ah & s[4]) ^ (s[2] & s[4]));
      const newE = (s[7] >>> 0) + (low >>> 0);
      const eHigh = s[6] + high + Math.floor(newE / 4294967296);
      const newA = (low >>> 0) + low2;
      s.copyWithin(2, 0, 14);
      s[8] = eHigh; s[9] = newE;
      s[0] = high + high2 + Math.floor(newA / 4294967296); s[1] = newA;
    }
    for (let i = 0; i < 16; i += 2) {
      const low = (state[i + 1] >>> 0) + (s[i + 1] >>> 0);
      state[i] += s[i] + Math.floor(low / 4294967296);
      state[i + 1] = low;
    }
  }

  const ROUND = { "SHA-1": round1, "SHA-256": round256, "SHA-384": round512, "SHA-512": round512 };

  function digest(name, bytes) {
    const block = BLOCK[name], round = ROUND[name];
    const padded = new Uint8Array(Math.ceil((bytes.length + 1 + block / 8) / block) * block);
    padded.set(bytes);
    padded[bytes.length] = 0x80;
    const view = new DataView(padded.buffer);
    view.setUint32(padded.length - 8, Math.floor(bytes.length / 0x20000000));
    view.setUint32(padded.length - 4, bytes.length << 3);
    const state = Int32Array.from(START[name], (word) => word | 0);
    const w = new Int32Array(block === 64 ? 80 : 160);
    for (let at = 0; at < padded.length; at += block) {
      for (let i = 0; i < block / 4; i++) w[i] = view.getInt32(at + 4 * i);
      round(state, w);
    }
    const out = new DataView(new ArrayBuffer(4 * state.length));
    state.forEach((word, i) => out.setInt32(4 * i, word));
    return new Uint8Array(out.buffer, 0, LENGTH[name]);
  }

  function hmac(name, key, bytes) {
    const padded = new Uint8Array(BLOCK[name]);
    padded.set(key.length > padded.length ? digest(name, key) : key);
    const join = (pad, rest) => {
      const joined = new Uint8Array(padded.length + rest.length);
      joined.set(padded.map((byte) => byte ^ pad));
      joined.set(rest, padded.length);
      return joined;
    };
    return digest(name, join(0x5c, digest(name, join(0x36, bytes))));
  }

  // ---- subtle ----------------------------------------------------------------------------------------------------

  function nameOf(algorithm) {
    const name = `${typeof algorithm === "object" && algorithm !== null ? algorithm.name : algorithm}`.toUpperCase();
    return name;
  }

  function hashOf(algorithm) {
    const name = nameOf(algorithm);
    if (!Object.hasOwn(BLOCK, name)) unsupported(`The digest "${name}"`);
    return name;
  }

  function unsupported(what) {
    throw new DOMException(`${what} is not supported: SHA-1, SHA-256, SHA-384, SHA-512 and HMAC with them are.`, "NotSupportedError");
  }

  const secrets = new WeakMap(); // the bytes of keys

  class CryptoKey {
    #about;

    constructor(about, bytes) {
      if (!about?.[INSIDE]) throw new TypeError("Illegal constructor: use crypto.subtle.importKey");
      this.#about = about;
      secrets.set(this, bytes);
    }

    get type() { return "secret"; }

    get extractable() { return this.#about.extractable; }

    get algorithm() { return this.#about.algorithm; }

    get usages() { return this.#about.usages; }
  }

  const INSIDE = Symbol("inside");

  function newKey(bytes, hash, extractable, usages) {
    const list = [...usages];
    if (!list.length || list.some((usage) => usage !== "sign" && usage !== "verify")) {
      throw new DOMException('The usages of an HMAC key are "sign" and "verify".', "SyntaxError");
    }
    const algorithm = { name: "HMAC", hash: { name: hash }, length: 8 * bytes.length };
    return new CryptoKey({ [INSIDE]: true, extractable: Boolean(extractable), algorithm, usages: list }, bytes);
  }

  function keyFor(usage, algorithm, key) {
    if (nameOf(algorithm) !== "HMAC") unsupported(`"${nameOf(algorithm)}"`);
    if (!secrets.has(key)) throw new TypeError("a CryptoKey is needed");
    if (!key.usages.includes(usage)) throw new DOMException(`The key is not for ${usage}.`, "InvalidAccessError");
    return [key.algorithm.hash.name, secrets.get(key)];
  }

  // The bytes as they are now: who calls may change them later.
  const taken = (data) => bytesOf(data ?? null).slice();

  class SubtleCrypto {
    async digest(algorithm, data) {
      return digest(hashOf(algorithm), taken(data)).slice().buffer;
    }

    async importKey(format, data, algorithm, extractable, usages) {
      if (nameOf(algorithm) !== "HMAC") unsupported(`"${nameOf(algorithm)}"`);
      if (format !== "raw" && format !== "jwk") unsupported(`The key format "${format}"`);
      const bytes = format === "raw" ? taken(data) : Uint8Array.fromBase64(`${data.k}`, { alphabet: "base64url" });
      if (!bytes.length) throw new DOMException("The key is empty.", "DataError");
      return newKey(bytes, hashOf(algorithm.hash), extractable, usages);
    }

    async generateKey(algorithm, extractable, usages) {
      if (nameOf(algorithm) !== "HMAC") unsupported(`"${nameOf(algorithm)}"`);
      const hash = hashOf(algorithm.hash);
      return newKey(fill(new Uint8Array(algorithm.length ? algorithm.length / 8 : BLOCK[hash])), hash, extractable, usages);
    }

    async exportKey(format, key) {
      if (!secrets.has(key)) throw new TypeError("a CryptoKey is needed");
      if (!key.extractable) throw new DOMException("The key is not extractable.", "InvalidAccessError");
      const bytes = secrets.get(key);
      if (format === "raw") return bytes.slice().buffer;
      if (format !== "jwk") unsupported(`The key format "${format}"`);
      return {
        kty: "oct", k: bytes.toBase64({ alphabet: "base64url", omitPadding: true }),
        alg: key.algorithm.hash.name.replace("SHA-", "HS"), key_ops: [...key.usages], ext: true,
      };
    }

    async sign(algorithm, key, data) {
      const [hash, secret] = keyFor("sign", algorithm, key);
      return hmac(hash, secret, taken(data)).slice().buffer;
    }

    async verify(algorithm, key, signature, data) {
      const [hash, secret] = keyFor("verify", algorithm, key);
      const expected = hmac(hash, secret, taken(data)), given = taken(signature);
      let wrong = expected.length ^ given.length;
      expected.forEach((byte, i) => { wrong |= byte ^ given[i]; });
      return wrong === 0;
    }
  }

  for (const [name, does] of Object.entries({
    encrypt: "Encrypting", decrypt: "Decrypting", deriveBits: "Deriving", deriveKey: "Deriving", wrapKey: "Wrapping", unwrapKey: "Unwrapping",
  })) {
    host.define(SubtleCrypto.prototype, { [name]: async () => unsupported(does) });
  }

  host.platform(Crypto);
  const crypto = new Crypto();
  if (!host.data.pure) {
    host.platform(SubtleCrypto);
    host.platform(CryptoKey);
    host.define(crypto, { subtle: new SubtleCrypto() });
  }
  host.define(global, { crypto });
})
