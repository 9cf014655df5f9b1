// quickjs-ng #1297: a comparator shrinks the buffer that is being sorted.
const found = [];
for (let trigger = 1; trigger < 400; trigger += 7) {
  const buffer = new ArrayBuffer(256, {maxByteLength: 2560});
  const bytes = new Uint8Array(buffer);
  for (let i = 0; i < 256; i++) bytes[i] = 255 - i;
  let count = 0;
  bytes.sort((a, b) => { if (++count === trigger) buffer.resize(3); return a - b; });
  found.push(bytes.length);
}
return found.length;
