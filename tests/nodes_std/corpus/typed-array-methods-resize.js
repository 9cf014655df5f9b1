// Every method of typed arrays converts its arguments; each conversion may resize or transfer the buffer.
const answers = [];
for (const name of Object.getOwnPropertyNames(Uint8Array.prototype.__proto__)) {
  if (name === 'constructor') continue;
  for (const size of [0, 1, 4096]) {
    const buffer = new ArrayBuffer(256, {maxByteLength: 4096});
    const view = new Uint8Array(buffer, 8);
    const change = {valueOf() { buffer.resize(size); return 2; }, toString() { buffer.resize(size); return '1'; }};
    const call = (...given) => { buffer.resize(size); return given.length; };
    for (const given of [[change, change, change], [call, change], [change], [[1, change, 3], change]]) {
      buffer.resize(256);
      try { answers.push(typeof view[name](...given)); } catch (error) { answers.push(error.name); }
    }
  }
}
return answers.length;
