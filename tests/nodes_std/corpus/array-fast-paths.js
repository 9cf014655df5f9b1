// Fast arrays that stop being fast in the middle of a built-in function.
const answers = [];
const names = ['concat', 'splice', 'slice', 'copyWithin', 'fill', 'includes', 'indexOf', 'lastIndexOf', 'flat', 'toSpliced', 'with', 'at', 'join', 'unshift', 'push', 'reverse', 'toSorted', 'map', 'reduce'];
for (const name of names) {
  const list = Array.from({length: 200}, (_, i) => ({i}));
  const change = {valueOf() { list.length = 1; list[500] = 1; return 3; }, toString() { list.length = 0; return ','; }};
  for (const given of [[change, change, change], [(x) => { list.length = 0; return x; }, change], [list, change]]) {
    try { const made = list[name](...given); answers.push(Array.isArray(made) ? made.length : typeof made); } catch (error) { answers.push(error.name); }
  }
}
return answers.length;
