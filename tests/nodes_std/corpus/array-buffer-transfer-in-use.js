// A view whose buffer is transferred between the check and the access.
const answers = [];
for (const type of [Int8Array, Float16Array, BigInt64Array, Uint8ClampedArray]) {
  const view = new type(1000);
  const leave = {valueOf() { try { view.buffer.transfer(8); } catch {} return type === BigInt64Array ? 1n : 1; }};
  for (const use of [() => view.fill(leave), () => view.at(leave), () => { view[0] = leave; }, () => view.copyWithin(0, leave), () => view.lastIndexOf(1, leave),
    () => new DataView(view.buffer).setInt32(leave, 1), () => view.subarray(leave).length, () => view.includes(1, leave), () => view.join(leave)]) {
    try { answers.push(typeof use()); } catch (error) { answers.push(error.name); }
  }
}
return answers.length;
