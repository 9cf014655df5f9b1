// Generators that are resumed, ended and collected from inside of themselves.
const answers = [];
let generator;
const inner = {[Symbol.iterator]() { return this; }, next() { try { generator.next(); } catch (error) { answers.push(error.name); } return {value: 1, done: answers.length > 20}; }, return() { try { generator.return(1); } catch {} return {}; }, get throw() { try { generator.throw(1); } catch {} return undefined; }};
generator = (function* () { try { yield* inner; } finally { yield* [1, 2]; } })();
for (let i = 0; i < 30; i++) { try { generator.next(); if (i === 9) generator.throw(new Error('x')); } catch (error) { answers.push(error.name); } }
const async = (async function* () { try { yield 1; await async.next(); } finally { await async.return(2); } })();
async.next(); async.throw(1).catch(() => {}); async.return({then(done) { done(async.next()); }}).catch(() => {});
await null;
return answers.length > 0;
