// Traps that lie, that change their target, and that revoke their own proxy.
const answers = [];
for (const trap of Reflect.ownKeys(Reflect)) {
  if (typeof trap !== 'string') continue;
  for (const lie of [undefined, null, 1, {}, [], [Symbol.iterator, 'a', 'a'], true, () => 1]) {
    const target = Object.preventExtensions(function f() {});
    const pair = Proxy.revocable(target, {[trap]() { pair.revoke(); return lie; }});
    for (const use of [() => ({...pair.proxy}), () => Object.keys(pair.proxy), () => pair.proxy(), () => new pair.proxy(), () => delete pair.proxy.a, () => Object.freeze(pair.proxy), () => pair.proxy instanceof pair.proxy, () => { pair.proxy.x = 1; }, () => { for (const k in pair.proxy); }, () => JSON.stringify(pair.proxy), () => Reflect.getPrototypeOf(pair.proxy), () => Object.defineProperty(pair.proxy, 'a', {value: 1})]) {
      try { answers.push(typeof use()); } catch (error) { answers.push(error.name); }
    }
  }
}
return answers.length;
