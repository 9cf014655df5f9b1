// quickjs-ng #1296, #1305: the getter of `prototype` shrinks the buffer while a view of it is made.
const buffer = new ArrayBuffer(64, {maxByteLength: 4096});
const source = new Uint8Array(buffer);
const shrink = new Proxy(function () {}, {get(target, key) { if (key === 'prototype') buffer.resize(0); return Reflect.get(target, key); }});
const made = [buffer, source].map((from) => { buffer.resize(64); return Reflect.construct(Uint8Array, [from], shrink); });
return made.map((view) => { Reflect.setPrototypeOf(view, Uint8Array.prototype); return [view.length, ...view.subarray(0, 4)]; });
