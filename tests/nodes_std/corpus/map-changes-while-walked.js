// Maps and sets that are cleared, filled and collected while they are walked.
const map = new Map(Array.from({length: 1000}, (_, i) => [{i}, {i}]));
let steps = 0;
for (const [key, value] of map) {
  steps++;
  map.delete(key);
  if (steps % 3 === 0) map.set({steps}, value);
  if (steps === 500) { map.clear(); for (let i = 0; i < 10; i++) map.set(i, i); }
  if (steps > 5000) break;
}
map.forEach((value, key, self) => { self.clear(); self.set(key, value); if (steps++ > 6000) self.clear(); });
const walk = map.entries(); map.clear(); walk.next();
const groups = Map.groupBy([1, 2, 3], (x) => { map.clear(); return {x}; });
const set = new Set([1, 2, 3]);
const other = {size: 3, has(x) { set.clear(); return true; }, keys() { set.clear(); return [1, 2].values(); }};
return [steps > 500, groups.size, ...['union', 'intersection', 'difference', 'symmetricDifference', 'isSubsetOf'].map((name) => { try { return typeof set[name](other); } catch (error) { return error.name; } })];
