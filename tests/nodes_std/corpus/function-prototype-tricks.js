// `bind`, `apply` and constructors with argument lists that change while they are read.
const answers = [];
const args = {get length() { delete args[1]; return 60000; }, get 1() { return 1; }};
for (const use of [() => Math.max.apply(null, args), () => Reflect.construct(Array, args), () => Function.prototype.bind.apply(function f(a, b) { return new.target; }, args), () => new (class extends Array { constructor(...a) { super(...a, ...a); } })(...Array(1000)),
  () => String.fromCodePoint(...Array.from({length: 30000}, (_, i) => i)), () => new Function(...Array(5000).fill('a'), 'return 1')(), () => Reflect.apply(Array.prototype.push, [], new Array(65535).fill(1))]) {
  try { answers.push(typeof use()); } catch (error) { answers.push(error.name); }
}
return answers.length;
