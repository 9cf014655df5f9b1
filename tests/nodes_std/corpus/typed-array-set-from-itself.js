// A source whose elements are getters that shrink the target.
const buffer = new ArrayBuffer(1024, {maxByteLength: 1024});
const target = new Float64Array(buffer);
const source = {length: 100};
for (let i = 0; i < 100; i++) Object.defineProperty(source, i, {get() { if (i === 5) buffer.resize(16); return i; }});
try { target.set(source); } catch {}
buffer.resize(1024);
target.set(target.subarray(3, 50), 1);
return [...target.slice(0, 3)];
