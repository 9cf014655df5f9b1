// The last script of `Intl`: Collator, ListFormat, RelativeTimeFormat, DisplayNames, Segmenter, and what of String and
// Array depends on a language.
(function (shared) {
  "use strict";

  const { global, data, lazy, section, parents, parseTag, baseOf, canonicalList, resolve, option, flag, optionsObject, numberingSystem, pluralOf, formOf, joined } = shared;
  const { Array, JSON, Map, Math, Number, Object, RangeError, Reflect, RegExp, Set, String, Symbol, TypeError } = global;

  // ---- Intl.Collator ---------------------------------------------------------------------------------------------

  // The order of CLDR's root, by text in normal form D: a list of [primary, secondary, tertiary, capital] for each letter, accent
  // and sign. `own` says what a language does otherwise.
  const tables = new Map();
  const root = lazy(() => JSON.parse(data["*/collation"]));
  const NONE = { __proto__: null };

  function tableOf(tag) {
    let own = NONE;
    for (let at = tag; at; at = parents().get(at)) {
      if (data[`${at}/collation`] === undefined) continue;
      own = JSON.parse(data[`${at}/collation`]);
      break;
    }
    const language = tag.split("-")[0];
    const key = own === NONE ? (["zh", "ja", "ko"].includes(language) ? language : "") : tag;
    if (!tables.has(key)) tables.set(key, makeTable(own, language));
    return tables.get(key);
  }

  function makeTable(own, language) {
    const { order, same } = root();
    const marks = own.marks ?? root().marks;
    const table = { map: new Map(), own, longest: 1, language, digit: 0, variable: new Set() };
    const groups = order.split(" ").map((group) => group.split(",").map((code) => String.fromCodePoint(Number.parseInt(code, 36))));
    const digits = groups.findIndex((group) => group[0] === "9");
    table.digit = (groups.findIndex((group) => group[0] === "0") + 1) * 1000;
    table.first = digits * 1000 + 1500;
    const script = own.first && new RegExp(`^\\p{Script=${own.first}}`, "u");
    groups.forEach((group, at) => {
      const primary = script?.test(group[0]) ? table.first + at / 2 : (at + 1) * 1000;
      group.forEach((item, tertiary) => table.map.set(item, [[primary, 0, tertiary, capital(item)]]));
      if (/^[\s\p{P}]$/u.test(group[0])) table.variable.add(primary);
    });
    [...marks].forEach((mark, at) => table.map.set(mark, [[0, at + 1, 0, 0]]));
    const known = (text) => [...text].flatMap((item) => (item === "\x01" ? [[0, 500, 0, 0]] : table.map.get(item)));
    for (const item of Object.keys(same)) table.map.set(item, known(same[item]));
    for (const run of root().units.split(" ")) if (run) tailor(table, run, 0.3); // behind what a language puts there
    for (const run of (own.units ?? "").split(" ")) if (run) tailor(table, run, 0);
    if (language === "tr") {
      // The dotless i has a place of its own, and the capitals go with the letters that they are of.
      const [before] = table.map.get("h");
      table.map.set("ı", [[before[0] + 0.01, 0, 0, 0]]).set("I", [[before[0] + 0.01, 0, 1, 1]]);
      table.map.set("I\u0307", [[table.map.get("i")[0][0], 0, 1, 1]]);
    }
    return table;
  }

  function capital(text) {
    return text === text.toLowerCase() ? 0 : 1;
  }

  // A run such as `z<å<ä,æ`: after z come å, then ä, and æ as a variant of it.
  function tailor(table, run, further) {
    const [letter, ...places] = run.split("<");
    const [[after]] = table.map.get(letter);
    places.forEach((place, number) => {
      place.split(",").forEach((unit, secondary) => {
        if (!unit) return;
        const primary = place.startsWith(",") ? after : after + (number + 1) / 100 + further;
        const forms = [unit, unit[0].toUpperCase() + unit.slice(1), unit.toUpperCase()].map((form) => form.normalize("NFD"));
        forms.forEach((form, tertiary) => {
          if (tertiary && form === forms[0]) return;
          table.longest = Math.max(table.longest, form.length);
          table.map.set(form, [[primary, secondary ? 600 + secondary : 0, tertiary, tertiary && 1]]);
        });
      });
    });
  }

  const HAN = /^[\u3400-\u4dbf\u4e00-\u9fff]/;
  const HANGUL = /^[\uac00-\ud7a3]/;

  function elements(collator, text) {
    const { table } = collator;
    const found = [];
    for (const piece of text.normalize("NFC").split(/([\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3])/)) {
      if (HANGUL.test(piece)) found.push([(table.language === "ko" ? table.first : 1e7) + piece.charCodeAt(0) / 1e5, 0, 0, 0]);
      else if (HAN.test(piece) && !["zh", "ja", "ko"].includes(table.language)) {
        // Those that Unicode had first come before the extension, which has smaller numbers.
        found.push([2e7 + piece.charCodeAt(0) + (piece < "\u4e00" ? 1e6 : 0), 0, 0, 0]);
      } else if (piece) addElements(collator, piece.normalize("NFD"), found);
    }
    return found;
  }

  function unsorted(text, locale) {
    return new RangeError(
      `The place of ${JSON.stringify(text)} in the order of ${locale} is not known: Intl.Collator and localeCompare sort Latin, Greek, Cyrillic and Hebrew letters, digits and common signs; compare with < and > to sort by code units`);
  }

  function addElements({ table, numeric, ignorePunctuation, locale }, text, found) {
    // Pinyin has its own order of accents.
    if (table.language === "zh" && /[\u0300-\u036f]/.test(text)) throw unsorted(text.normalize("NFC"), locale);
    for (let at = 0; at < text.length;) {
      const number = numeric ? /^[0-9]+/.exec(text.slice(at)) : null;
      if (number) {
        const digits = number[0].replace(/^0+(?=.)/, "");
        found.push([table.digit, 0, 0, 0], [table.digit + digits.length / 1e4, 0, 0, 0]);
        for (const digit of digits) found.push(table.map.get(digit)[0]);
        at += number[0].length;
        continue;
      }
      let size = Math.min(table.longest, text.length - at);
      while (size > 0 && !table.map.has(text.slice(at, at + size))) size--;
      if (size === 0) {
        if (/^[\0-\x08\x0e-\x1f\x7f-\x9f\xad\u200b-\u200f\u2060-\u2064\ufeff]/.test(text.slice(at))) {
          at += 1; // these count for nothing
          continue;
        }
        throw unsorted(String.fromCodePoint(text.codePointAt(at)), locale);
      }
      for (const element of table.map.get(text.slice(at, at + size))) {
        if (!(ignorePunctuation && table.variable.has(element[0]))) found.push(element);
      }
      at += size;
    }
  }

  // The first difference of two lists of elements in one of their weights; those without a primary count for accents only.
  function level(left, right, which) {
    let i = 0;
    let j = 0;
    for (;;) {
      while (i < left.length && left[i][0] === 0) i++;
      while (j < right.length && right[j][0] === 0) j++;
      if (i >= left.length || j >= right.length) return i >= left.length ? (j >= right.length ? 0 : -1) : 1;
      const [x, y] = [left[i++][which], right[j++][which]];
      if (x !== y) return x < y ? -1 : 1;
    }
  }

  function byAccents(left, right, backwards) {
    const [a, b] = [accents(left), accents(right)];
    if (backwards) [a, b].forEach((list) => list.reverse());
    for (let i = 0; i < a.length || i < b.length; i++) {
      const [x, y] = [a[i] ?? -1, b[i] ?? -1];
      if (x !== y) return x < y ? -1 : 1;
    }
    return 0;
  }

  // Accents by letter: 0 for the letter, then those of the marks that follow it, with its own.
  function accents(list) {
    const found = [];
    for (const [primary, secondary] of list) {
      if (primary !== 0) found.push(0);
      if (secondary !== 0) found.push(secondary);
    }
    return found;
  }

  // Sorting compares each text with many others.
  const REMEMBERED = 4000;

  function remembered(collator, text) {
    let found = collator.seen.get(text);
    if (found === undefined) {
      if (collator.seen.size >= REMEMBERED) collator.seen.clear();
      collator.seen.set(text, (found = elements(collator, text)));
    }
    return found;
  }

  function compare(collator, x, y) {
    const [left, right] = [String(x), String(y)];
    if (left === right) return 0;
    const [a, b] = [remembered(collator, left), remembered(collator, right)];
    const { sensitivity, table, caseFirst } = collator;
    const first = level(a, b, 0);
    if (first || sensitivity === "base") return first;
    if (sensitivity !== "case") {
      const second = byAccents(a, b, table.own.backwards === 1);
      if (second || sensitivity === "accent") return second;
    }
    if (sensitivity === "case" || caseFirst !== "false") {
      const capitals = level(a, b, 3);
      if (capitals) return caseFirst === "upper" ? -capitals : capitals;
      if (sensitivity === "case") return 0;
    }
    return level(a, b, 2);
  }

  class Collator {
    #collator;
    #bound;
    constructor(locales = undefined, options = undefined) {
      const found = resolve(locales);
      const given = options === undefined ? { __proto__: null } : Object(options);
      const usage = option(given, "usage", ["sort", "search"], "sort");
      option(given, "localeMatcher", ["lookup", "best fit"], "best fit");
      const asked = option(given, "collation", null, found.keys.get("co")?.join("-") ?? "default");
      if (!["default", "standard", "search", "emoji", "eor"].includes(asked) || asked === "emoji" || asked === "eor") {
        throw new RangeError(`The collation ${asked} is not supported: leave it out`);
      }
      const table = tableOf(found.tag);
      const key = (name) => (found.keys.has(name) ? found.keys.get(name).join("-") || "true" : undefined);
      const numeric = flag(given, "numeric", key("kn") !== undefined && key("kn") !== "false");
      const caseFirst = option(given, "caseFirst", ["upper", "lower", "false"], key("kf") ?? (table.own.upper ? "upper" : "false"));
      const sensitivity = option(given, "sensitivity", ["base", "accent", "case", "variant"], "variant");
      const ignorePunctuation = flag(given, "ignorePunctuation", table.own.ignore === 1);
      this.#collator = { locale: found.locale, table, usage, numeric, caseFirst, sensitivity, ignorePunctuation, seen: new Map() };
    }
    get compare() {
      return (this.#bound ??= (x, y) => compare(this.#collator, x, y));
    }
    resolvedOptions() {
      const { locale, usage, sensitivity, ignorePunctuation, numeric, caseFirst } = this.#collator;
      return { locale, usage, sensitivity, ignorePunctuation, collation: "default", numeric, caseFirst };
    }
  }

  // ---- Intl.ListFormat -------------------------------------------------------------------------------------------

  // Words that change before certain sounds or letters.
  function listPattern(tag, pattern, next) {
    if (/^es\b/.test(tag)) {
      if (pattern.includes(" y ") && /^(i|hi(?![ae]))/i.test(next)) return pattern.replace(" y ", " e ");
      if (pattern.includes(" o ") && /^(o|ho|8)/i.test(next)) return pattern.replace(" o ", " u ");
      if (pattern.includes(" o ") && /^11(?:\D|$|(?:\d{3})+(?:\D|$))/.test(next)) return pattern.replace(" o ", " u ");
    }
    if (/^he\b/.test(tag) && /ו\{1\}$/.test(pattern) && !/^[\u0590-\u05ff]/.test(next)) return pattern.replace("ו{1}", "ו-{1}");
    return pattern;
  }

  function listParts({ tag, type, style }, items) {
    const kind = { conjunction: "standard", disjunction: "or", unit: "unit" }[type];
    const [start, middle, end, two] = section(tag, "list")[kind + (style === "long" ? "" : `-${style}`)];
    const element = (value) => [{ type: "element", value }];
    if (items.length === 0) return [];
    let parts = element(items[items.length - 1]);
    for (let i = items.length - 2; i >= 0; i--) {
      let pattern = items.length === 2 ? two : i === items.length - 2 ? end : i === 0 ? start : middle;
      pattern = listPattern(tag, pattern, i === items.length - 2 ? items[i + 1] : "");
      const made = [];
      for (const piece of pattern.split(/(\{[01]\})/)) {
        if (piece === "{0}") made.push(...element(items[i]));
        else if (piece === "{1}") made.push(...parts);
        else if (piece) made.push({ type: "literal", value: piece });
      }
      parts = made;
    }
    return parts;
  }

  function strings(list) {
    const items = [];
    if (list === undefined) return items;
    for (const item of list) {
      if (typeof item !== "string") throw new TypeError("Iterable yielded a non-String value");
      items.push(item);
    }
    return items;
  }

  class ListFormat {
    #format;
    constructor(locales = undefined, options = undefined) {
      const found = resolve(locales);
      const given = optionsObject(options);
      option(given, "localeMatcher", ["lookup", "best fit"], "best fit");
      const type = option(given, "type", ["conjunction", "disjunction", "unit"], "conjunction");
      this.#format = { locale: found.locale, tag: found.tag, type, style: option(given, "style", ["long", "short", "narrow"], "long") };
    }
    format(list) {
      return joined(listParts(this.#format, strings(list)));
    }
    formatToParts(list) {
      return listParts(this.#format, strings(list));
    }
    resolvedOptions() {
      const { locale, type, style } = this.#format;
      return { locale, type, style };
    }
  }

  // ---- Intl.RelativeTimeFormat -----------------------------------------------------------------------------------

  const UNITS = ["second", "minute", "hour", "day", "week", "month", "quarter", "year"];

  function relativeParts(format, value, unit) {
    const number = Number(value);
    const name = String(unit).replace(/s$/, "");
    if (!UNITS.includes(name)) throw new RangeError(`Invalid unit argument for format() '${String(unit)}': it may be ${UNITS.join(", ")}`);
    if (!Number.isFinite(number)) throw new RangeError("Invalid time value: it must be a finite number");
    const key = name + (format.style === "long" ? "" : `-${format.style}`);
    if (format.numeric === "auto") {
      const words = section(format.tag, "words");
      const word = words[key]?.[number] ?? words[name]?.[number];
      if (word !== undefined) return [{ type: "literal", value: word }];
    }
    const past = number < 0 || Object.is(number, -0);
    const parts = shared.numberParts(format.numbers, Math.abs(number)).map((part) => ({ ...part, unit: name }));
    const text = (types) => parts.filter((part) => types.includes(part.type)).map((part) => part.value).join("");
    const digits = shared.roundedDigits(shared.decimal(Math.abs(number)), format.numbers.digits);
    const category = pluralOf(format.tag, "cardinal", digits.whole, digits.fraction);
    if (!text(["integer"])) return parts;
    const pattern = formOf(format.tag, section(format.tag, "relative")[key][past ? 1 : 0], category);
    const made = [];
    for (const piece of pattern.split(/(\{0\})/)) {
      if (piece === "{0}") made.push(...parts);
      else if (piece) made.push({ type: "literal", value: piece });
    }
    return made;
  }

  class RelativeTimeFormat {
    #format;
    constructor(locales = undefined, options = undefined) {
      const found = resolve(locales);
      const given = options === undefined ? { __proto__: null } : Object(options);
      option(given, "localeMatcher", ["lookup", "best fit"], "best fit");
      const system = numberingSystem(found, given.numberingSystem);
      const style = option(given, "style", ["long", "short", "narrow"], "long");
      const numeric = option(given, "numeric", ["always", "auto"], "always");
      const numbers = shared.makeFormat(found.locale, { __proto__: null, numberingSystem: system });
      this.#format = { locale: found.locale, tag: found.tag, style, numeric, system, numbers };
    }
    format(value, unit) {
      return joined(relativeParts(this.#format, value, unit));
    }
    formatToParts(value, unit) {
      return relativeParts(this.#format, value, unit);
    }
    resolvedOptions() {
      const { locale, style, numeric, system } = this.#format;
      return { locale, style, numeric, numberingSystem: system };
    }
  }

  // ---- Intl.DisplayNames -----------------------------------------------------------------------------------------

  function nameIn(tag, key, list, code) {
    const at = list.split(" ").indexOf(code);
    return (at >= 0 && section(tag, "names")[key][at]) || undefined;
  }

  function unknown({ locale }, what, code) {
    return new RangeError(`The name of the ${what} ${code} is not known in ${locale}`);
  }

  // A language, with a script and a region behind it in the way of the display language.
  function languageName(format, code) {
    const tag = parseTag(code);
    if (tag.extensions.size || tag.variants.length) throw new RangeError(`Names of languages with variants or extensions are not supported: ${code}`);
    const dialects = format.dialect ? section(format.tag, "dialects") : NONE;
    const { language, script, region } = tag;
    if (dialects[baseOf(tag)]) return dialects[baseOf(tag)];
    if (script && (region || ["Hans", "Hant"].includes(script))) {
      throw new RangeError(`The name of ${code} is not known in ${format.locale}: ask for its language, script and region`);
    }
    const name = nameIn(format.tag, "l", data.languages, language);
    const rest = [...(script ? [["s", script]] : []), ...(region ? [["r", region]] : [])];
    if (!name) throw unknown(format, "language", language);
    if (!rest.length) return name;
    const qualifiers = rest.map(([key, part]) => {
      const found = nameIn(format.tag, key, key === "s" ? data.scripts : data.territories, part);
      if (!found) throw unknown(format, key === "s" ? "script" : "region", part);
      return found;
    });
    const [before, after] = format.tag.startsWith("zh") ? ["（", "）"] : format.tag.startsWith("ko") ? ["(", ")"] : [" (", ")"];
    return `${name}${before}${qualifiers[0]}${after}`;
  }

  const CODES = { __proto__: null, region: /^([a-z]{2}|\d{3})$/i, script: /^[a-z]{4}$/i, currency: /^[a-z]{3}$/i };

  function displayName(format, code) {
    const text = String(code);
    if (format.type === "language") return languageName(format, text);
    if (!CODES[format.type].test(text)) throw new RangeError(`Invalid argument to Intl.DisplayNames.prototype.of: ${text} is no code of a ${format.type}`);
    if (format.type === "script") {
      const script = text[0].toUpperCase() + text.slice(1).toLowerCase();
      const found = nameIn(format.tag, "s", data.scripts, script);
      if (!found) throw unknown(format, "script", script);
      return found;
    }
    const upper = text.toUpperCase();
    if (format.type === "region") {
      return nameIn(format.tag, "r", data.territories, upper) ?? (format.fallback === "code" ? upper : undefined);
    }
    const at = data.currencies.split(" ").indexOf(upper);
    const names = at < 0 ? 0 : section(format.tag, "currency")[at];
    if (!names) throw unknown(format, "currency", upper);
    return names.split("|")[0];
  }

  class DisplayNames {
    #format;
    constructor(locales, options) {
      const found = resolve(locales);
      if (options === undefined) throw new TypeError("Intl.DisplayNames needs options with a type");
      const given = optionsObject(options);
      option(given, "localeMatcher", ["lookup", "best fit"], "best fit");
      const style = option(given, "style", ["narrow", "short", "long"], "long");
      const type = option(given, "type", ["language", "region", "script", "currency", "calendar", "dateTimeField"], undefined);
      if (type === undefined) throw new TypeError("Required option type must not be undefined");
      const fallback = option(given, "fallback", ["code", "none"], "code");
      const dialect = option(given, "languageDisplay", ["dialect", "standard"], "dialect") === "dialect";
      if (type === "calendar" || type === "dateTimeField") throw new RangeError(`Intl.DisplayNames of type ${type} is not supported: it may be language, region, script or currency`);
      if (style !== "long") throw new RangeError(`Intl.DisplayNames of style ${style} is not supported: use long`);
      this.#format = { locale: found.locale, tag: found.tag, style, type, fallback, dialect };
    }
    of(code) {
      return displayName(this.#format, code);
    }
    resolvedOptions() {
      const { locale, style, type, fallback, dialect } = this.#format;
      return { locale, style, type, fallback, ...(type === "language" ? { languageDisplay: dialect ? "dialect" : "standard" } : {}) };
    }
  }

  // ---- Intl.Segmenter --------------------------------------------------------------------------------------------

  // What people take for one character: UAX 29's extended grapheme clusters.
  const CLUSTER = lazy(() => {
    const consonant = "[\\u0915-\\u0939\\u0958-\\u095f\\u0978-\\u097f\\u0995-\\u09a8\\u09aa-\\u09b0\\u09b2\\u09b6-\\u09b9\\u09dc\\u09dd\\u09df\\u09f0\\u09f1"
      + "\\u0a95-\\u0aa8\\u0aaa-\\u0ab0\\u0ab2\\u0ab3\\u0ab5-\\u0ab9\\u0af9\\u0b15-\\u0b28\\u0b2a-\\u0b30\\u0b32\\u0b33\\u0b35-\\u0b39\\u0b5c\\u0b5d\\u0b5f\\u0b71"
      + "\\u0c15-\\u0c28\\u0c2a-\\u0c39\\u0c58-\\u0c5a\\u0d15-\\u0d3a]";
    const linker = "[\\u094d\\u09cd\\u0acd\\u0b4d\\u0c4d\\u0d4d]";
    const extend = "[\\p{Grapheme_Extend}\\p{Emoji_Modifier}]";
    const after = `(?:${extend}|\\u200d|(?![\\u102b\\u102c\\u1038\\u1062-\\u1064\\u1067-\\u106d\\u1083\\u1087-\\u108c\\u108f\\u109a-\\u109c\\u1a61\\u1a63\\u1a64\\uaa7b\\uaa7d])\\p{Mc}|[\\u0e33\\u0eb3])`;
    const control = "\\r\\n|[\\p{Cc}\\p{Zl}\\p{Zp}]|(?![\\u200c\\u200d\\u0600-\\u0605\\u06dd\\u070f\\u0890\\u0891\\u08e2\\u{110bd}\\u{110cd}\\u{e0020}-\\u{e007f}])\\p{Cf}";
    const prepend = "[\\u0600-\\u0605\\u06dd\\u070f\\u0890\\u0891\\u08e2\\u0d4e\\u{110bd}\\u{110cd}]";
    const hangul = "(?:[\\u1100-\\u115f\\ua960-\\ua97c]*(?:[\\uac00-\\ud7a3](?:[\\u1160-\\u11a7\\ud7b0-\\ud7c6]*[\\u11a8-\\u11ff\\ud7cb-\\ud7fb]*)|[\\u1160-\\u11a7\\ud7b0-\\ud7c6]+[\\u11a8-\\u11ff\\ud7cb-\\ud7fb]*)|[\\u1100-\\u115f\\ua960-\\ua97c]+|[\\u11a8-\\u11ff\\ud7cb-\\ud7fb]+)";
    const emoji = `\\p{Extended_Pictographic}(?:${extend}*\\u200d\\p{Extended_Pictographic})*`;
    const conjunct = `${consonant}(?:(?:${extend}|\\u200d)*?${linker}(?:${extend}|\\u200d)*?${consonant})*`;
    return new RegExp(`${control}|${prepend}*(?:${hangul}|\\p{RI}\\p{RI}|${emoji}|${conjunct}|(?!${control})[^])${after}*|${prepend}+|[^]`, "gu");
  });

  class Segments {
    #text;
    constructor(text) {
      this.#text = text;
    }
    containing(index = 0) {
      const at = Math.trunc(Number(index)) || 0;
      if (at < 0 || at >= this.#text.length) return undefined;
      for (const segment of this) if (at < segment.index + segment.segment.length) return segment;
      return undefined;
    }
    *[Symbol.iterator]() {
      for (const found of this.#text.matchAll(CLUSTER())) yield { segment: found[0], index: found.index, input: this.#text };
    }
  }
  Object.defineProperty(Segments.prototype, "constructor", { value: Object, writable: true, configurable: true });

  class Segmenter {
    #locale;
    constructor(locales = undefined, options = undefined) {
      this.#locale = resolve(locales).locale;
      const given = optionsObject(options);
      option(given, "localeMatcher", ["lookup", "best fit"], "best fit");
      const granularity = option(given, "granularity", ["grapheme", "word", "sentence"], "grapheme");
      if (granularity !== "grapheme") throw new RangeError(`Intl.Segmenter with granularity "${granularity}" is not supported: only "grapheme" is; split with a regular expression instead`);
    }
    segment(text) {
      return new Segments(String(text));
    }
    resolvedOptions() {
      return { locale: this.#locale, granularity: "grapheme" };
    }
  }

  for (const [name, made] of Object.entries({ ListFormat, RelativeTimeFormat, DisplayNames, Segmenter })) shared.install(name, made, false);
  shared.install("Collator", Collator, true);

  // ---- String and Array ------------------------------------------------------------------------------------------

  const { toUpperCase, toLowerCase } = String.prototype;

  function languageOf(locales) {
    return parseTag(canonicalList(locales)[0] ?? "en").language;
  }

  function text(value, name) {
    if (value === undefined || value === null) throw new TypeError(`String.prototype.${name} called on null or undefined`);
    return String(value);
  }

  const collators = new Map();

  function collatorFor(locales, options) {
    if (options !== undefined || (locales !== undefined && typeof locales !== "string")) return new Collator(locales, options);
    if (!collators.has(locales)) collators.set(locales, new Collator(locales));
    return collators.get(locales);
  }

  const upper = (value) => Reflect.apply(toUpperCase, value, []);
  const lower = (value) => Reflect.apply(toLowerCase, value, []);

  shared.method(String.prototype, {
    localeCompare(that, locales = undefined, options = undefined) {
      return collatorFor(locales, options).compare(text(this, "localeCompare"), String(that));
    },
    toLocaleUpperCase(locales = undefined) {
      const value = text(this, "toLocaleUpperCase");
      const language = languageOf(locales);
      if (language === "tr" || language === "az") return upper(value.replace(/i/g, "İ"));
      if (language === "lt") return upper(value.normalize("NFD").replace(/([ij\u012f]\p{M}*?)\u0307/gu, "$1")).normalize("NFC");
      if (language === "el" && /\p{Script=Greek}[\u0300\u0301\u0342]/u.test(value.normalize("NFD"))) {
        throw new RangeError('Upper case for "el", which drops accents, is not supported: use toUpperCase');
      }
      return upper(value);
    },
    toLocaleLowerCase(locales = undefined) {
      const value = text(this, "toLocaleLowerCase");
      const language = languageOf(locales);
      if (language === "tr" || language === "az") return lower(value.replace(/İ|I\u0307/g, "i").replace(/I/g, "ı"));
      if (language === "lt") {
        const dotted = value.replace(/[ÌÍĨ]/g, (letter) => letter.normalize("NFD")).replace(/([IJ\u012e])(?=[\u0300-\u036f]*[\u0300\u0301\u0303])/g, "$1\u0307");
        return lower(dotted);
      }
      return lower(value);
    },
  });

  function joinLocale(array, locales, options) {
    const parts = [];
    for (let i = 0; i < array.length; i++) {
      const item = array[i];
      parts.push(item === undefined || item === null ? "" : String(item.toLocaleString(locales, options)));
    }
    return parts.join(",");
  }
  const open = new Set();

  function guarded(array, locales, options) {
    if (open.has(array)) return ""; // an array that holds itself, as join has it
    open.add(array);
    try {
      return joinLocale(array, locales, options);
    } finally {
      open.delete(array);
    }
  }

  shared.method(Array.prototype, {
    toLocaleString(locales = undefined, options = undefined) { return guarded(Object(this), locales, options); },
  });
  const TypedArray = Object.getPrototypeOf(global.Int8Array.prototype);
  const lengthOf = Object.getOwnPropertyDescriptor(TypedArray, "length").get;
  shared.method(TypedArray, {
    toLocaleString(locales = undefined, options = undefined) {
      Reflect.apply(lengthOf, this, []); // refuses what is no typed array
      return joinLocale(this, locales, options);
    },
  });
})
