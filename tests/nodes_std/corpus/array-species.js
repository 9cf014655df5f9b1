// CVE-2026-44008 and older: the species of a list is a list of another kind, or the list itself.
const answers = [];
for (const species of [Uint8Array, function () { return new Proxy([], {defineProperty: () => true}); }, function (n) { return new Array(n).fill(9); }, Map, undefined, null]) {
  const list = Array.from({length: 100}, (_, i) => i);
  list.constructor = {[Symbol.species]: species};
  for (const name of ['map', 'filter', 'slice', 'splice', 'concat', 'flat', 'flatMap']) {
    try { answers.push(typeof list[name]((x) => [x])); } catch (error) { answers.push(error.name); }
  }
}
const self = [1, 2, 3];
self.constructor = {[Symbol.species]: function () { return self; }};
try { answers.push(self.map((x) => { self.length = 0; return x; }).length); } catch (error) { answers.push(error.name); }
return answers.length;
