// `ArrayBuffer.prototype.slice` asks a species for the new buffer, which may be the old one, or resized.
const answers = [];
for (const size of [0, 8, 512]) {
  const buffer = new ArrayBuffer(512, {maxByteLength: 1024});
  buffer.constructor = {[Symbol.species]: function (length) { buffer.resize(size); return answers.length % 2 ? buffer : new ArrayBuffer(length); }};
  try { answers.push(buffer.slice(0, 400).byteLength); } catch (error) { answers.push(error.name); }
  try { answers.push(buffer.slice({valueOf() { buffer.resize(4); return 1; }}, 300).byteLength); } catch (error) { answers.push(error.name); }
}
return answers;
