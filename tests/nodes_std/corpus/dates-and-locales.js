// Dates far outside of time, and every conversion of them.
const answers = [];
for (const time of [NaN, 8.64e15, -8.64e15, 8.64e15 + 1, 0, -1, 1e300, '9999999-99-99', 'x'.repeat(10000), {valueOf() { return 1e15; }}]) {
  const date = new Date(time);
  for (const name of Object.getOwnPropertyNames(Date.prototype)) for (const given of [[], [1e300], [NaN, -1e9], [2 ** 31, 2 ** 31, 2 ** 31]]) { try { answers.push(typeof date[name](...given)); } catch (error) { answers.push(error.name); } }
}
return answers.length > 100;
