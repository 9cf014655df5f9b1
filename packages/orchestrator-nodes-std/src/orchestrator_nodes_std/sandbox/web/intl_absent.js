// What stands for Intl in an image without it: every way to it notes that it was needed and throws. The host then runs
// the call again where it is, whether or not user code caught the error.
(function (host) {
  "use strict";

  const { global } = host;

  const needs = new Uint32Array(host.needs);

  function need() {
    needs[0] |= host.data.intl;
    throw new TypeError("Intl is not loaded");
  }

  Object.defineProperty(global, "Intl", { get: need, configurable: true });
  for (const [made, names] of [
    [Array, ["toLocaleString"]], [Object.getPrototypeOf(Uint8Array), ["toLocaleString"]], [Number, ["toLocaleString"]],
    [BigInt, ["toLocaleString"]], [Date, ["toLocaleString", "toLocaleDateString", "toLocaleTimeString"]],
    [String, ["localeCompare", "toLocaleUpperCase", "toLocaleLowerCase"]],
  ]) {
    for (const name of names) host.define(made.prototype, { [name]() { need(); } });
  }
})
