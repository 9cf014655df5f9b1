// bellard/quickjs #492: `with` keeps a length from before its value was converted.
const buffer = new ArrayBuffer(4096, {maxByteLength: 4096});
const numbers = new Int32Array(buffer);
const all = [];
for (let i = 0; i < 20; i++) {
  buffer.resize(4096);
  try { all.push(numbers.with(0, {valueOf() { buffer.resize(8); return 1; }}).length); } catch (error) { all.push(error.name); }
}
return all;
