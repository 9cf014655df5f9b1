// A view that follows its buffer, read beyond the end that it had before.
const buffer = new ArrayBuffer(64, {maxByteLength: 1 << 16});
const view = new DataView(buffer, 16);
const answers = [];
for (const size of [64, 8, 1 << 16, 15, 17, 0]) {
  buffer.resize(size);
  for (const name of ['getFloat64', 'getBigInt64', 'getUint8', 'byteLength', 'byteOffset']) {
    try { answers.push(String(typeof view[name] === 'function' ? view[name]({valueOf() { buffer.resize(1); buffer.resize(size); return 5; }}) : view[name])); } catch (error) { answers.push(error.name); }
  }
}
return answers;
