// A pattern that is compiled anew, or loses its `lastIndex`, while it runs.
const answers = [];
const pattern = /a(b)?/g;
const odd = {valueOf() { pattern.compile('(x)(y)(z)(w)?', 'y'); return 1; }, toString() { pattern.compile('', 'g'); return 'abab'; }};
for (const use of [() => { pattern.lastIndex = odd; return pattern.exec('abababxyz'); }, () => 'abab'.replace(pattern, () => { pattern.compile('(((((q)))))?'); return odd; }),
  () => pattern[Symbol.replace]({toString() { return odd.toString(); }}, odd), () => [...'abab'.matchAll(pattern)], () => 'ab'.split(pattern, odd), () => pattern.test(odd),
  () => RegExp.prototype[Symbol.split].call(Object.assign(/b/, {constructor: {[Symbol.species]: function () { return pattern; }}}), 'abab')]) {
  try { answers.push(typeof use()); } catch (error) { answers.push(error.name); }
}
return answers.length;
