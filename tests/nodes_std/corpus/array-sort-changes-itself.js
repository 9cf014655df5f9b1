// A comparator that empties, grows, freezes and replaces the list it sorts.
const answers = [];
for (const change of [(a) => { a.length = 0; }, (a) => { a.push(...Array(1000).fill({})); }, (a) => Object.freeze(a), (a) => a.splice(0, 5), (a) => { a.length = 1e6; },
  (a) => Object.defineProperty(a, 3, {get() { a.length = 0; return 1; }})]) {
  const list = Array.from({length: 300}, (_, i) => ({i: (i * 7919) % 300}));
  let count = 0;
  try { list.sort((x, y) => { if (++count === 50) change(list); return (x?.i ?? 0) - (y?.i ?? 0); }); answers.push(list.length); } catch (error) { answers.push(error.name); }
}
return answers;
