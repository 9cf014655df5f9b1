// Sources at the edges of what the compiler counts: names, locals, constants, jumps, arguments.
const answers = [];
const many = (n, f) => Array.from({length: n}, (_, i) => f(i));
for (const source of [`let ${many(20000, (i) => 'v' + i).join()}; return v19999`, `switch (1) {${many(5000, (i) => `case ${i}: x${i}();`).join('')}}`, `return [${many(70000, (i) => i).join()}].length`,
  `return {${many(20000, (i) => `k${i}: ${i}`).join()}}.k19999`, many(3000, () => 'if (1) {').join('') + '}'.repeat(3000), `return ${many(300, () => '(x => ').join('')}1${')'.repeat(300)}`, `${many(3000, (i) => `l${i}: `).join('')}for (;;) break l0`,
  `return class { ${many(3000, (i) => `#p${i} = ${i}; static [${i}]() {}`).join(';')} }`, `return f(${many(70000, () => '1').join()})`, `const {${many(5000, (i) => `a${i} = ${i}`).join()}} = {}; return a4999`, 'return `' + '${1}'.repeat(20000) + '`.length',
  'try {'.repeat(2000) + '} finally {}'.repeat(2000), 'a'.repeat(1e6), '"' + '\\u{10FFFF}'.repeat(50000) + '".length', 'for (const a of [1]) '.repeat(500) + ';', 'return 1' + '??1'.repeat(50000)]) {
  try { answers.push(typeof Function(source)()); } catch (error) { answers.push(error.name); }
}
return answers.length;
