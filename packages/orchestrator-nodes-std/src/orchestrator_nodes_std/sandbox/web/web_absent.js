// What stands for URL, TextEncoder, Buffer, crypto and the like in an image without them; see intl_absent.js.
(function (host) {
  "use strict";

  const { global } = host;
  const { defineProperty } = Object;
  const needs = new Uint32Array(host.needs);
  const names = ["TextEncoder", "TextDecoder", "Buffer", "URL", "URLSearchParams", "crypto", "Crypto"];
  if (!host.data.pure) names.push("SubtleCrypto", "CryptoKey");

  for (const name of names) {
    defineProperty(global, name, {
      get() {
        needs[0] |= host.data.web;
        throw new TypeError(`${name} is not loaded`);
      },
      set: host.data.pure ? undefined : (value) => {
        defineProperty(global, name, { value, writable: true, enumerable: true, configurable: true });
      },
      configurable: true,
    });
  }
})
