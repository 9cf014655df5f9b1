// The largest and strangest numbers for every function of texts, numbers and BigInts.
const odd = [0, -0, -1, 1, NaN, Infinity, -Infinity, 2 ** 31, -(2 ** 31), 2 ** 32, 2 ** 53, 1e308, 5e-324, '', 'x', '\ud800', null, undefined, {}, [], 1n, -(2n ** 64n), Symbol.iterator];
let count = 0;
for (const value of ['abc\udfff', 1.5, 10n ** 30n]) {
  for (let holder = Object(value).__proto__; holder; holder = null) for (const name of Object.getOwnPropertyNames(holder)) {
    if (name === 'repeat' || name.startsWith('pad') || name === 'constructor') continue;
    for (const a of odd) for (const b of [odd[count % odd.length], undefined]) { try { value[name](a, b, a); } catch {} count++; }
  }
}
for (const name of Object.getOwnPropertyNames(Math)) if (typeof Math[name] === 'function') for (const a of odd) for (const b of odd) { try { Math[name](a, b); } catch {} count++; }
return count > 1000;
