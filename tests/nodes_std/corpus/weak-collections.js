// Weak maps whose keys and values hold each other, with finalizers, under collection.
const weak = new WeakMap(), seen = [];
const registry = new FinalizationRegistry((held) => { seen.push(held); weak.set({}, held); });
for (let round = 0; round < 20; round++) {
  let previous = {};
  for (let i = 0; i < 2000; i++) {
    const key = {pad: new Array(20).fill(i)};
    weak.set(key, {key, previous, ref: new WeakRef(key)});
    registry.register(key, i, key);
    if (i % 3 === 0) registry.unregister(key);
    previous = key;
  }
  await null;
}
return typeof seen.length;
