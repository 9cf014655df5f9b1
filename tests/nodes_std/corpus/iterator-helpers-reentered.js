// Iterator helpers whose callbacks call, return and throw into the iterator that calls them.
const answers = [];
for (const name of ['map', 'filter', 'flatMap', 'take', 'drop', 'forEach', 'reduce', 'some', 'every', 'find', 'toArray']) {
  let helper;
  const source = {n: 0, next() { if (this.n === 3) try { helper?.return?.(); } catch {} return {value: this.n++, done: this.n > 50}; }, return() { try { helper?.next?.(); } catch {} return {}; }};
  Object.setPrototypeOf(source, Iterator.prototype);
  const call = (x) => { try { helper?.next?.(); } catch {} try { source.return(); } catch {} return [x]; };
  try { helper = source[name](name === 'take' || name === 'drop' ? {valueOf: () => 20} : call); for (let i = 0; i < 60; i++) if (helper?.next) helper.next(); answers.push(typeof helper); } catch (error) { answers.push(error.name); }
}
try { const joined = Iterator.concat?.([1], {[Symbol.iterator]: () => joined}); answers.push(joined ? [...joined].length : 0); } catch (error) { answers.push(error.name); }
return answers.length;
