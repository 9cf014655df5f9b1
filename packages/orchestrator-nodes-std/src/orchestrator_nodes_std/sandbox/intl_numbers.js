// The second script of `Intl`: NumberFormat, and toLocaleString of numbers. Numbers are decimals of any length here: the
// shortest that reads back as the double, as all engines have it (1.005 with two digits is 1.01), or what a BigInt or a
// text says; nothing is rounded twice.
(function (shared) {
  "use strict";

  const { global, data, lazy, pairs, section, resolve, option, integer, optionsObject, numberingSystem, inDigits, pluralOf, formOf } = shared;
  const { BigInt, JSON, Map, Math, Number, Object, RangeError, Reflect, String, Symbol, TypeError } = global;

  // ---- decimals --------------------------------------------------------------------------------------------------

  const MAX_POWER = 5000; // of ten, in texts: numbers beyond it have more digits than anybody reads
  const special = (name, negative) => ({ special: name, negative, c: 0n, e: 0 });

  // {negative, c, e, special}: c * 10^e, or "nan" or "infinity". Takes what Number or BigInt takes; texts keep all digits.
  function decimal(value) {
    if (typeof value === "object" && value !== null) {
      const primitive = value[Symbol.toPrimitive];
      value = typeof primitive === "function" ? Reflect.apply(primitive, value, ["number"]) : value.valueOf();
      if (typeof value === "object" && value !== null) value = String(value);
    }
    if (typeof value === "bigint") return { special: null, negative: value < 0n, c: value < 0n ? -value : value, e: 0 };
    const exact = typeof value === "string" ? /^\s*([+-]?)(\d*)\.?(\d*)(?:e([+-]?\d+))?\s*$/i.exec(value) : null;
    if (exact && (exact[2] || exact[3])) return exactly(exact[1] === "-", exact[2], exact[3], Number(exact[4] ?? 0));
    const number = Number(value);
    if (Number.isNaN(number)) return special("nan", false);
    if (!Number.isFinite(number)) return special("infinity", number < 0);
    const [, whole, fraction = "", power = "0"] = /^(\d+)(?:\.(\d+))?(?:e([+-]\d+))?$/.exec(String(Math.abs(number)));
    return exactly(number < 0 || Object.is(number, -0), whole, fraction, Number(power));
  }

  function exactly(negative, whole, fraction, power) {
    if (Math.abs(power) > MAX_POWER) throw new RangeError(`a number with a power of ten beyond ${MAX_POWER} cannot be formatted`);
    return { special: null, negative, c: BigInt(whole + fraction || "0"), e: power - fraction.length };
  }

  function magnitude({ c, e }) {
    return c === 0n ? 0 : String(c).length - 1 + e;
  }

  // Whether to go up, from what is left: -1, 0, 1 for less than half, half, more; 2 for nothing left.
  const UP = {
    __proto__: null,
    ceil: (half, negative) => !negative, floor: (half, negative) => negative, expand: () => true, trunc: () => false,
    halfCeil: (half, negative) => half > 0 || (half === 0 && !negative), halfFloor: (half, negative) => half > 0 || (half === 0 && negative),
    halfExpand: (half) => half >= 0, halfTrunc: (half) => half > 0, halfEven: (half, negative, even) => half > 0 || (half === 0 && !even),
  };

  // A decimal rounded to a multiple of increment * 10^power.
  function rounded(number, power, mode, increment = 1) {
    if (number.e >= power && increment === 1) return number;
    const shift = number.e - power;
    const c = shift > 0 ? number.c * 10n ** BigInt(shift) : number.c;
    const unit = BigInt(increment) * (shift < 0 ? 10n ** BigInt(-shift) : 1n);
    let times = c / unit;
    const rest = c % unit;
    if (rest !== 0n) {
      const half = rest * 2n < unit ? -1 : rest * 2n === unit ? 0 : 1;
      if (UP[mode](half, number.negative, times % 2n === 0n)) times++;
    }
    return { ...number, c: times * BigInt(increment), e: power };
  }

  // The digits of a decimal before and after the point.
  function digitsOf({ c, e }) {
    const text = String(c);
    if (e >= 0) return { whole: c === 0n ? "0" : text + "0".repeat(e), fraction: "" };
    const padded = text.padStart(1 - e, "0");
    return { whole: padded.slice(0, e), fraction: padded.slice(e) };
  }

  // What ECMA-402's SetNumberFormatDigitOptions says.
  const INCREMENTS = [1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 2500, 5000];

  function digitOptions(given, leastFraction, mostFraction, notation) {
    const minI = integer(given.minimumIntegerDigits, "minimumIntegerDigits", 1, 21, 1);
    let { minimumFractionDigits: minF, maximumFractionDigits: maxF, minimumSignificantDigits: minS, maximumSignificantDigits: maxS } = given;
    const increment = integer(given.roundingIncrement, "roundingIncrement", 1, 5000, 1);
    if (!INCREMENTS.includes(increment)) throw new RangeError(`roundingIncrement value is out of range: it may be ${INCREMENTS.join(", ")}`);
    const mode = option(given, "roundingMode", Object.keys(UP), "halfExpand");
    const priority = option(given, "roundingPriority", ["auto", "morePrecision", "lessPrecision"], "auto");
    const zeros = option(given, "trailingZeroDisplay", ["auto", "stripIfInteger"], "auto");
    if (increment !== 1) mostFraction = leastFraction;
    const hasS = minS !== undefined || maxS !== undefined;
    const hasF = minF !== undefined || maxF !== undefined;
    const needS = priority !== "auto" || hasS;
    const needF = priority !== "auto" || !(needS || (!hasF && notation === "compact"));
    const made = { minI, increment, mode, zeros, kind: "fraction", minF: 0, maxF: 0, minS: 1, maxS: 21 };
    if (needS) {
      made.minS = integer(minS, "minimumSignificantDigits", 1, 21, 1);
      made.maxS = integer(maxS, "maximumSignificantDigits", made.minS, 21, 21);
    }
    if (needF) {
      minF = integer(minF, "minimumFractionDigits", 0, 100, undefined);
      maxF = integer(maxF, "maximumFractionDigits", 0, 100, undefined);
      if (minF !== undefined && maxF !== undefined && minF > maxF) throw new RangeError("maximumFractionDigits value is out of range: it is less than minimumFractionDigits");
      made.minF = minF ?? Math.min(leastFraction, maxF ?? leastFraction);
      made.maxF = maxF ?? Math.max(mostFraction, made.minF);
    }
    if (!needS && !needF) Object.assign(made, { minF: 0, maxF: 0, minS: 1, maxS: 2, kind: "morePrecision", compact: true });
    else if (priority !== "auto") made.kind = priority;
    else if (hasS) made.kind = "significant";
    if (increment !== 1) {
      if (made.kind !== "fraction") throw new TypeError("roundingIncrement works with fraction digits only");
      if (made.minF !== made.maxF) throw new RangeError("roundingIncrement needs minimumFractionDigits and maximumFractionDigits to be equal");
    }
    return made;
  }

  function resolvedDigits(digits) {
    const made = { minimumIntegerDigits: digits.minI };
    if (digits.kind !== "significant") Object.assign(made, { minimumFractionDigits: digits.minF, maximumFractionDigits: digits.maxF });
    if (digits.kind !== "fraction") Object.assign(made, { minimumSignificantDigits: digits.minS, maximumSignificantDigits: digits.maxS });
    return made;
  }

  function resolvedRounding(digits) {
    return {
      roundingIncrement: digits.increment, roundingMode: digits.mode,
      roundingPriority: digits.kind.endsWith("Precision") ? digits.kind : "auto", trailingZeroDisplay: digits.zeros,
    };
  }

  // {whole, fraction, number}: the digits that are shown, and the decimal that they are.
  function roundedDigits(number, digits) {
    const bySignificant = () => {
      const made = rounded(number, magnitude(number) - digits.maxS + 1, digits.mode);
      return { made, least: Math.max(0, digits.minS - 1 - magnitude(made)) };
    };
    const byFraction = () => ({ made: rounded(number, -digits.maxF, digits.mode, digits.increment), least: digits.minF });
    let chosen;
    if (digits.kind === "fraction") chosen = byFraction();
    else if (digits.kind === "significant") chosen = bySignificant();
    else {
      const finer = magnitude(number) - digits.maxS + 1 <= -digits.maxF;
      chosen = finer === (digits.kind === "morePrecision") ? bySignificant() : byFraction();
    }
    let { whole, fraction } = digitsOf(chosen.made);
    fraction = fraction.replace(/0+$/, "").padEnd(chosen.least, "0");
    if (digits.zeros === "stripIfInteger" && /^0*$/.test(fraction)) fraction = "";
    return { whole: whole.padStart(digits.minI, "0"), fraction, number: chosen.made };
  }

  // ---- patterns --------------------------------------------------------------------------------------------------

  const patternCache = new Map();

  // {prefix, suffix: tokens, negative: the same for negative numbers or null, primary, secondary: sizes of groups}.
  function parsePattern(text) {
    let found = patternCache.get(text);
    if (found) return found;
    const parts = [[]];
    let quoted = false;
    for (let i = 0; i < text.length; i++) {
      const character = text[i];
      const tokens = parts[parts.length - 1];
      if (character === "'") {
        if (text[i + 1] === "'") tokens.push(["literal", text[i++]]);
        else quoted = !quoted;
      } else if (quoted) tokens.push(["literal", character]);
      else if (character === ";") parts.push([]);
      else if ("#0,.".includes(character)) tokens.push(["number", character]);
      else if (character === "E" && text[i + 1] === "0") tokens.push(["exponent", character]);
      else tokens.push([{ "¤": "currency", "%": "percent", "-": "minus", "+": "plus" }[character] ?? "literal", character]);
    }
    const [positive, negative] = parts.map(affixes);
    const groups = positive.body.split(".")[0].split(",");
    const primary = groups.length > 1 ? groups[groups.length - 1].length : 0;
    found = {
      ...positive, negative: negative ?? null, primary, secondary: groups.length > 2 ? groups[groups.length - 2].length : primary,
      zeros: (/0+/.exec(positive.body) ?? [""])[0].length,
    };
    patternCache.set(text, found);
    return found;
  }

  function affixes(tokens) {
    const inside = (token) => token[0] === "number" || token[0] === "exponent";
    const first = tokens.findIndex(inside);
    const last = tokens.findLastIndex(inside);
    if (first < 0) return { prefix: tokens, suffix: [], body: "" };
    return {
      prefix: tokens.slice(0, first), suffix: tokens.slice(last + 1),
      body: tokens.slice(first, last + 1).filter((token) => token[0] === "number").map((token) => token[1]).join(""),
    };
  }

  // Which tokens stand around a number of this sign. `sign`: "", "-" or "+".
  function signed(pattern, sign) {
    const hasMinus = pattern.negative !== null && [...pattern.negative.prefix, ...pattern.negative.suffix].some((token) => token[0] === "minus");
    if (pattern.negative !== null && (sign === "-" || (sign === "+" && hasMinus))) {
      const turned = (tokens) => (sign === "-" ? tokens : tokens.map((token) => (token[0] === "minus" ? ["plus", "+"] : token)));
      return { prefix: turned(pattern.negative.prefix), suffix: turned(pattern.negative.suffix) };
    }
    if (!sign) return pattern;
    return { prefix: [[sign === "-" ? "minus" : "plus", sign], ...pattern.prefix], suffix: pattern.suffix };
  }

  // A letter or digit of a currency's symbol does not touch a digit: a space that does not break comes between.
  const TOUCHES = /[\p{S}\p{Z}]/u;
  const DIGIT_FIRST = /^\p{Nd}/u;
  const DIGIT_LAST = /\p{Nd}$/u;

  // Marks of direction that come with a sign are not part of it.
  function signParts(type, text) {
    const [, left, inner, right] = /^([\u200e\u200f\u061c]*)(.*?)([\u200e\u200f\u061c]*)$/u.exec(text);
    return [["literal", left], [type, inner], ["literal", right]].filter((item) => item[1]).map(([kind, value]) => ({ type: kind, value }));
  }

  function affixParts(tokens, format, before, number) {
    const parts = [];
    const add = (type, value) => {
      const last = parts[parts.length - 1];
      if (type === "literal" && last?.type === "literal") last.value += value;
      else if (value) parts.push({ type, value });
    };
    const sign = (type, text) => {
      for (const part of signParts(type, text)) add(part.type, part.value);
    };
    for (let i = 0; i < tokens.length; i++) {
      const [type, text] = tokens[i];
      if (type === "currency") {
        const symbol = format.symbol;
        if (!before && i === 0 && DIGIT_LAST.test(number) && !TOUCHES.test([...symbol][0])) add("literal", "\u00a0");
        add("currency", symbol);
        if (before && i === tokens.length - 1 && DIGIT_FIRST.test(number) && !TOUCHES.test([...symbol].pop())) add("literal", "\u00a0");
      } else if (type === "percent") sign(format.percent ? "unit" : "percentSign", format.symbols[2]);
      else if (type === "plus") sign("plusSign", format.symbols[3]);
      else if (type === "minus") sign("minusSign", format.symbols[4]);
      else add("literal", text);
    }
    return parts;
  }

  // ---- formatting ------------------------------------------------------------------------------------------------

  function digitParts(format, whole, fraction, pattern) {
    const parts = [];
    const [point, group] = format.separators;
    const least = format.grouping === "always" ? 1 : format.grouping === "min2" ? Math.max(2, format.leastGroup) : format.leastGroup;
    const pieces = [];
    let rest = whole;
    if (format.grouping !== false && pattern.primary && whole.length >= pattern.primary + least) {
      for (let size = pattern.primary; rest.length > size; size = pattern.secondary) {
        pieces.unshift(rest.slice(rest.length - size));
        rest = rest.slice(0, rest.length - size);
      }
    }
    pieces.unshift(rest);
    pieces.forEach((piece, i) => {
      if (i) parts.push({ type: "group", value: group });
      parts.push({ type: "integer", value: inDigits(piece, format.system) });
    });
    if (fraction) parts.push({ type: "decimal", value: point }, { type: "fraction", value: inDigits(fraction, format.system) });
    return parts;
  }

  // Spaces at the ends of a text stand outside of what it is.
  function spaced(text, type) {
    const [, before, inner, after] = /^(\s*)(.*?)(\s*)$/su.exec(text);
    return [["literal", before], [type, inner], ["literal", after]].filter((item) => item[1]).map(([kind, value]) => ({ type: kind, value }));
  }

  function scientific(format, number) {
    const step = format.notation === "engineering" ? 3 : 1;
    const powerOf = (value) => Math.floor(magnitude(value) / step) * step;
    let power = powerOf(number);
    let shown = roundedDigits({ ...number, e: number.e - power }, format.digits);
    if (shown.number.c !== 0n && powerOf(shown.number) > 0) {
      power += step;
      shown = roundedDigits({ ...number, e: number.e - power }, format.digits);
    }
    const parts = digitParts(format, shown.whole, shown.fraction, { primary: 0 });
    parts.push({ type: "exponentSeparator", value: format.symbols[5] });
    if (power < 0) parts.push(...signParts("exponentMinusSign", format.symbols[4]));
    parts.push({ type: "exponentInteger", value: inDigits(String(Math.abs(power)), format.system) });
    return { parts, shown, power: 0, pattern: null };
  }

  // A compact number: thousands and so on, as the language counts them. The pattern depends on the rounded number.
  function compact(format, number) {
    const table = format.compactTable;
    const entry = (size, category) => {
      if (size < 3) return "0";
      const list = table[category] ?? table.other;
      return (list ?? [])[Math.min(size, 14) - 3] ?? "0";
    };
    const attempt = (size) => {
      const { zeros } = parsePattern(entry(size, "other"));
      const power = entry(size, "other") === "0" ? 0 : Math.min(size, 14) - zeros + 1;
      const shown = roundedDigits({ ...number, e: number.e - power }, format.digits);
      return { power, shown, size: magnitude(shown.number) + power };
    };
    let size = magnitude(number);
    let made = attempt(size);
    if (made.shown.number.c !== 0n && made.size > size) made = attempt((size = made.size));
    const category = pluralOf(format.tag, "cardinal", made.shown.whole, made.shown.fraction);
    const chosen = made.power ? parsePattern(entry(size, category)) : null;
    const base = parsePattern(format.pattern);
    const parts = digitParts(format, made.shown.whole, made.shown.fraction, base);
    if (chosen === null) return { parts, shown: made.shown, power: 0, pattern: null };
    if (format.style !== "currency" || format.display === "name") {
      const text = (tokens) => tokens.map((token) => token[1]).join("");
      return {
        parts: [...spaced(text(chosen.prefix), "compact"), ...parts, ...spaced(text(chosen.suffix), "compact")],
        shown: made.shown, power: made.power, pattern: null,
      };
    }
    return { parts, shown: made.shown, power: made.power, pattern: chosen };
  }

  // In the affixes of a compact currency pattern, what is not the currency is the compact word.
  function compactAffixes(parts) {
    return parts.flatMap((part) => (part.type === "literal" ? spaced(part.value, "compact") : [part]));
  }

  function numberParts(format, value) {
    let number = decimal(value);
    if (format.style === "percent" && !number.special) number = { ...number, e: number.e + 2 };
    let made;
    if (number.special) {
      const at = number.special === "nan" ? 7 : 6;
      made = { parts: [{ type: number.special, value: format.symbols[at] }], shown: null, power: 0, pattern: null };
    } else if (format.notation === "compact") made = compact(format, number);
    else if (format.notation !== "standard") made = scientific(format, number);
    else {
      const shown = roundedDigits(number, format.digits);
      made = { parts: digitParts(format, shown.whole, shown.fraction, parsePattern(format.pattern)), shown, power: 0, pattern: null };
    }
    const sign = signOf(format, number, made.shown);
    const affix = signed(made.pattern ? withNegative(made.pattern, format) : parsePattern(format.pattern), sign);
    const text = joined(made.parts);
    let before = affixParts(affix.prefix, format, true, text);
    let after = affixParts(affix.suffix, format, false, text);
    if (made.pattern) [before, after] = [compactAffixes(before), compactAffixes(after)];
    const parts = [...before, ...made.parts, ...after];
    const category = made.shown ? pluralOf(format.tag, "cardinal", made.shown.whole, made.shown.fraction, made.power) : "other";
    if (format.style === "unit" && !format.percent) return withUnit(format, parts, category);
    if (format.style === "currency" && format.display === "name") return withName(format, parts, category);
    return parts;
  }

  // Accounting writes negative compact amounts in parentheses where it writes negative amounts so.
  function withNegative(pattern, format) {
    const own = parsePattern(format.pattern);
    if (own.negative === null || !own.negative.prefix.some((token) => token[1] === "(")) return pattern;
    return { ...pattern, negative: { prefix: [["literal", "("], ...pattern.prefix], suffix: [...pattern.suffix, ["literal", ")"]] } };
  }

  function signOf(format, number, shown) {
    const zero = number.special === "nan" || (number.special === null && shown.number.c === 0n);
    switch (format.sign) {
      case "never": return "";
      case "always": return number.negative ? "-" : "+";
      case "exceptZero": return zero ? "" : number.negative ? "-" : "+";
      case "negative": return number.negative && !zero ? "-" : "";
      default: return number.negative ? "-" : "";
    }
  }

  // `{0} kilometers` around the parts of a number.
  function around(pattern, parts, type) {
    const at = pattern.indexOf("{0}");
    if (at < 0) return spaced(pattern, type);
    return [...spaced(pattern.slice(0, at), type), ...parts, ...spaced(pattern.slice(at + 3), type)];
  }

  function withUnit(format, parts, category) {
    const units = section(format.tag, "unit");
    const at = ["long", "short", "narrow"].indexOf(format.unitDisplay);
    const forms = (name) => units[name][at].split("||");
    if (units[format.unit]) return around(formOf(format.tag, forms(format.unit)[0], category), parts, "unit");
    const [left, right] = format.unit.split("-per-");
    const pattern = formOf(format.tag, forms(left)[0], category);
    const [rightForms, per] = forms(right);
    if (per) return around(per.replace("{0}", pattern), parts, "unit");
    const single = formOf(format.tag, rightForms, "one").replace("{0}", "").trim();
    return around(units.per[at].replace("{0}", pattern).replace("{1}", single), parts, "unit");
  }

  function withName(format, parts, category) {
    const { u } = section(format.tag, "number");
    const at = data.currencies.split(" ").indexOf(format.currency);
    const names = at < 0 ? 0 : section(format.tag, "currency")[at];
    if (!names) throw new RangeError(`The name of the currency ${format.currency} is not known in ${format.locale}: use currencyDisplay "code"`);
    const [name, ...forms] = names.split("|");
    const shown = forms.length ? formOf(format.tag, forms.join("|"), category) || name : name;
    return around((u[category] ?? u.other).replace("{1}", shown), parts, "currency");
  }

  // ---- Intl.NumberFormat -----------------------------------------------------------------------------------------

  const fractions = lazy(() => pairs(data.digits));
  const units = lazy(() => Object.keys(section("en", "unit")).filter((name) => name !== "per" && !name.includes("-per-")).sort());

  function currencyCode(given) {
    const text = given.currency;
    if (text === undefined) return undefined;
    if (!/^[a-z]{3}$/i.test(String(text))) throw new RangeError(`Invalid currency code : ${String(text)}: it is three letters such as EUR`);
    return String(text).toUpperCase();
  }

  function unitName(given) {
    if (given.unit === undefined) return undefined;
    const unit = String(given.unit);
    const parts = unit.split("-per-");
    if (parts.length > 2 || !parts.every((part) => units().includes(part))) {
      throw new RangeError(`Invalid unit argument for Intl.NumberFormat(): ${unit}: it may be one of ${units().join(", ")}, or one -per- another`);
    }
    return unit;
  }

  function grouping(given, notation) {
    const value = given.useGrouping;
    const fallback = notation === "compact" ? "min2" : "auto";
    if (value === undefined) return fallback;
    if (value === true) return "always";
    if (value === false || value === null || value === 0 || value === "" || Number.isNaN(value)) return false;
    const text = String(value);
    if (text === "true" || text === "false") return fallback;
    return option(given, "useGrouping", ["min2", "auto", "always"], fallback);
  }

  function makeFormat(locales, options) {
    const found = resolve(locales);
    const given = optionsObject(options);
    option(given, "localeMatcher", ["lookup", "best fit"], "best fit");
    const system = numberingSystem(found, given.numberingSystem);
    const style = option(given, "style", ["decimal", "percent", "currency", "unit"], "decimal");
    const currency = currencyCode(given);
    const display = option(given, "currencyDisplay", ["code", "symbol", "narrowSymbol", "name"], "symbol");
    const currencySign = option(given, "currencySign", ["standard", "accounting"], "standard");
    const unit = unitName(given);
    const unitDisplay = option(given, "unitDisplay", ["short", "narrow", "long"], "short");
    if (style === "currency" && currency === undefined) throw new TypeError("Currency code is required with currency style.");
    if (style === "unit" && unit === undefined) throw new TypeError("Unit is required with unit style.");
    const notation = option(given, "notation", ["standard", "scientific", "engineering", "compact"], "standard");
    const digitsOfCurrency = Number(fractions().get(currency) ?? fractions().get("DEFAULT"));
    const money = style === "currency" && notation === "standard";
    const digits = digitOptions(given, money ? digitsOfCurrency : 0, money ? digitsOfCurrency : style === "percent" ? 0 : 3, notation);
    const compactDisplay = option(given, "compactDisplay", ["short", "long"], "short");
    const group = grouping(given, notation);
    const sign = option(given, "signDisplay", ["auto", "never", "always", "exceptZero", "negative"], "auto");
    const numbers = section(found.tag, "number");
    if (style === "percent" && notation === "compact") throw new RangeError('notation "compact" is not supported with style "percent": divide and format the number itself');
    const format = {
      locale: found.locale, tag: found.tag, system, style, currency, display, currencySign, unit, unitDisplay, notation, digits, compactDisplay,
      grouping: group, sign, symbols: numbers.s[system] ?? numbers.s.latn, leastGroup: section(found.tag, "more").g, keys: found.keys,
      pattern: numbers.d, symbol: "", separators: numbers.s[system] ?? numbers.s.latn,
    };
    const separators = section(found.tag, "more").c; // two for numbers, two for money
    if (system === "latn" || !numbers.s[system]) format.separators = style === "currency" ? separators.slice(2) : separators;
    // A percent that is a unit is written as the style percent is, unless it is spelled out.
    format.percent = style === "unit" && unit === "percent" && unitDisplay !== "long";
    if (style === "percent" || format.percent) format.pattern = numbers.p;
    if (style === "currency" && display !== "name") {
      format.pattern = numbers.m[system] ?? (currencySign === "accounting" ? numbers.a : numbers.c);
      format.symbol = symbolOf(format);
    }
    format.compactTable = style === "currency" && display !== "name" ? numbers.kc : compactDisplay === "long" ? numbers.kl : numbers.ks;
    return format;
  }

  const usualNarrow = lazy(() => JSON.parse(data["*/narrow"]));

  function symbolOf({ tag, currency, display }) {
    if (display === "code") return currency;
    if (display === "symbol") return section(tag, "symbol")[currency] ?? currency;
    return section(tag, "narrow")?.[currency] ?? usualNarrow()[currency] ?? currency;
  }

  function joined(parts) {
    let text = "";
    for (const part of parts) text += part.value;
    return text;
  }

  class NumberFormat {
    #format;
    #bound;
    constructor(locales = undefined, options = undefined) {
      this.#format = makeFormat(locales, options);
    }
    get format() {
      return (this.#bound ??= (value) => joined(numberParts(this.#format, value)));
    }
    formatToParts(value) {
      return numberParts(this.#format, value);
    }
    formatRange() {
      throw new TypeError("Intl.NumberFormat.prototype.formatRange is not supported: format both ends and join them");
    }
    formatRangeToParts() {
      throw new TypeError("Intl.NumberFormat.prototype.formatRangeToParts is not supported: format both ends and join them");
    }
    resolvedOptions() {
      const format = this.#format;
      const made = { locale: format.locale, numberingSystem: format.system, style: format.style };
      if (format.style === "currency") Object.assign(made, { currency: format.currency, currencyDisplay: format.display, currencySign: format.currencySign });
      if (format.style === "unit") Object.assign(made, { unit: format.unit, unitDisplay: format.unitDisplay });
      Object.assign(made, resolvedDigits(format.digits), { useGrouping: format.grouping, notation: format.notation });
      if (format.notation === "compact") made.compactDisplay = format.compactDisplay;
      return Object.assign(made, { signDisplay: format.sign }, resolvedRounding(format.digits));
    }
  }

  shared.install("NumberFormat", NumberFormat, true);

  const { valueOf: numberValue } = global.Number.prototype;
  const { valueOf: bigValue } = global.BigInt.prototype;
  shared.method(global.Number.prototype, {
    toLocaleString(locales = undefined, options = undefined) {
      return joined(numberParts(makeFormat(locales, options), Reflect.apply(numberValue, this, [])));
    },
  });
  shared.method(global.BigInt.prototype, {
    toLocaleString(locales = undefined, options = undefined) {
      return joined(numberParts(makeFormat(locales, options), Reflect.apply(bigValue, this, [])));
    },
  });

  Object.assign(shared, { decimal, digitOptions, resolvedDigits, roundedDigits, makeFormat, numberParts, joined });
  Object.defineProperty(shared, "units", { get: units });
})
