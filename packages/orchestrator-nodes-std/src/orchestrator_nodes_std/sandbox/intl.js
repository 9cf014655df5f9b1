// `Intl` for a realm that has none. Four scripts make it, in the order of `locales.SCRIPTS`; the value of each is a
// function of one object that they share. The first call gets {global, data}: the global object of the realm that the
// scripts were evaluated in, and what `locales.intl_data` gives, whose texts are parsed when first used.
//
// The rule: what is right, or an error that says what is not supported. Never a text in another language or format than
// asked for. This script has what all parts need: tags, locales and their data, options, plural rules.
(function (shared) {
  "use strict";

  const { global, data } = shared;
  // Kept, so that user code that replaces a global does not change what happens here.
  const { Array, Boolean, Error, JSON, Map, Math, Number, Object, RangeError, Reflect, Set, String, Symbol, TypeError } = global;
  const DEFAULT = "en-US";

  // ---- data ------------------------------------------------------------------------------------------------------

  function lazy(make) {
    let made;
    return () => (made ??= make());
  }

  function pairs(text) {
    const map = new Map();
    for (const pair of text.split(" ")) {
      const at = pair.indexOf(":");
      if (at > 0) map.set(pair.slice(0, at), pair.slice(at + 1));
    }
    return map;
  }

  const parents = lazy(() => pairs(data.locales));
  const aliases = lazy(() => pairs(data.aliases));
  const likely = lazy(() => pairs(data.likely));
  const sections = new Map();

  function isObject(value) {
    return (typeof value === "object" && value !== null) || typeof value === "function";
  }

  // `change` as locales.py writes it: null takes away, an object for a list changes single items.
  function changed(old, change) {
    if (!isObject(old) || !isObject(change) || Array.isArray(change)) return change;
    if (Array.isArray(old)) {
      const list = old.slice();
      for (const key of Object.keys(change)) list[key] = changed(old[key], change[key]);
      return list;
    }
    const made = { __proto__: null };
    for (const key of Object.keys(old)) made[key] = old[key];
    for (const key of Object.keys(change)) {
      if (change[key] === null) delete made[key];
      else made[key] = changed(old[key], change[key]);
    }
    return made;
  }

  // A section of a locale's data, by the tag of its data; undefined if neither it nor those above it have one.
  function section(tag, name) {
    const key = `${tag}/${name}`;
    if (sections.has(key)) return sections.get(key);
    const parent = parents().get(tag);
    let value = parent ? section(parent, name) : undefined;
    if (data[key] !== undefined) {
      const own = JSON.parse(data[key]);
      value = value === undefined ? own : changed(value, own);
    }
    sections.set(key, value);
    return value;
  }

  // ---- language tags ---------------------------------------------------------------------------------------------

  const LANGUAGE_ALIASES = { __proto__: null, iw: "he", in: "id", ji: "yi", jw: "jv", mo: "ro", tl: "fil", cmn: "zh" };
  const REGION_ALIASES = { __proto__: null, UK: "GB", BU: "MM", DD: "DE", FX: "FR", TP: "TL", YD: "YE", ZR: "CD" };

  function invalid(tag) {
    return new RangeError(`Incorrect locale information provided: ${JSON.stringify(String(tag))} is not a language tag such as "de" or "pt-BR"`);
  }

  function title(text) {
    return text[0].toUpperCase() + text.slice(1).toLowerCase();
  }

  // {language, script, region, variants, extensions: Map of singleton to parts, keys: Map of Unicode keywords}.
  function parseTag(tag) {
    const parts = tag.toLowerCase().split("-");
    const is = (pattern) => parts.length > 0 && pattern.test(parts[0]);
    if (!is(/^([a-z]{2,3}|[a-z]{5,8})$/)) throw invalid(tag);
    const found = { language: parts.shift(), script: "", region: "", variants: [], extensions: new Map(), keys: new Map(), attributes: [] };
    if (is(/^[a-z]{4}$/)) found.script = title(parts.shift());
    if (is(/^([a-z]{2}|\d{3})$/)) found.region = parts.shift().toUpperCase();
    while (is(/^([a-z0-9]{5,8}|\d[a-z0-9]{3})$/)) {
      const variant = parts.shift();
      if (found.variants.includes(variant)) throw invalid(tag);
      found.variants.push(variant);
    }
    found.variants.sort();
    while (parts.length) {
      const singleton = parts.shift();
      if (!/^[a-z0-9]$/.test(singleton) || found.extensions.has(singleton)) throw invalid(tag);
      const own = [];
      while (singleton === "x" ? is(/^[a-z0-9]{1,8}$/) : is(/^[a-z0-9]{2,8}$/)) own.push(parts.shift());
      if (!own.length) throw invalid(tag);
      if (singleton === "u") readKeywords(own, found);
      found.extensions.set(singleton, own);
    }
    if (found.language in LANGUAGE_ALIASES) found.language = LANGUAGE_ALIASES[found.language];
    if (found.region in REGION_ALIASES) found.region = REGION_ALIASES[found.region];
    return found;
  }

  function readKeywords(parts, found) {
    let key = null;
    for (const part of parts) {
      if (part.length === 2) {
        key = part;
        if (found.keys.has(key)) key = "";
        else found.keys.set(key, []);
      } else if (key === null) found.attributes.push(part);
      else if (key) found.keys.get(key).push(part);
    }
  }

  function baseOf(tag) {
    return [tag.language, tag.script, tag.region, ...tag.variants].filter((part) => part !== "").join("-");
  }

  function canonical(text) {
    const tag = parseTag(text);
    let made = baseOf(tag);
    for (const singleton of [...tag.extensions.keys()].sort((a, b) => (a === "x") - (b === "x") || (a < b ? -1 : 1))) {
      if (singleton !== "u") {
        made += `-${singleton}-${tag.extensions.get(singleton).join("-")}`;
        continue;
      }
      made += ["-u", ...tag.attributes.slice().sort()].join("-");
      for (const key of [...tag.keys.keys()].sort()) {
        const value = tag.keys.get(key).join("-");
        made += `-${key}` + (value && value !== "true" && value !== "yes" ? `-${value}` : "");
      }
    }
    return made;
  }

  function canonicalList(locales) {
    if (locales === undefined) return [];
    if (locales === null) throw new TypeError("Cannot convert null to a list of locales");
    const items = typeof locales === "string" || locales instanceof Locale ? [locales] : Object(locales);
    const found = [];
    const length = Math.min(Math.max(Math.trunc(Number(items.length)) || 0, 0), Number.MAX_SAFE_INTEGER);
    for (let i = 0; i < length; i++) {
      if (!(i in items)) continue;
      const item = items[i];
      if (typeof item !== "string" && !isObject(item)) throw new TypeError("Language ID should be string or object.");
      const tag = canonical(String(item));
      if (!found.includes(tag)) found.push(tag);
    }
    return found;
  }

  // What `Intl.Locale` makes: the tag, taken apart. Options that change it are understood; week data and the like is not.
  class Locale {
    #tag;
    #text;
    constructor(tag, options = undefined) {
      if (typeof tag !== "string" && !isObject(tag)) throw new TypeError("First argument to Intl.Locale constructor can't be empty or missing");
      const parsed = parseTag(String(tag));
      const given = options === undefined ? {} : Object(options);
      for (const name of ["language", "script", "region"]) {
        if (given[name] !== undefined) parsed[name] = parseTag(name === "language" ? String(given[name]) : `und-${given[name]}`)[name];
      }
      for (const [name, key] of [["calendar", "ca"], ["collation", "co"], ["hourCycle", "hc"], ["caseFirst", "kf"], ["numeric", "kn"], ["numberingSystem", "nu"]]) {
        if (given[name] !== undefined) parsed.keys.set(key, [String(given[name]).toLowerCase()]);
      }
      if (parsed.keys.size) parsed.extensions.set("u", []);
      let text = baseOf(parsed);
      if (parsed.keys.size || parsed.attributes.length) {
        text += ["-u", ...parsed.attributes].join("-");
        for (const [key, value] of parsed.keys) text += [`-${key}`, ...value].join("-");
      }
      for (const [singleton, own] of parsed.extensions) if (singleton !== "u") text += `-${singleton}-${own.join("-")}`;
      this.#text = canonical(text);
      this.#tag = parseTag(this.#text);
    }
    get baseName() { return baseOf(this.#tag); }
    get language() { return this.#tag.language; }
    get script() { return this.#tag.script || undefined; }
    get region() { return this.#tag.region || undefined; }
    get calendar() { return this.#tag.keys.get("ca")?.join("-"); }
    get collation() { return this.#tag.keys.get("co")?.join("-"); }
    get hourCycle() { return this.#tag.keys.get("hc")?.join("-"); }
    get caseFirst() { return this.#tag.keys.get("kf")?.join("-"); }
    get numeric() { return this.#tag.keys.has("kn") && this.#tag.keys.get("kn").join("-") !== "false"; }
    get numberingSystem() { return this.#tag.keys.get("nu")?.join("-"); }
    toString() { return this.#text; }
  }

  // ---- finding a locale ------------------------------------------------------------------------------------------

  function languages() {
    return [...new Set([...parents().keys()].map((tag) => tag.split("-")[0]))].sort();
  }

  // The longest available beginning of a tag, as {locale, tag of its data}; undefined if there is none.
  function available(base) {
    const known = (tag) => (parents().has(tag) ? tag : aliases().get(tag));
    const { language, script, region } = parseTag(base);
    const usual = (likely().get(`${language}-${region}`) ?? likely().get(language))?.split("-")[1];
    if (script && script === usual && !known(`${language}-${script}`) && known(`${language}-${region}`)) {
      return { locale: `${language}-${region}`, tag: known(`${language}-${region}`) };
    }
    // A region of a script that is not the language's own is that script's: zh-XX is Hans, zh-Hant-XX stays Hant.
    for (let tag = base; tag; tag = tag.slice(0, Math.max(0, tag.lastIndexOf("-")))) {
      if (known(tag)) return { locale: tag, tag: known(tag) };
    }
    return undefined;
  }

  function withoutExtensions(tag) {
    return tag.replace(/-[a-z0-9]-.*$/, "");
  }

  // {locale, tag, keys}: the first of `locales` that is there. Refuses where none is, instead of speaking English.
  function resolve(locales) {
    const list = canonicalList(locales);
    if (!list.length) return { locale: DEFAULT, tag: DEFAULT, keys: new Map() };
    for (const wanted of list) {
      const found = available(withoutExtensions(wanted));
      if (found) return { ...found, keys: parseTag(wanted).keys };
    }
    throw new RangeError(
      `The locale ${list.join(", ")} is not supported: no data for its language is here. Supported languages: ${languages().join(", ")}`);
  }

  function supportedLocalesOf(locales, options) {
    const list = canonicalList(locales);
    if (options !== undefined) option(Object(options), "localeMatcher", ["lookup", "best fit"], "best fit");
    return list.filter((tag) => available(withoutExtensions(tag)));
  }

  // ---- options ---------------------------------------------------------------------------------------------------

  function option(options, name, allowed, fallback) {
    let value = options[name];
    if (value === undefined) return fallback;
    value = String(value);
    if (allowed && !allowed.includes(value)) {
      throw new RangeError(`Value ${value} out of range for Intl options property ${name}: it may be ${allowed.join(", ")}`);
    }
    return value;
  }

  function flag(options, name, fallback) {
    const value = options[name];
    return value === undefined ? fallback : Boolean(value);
  }

  function integer(value, name, low, high, fallback) {
    if (value === undefined) return fallback;
    value = Number(value);
    if (!(value >= low && value <= high)) throw new RangeError(`${name} value is out of range: it may be from ${low} to ${high}`);
    return Math.floor(value);
  }

  function optionsObject(options) {
    if (options === undefined) return { __proto__: null };
    if (!isObject(options)) throw new TypeError(`Intl options must be an object, not ${options === null ? "null" : typeof options}`);
    return options;
  }

  // ---- numbering systems -----------------------------------------------------------------------------------------

  const ZEROS = {
    __proto__: null, latn: 0x30, arab: 0x660, arabext: 0x6f0, beng: 0x9e6, deva: 0x966, fullwide: 0xff10, gujr: 0xae6, guru: 0xa66,
    khmr: 0x17e0, knda: 0xce6, laoo: 0xed0, mlym: 0xd66, mymr: 0x1040, orya: 0xb66, tamldec: 0xbe6, telu: 0xc66, thai: 0xe50, tibt: 0xf20,
  };

  // The numbering system: asked for by option or -u-nu-, else the locale's own.
  function numberingSystem(found, asked) {
    const numbers = section(found.tag, "number");
    let system = asked ?? found.keys.get("nu")?.join("-");
    if (system === undefined || system === "native" || system === "default") return numbers.n;
    system = String(system).toLowerCase();
    if (!/^[a-z0-9]{3,8}(-[a-z0-9]{3,8})*$/.test(system)) throw new RangeError(`Invalid numberingSystem: ${system}`);
    // The Arabic systems have signs of their own, known for their own locales only.
    if (!(system in ZEROS) || (system.startsWith("arab") && !numbers.s[system])) {
      throw new RangeError(`The numbering system ${system} is not supported for ${found.locale}; leave it out, or use latn`);
    }
    return system;
  }

  function inDigits(text, system) {
    if (system === "latn") return text;
    const zero = ZEROS[system];
    let made = "";
    for (const digit of text) made += digit >= "0" && digit <= "9" ? String.fromCodePoint(zero + Number(digit)) : digit;
    return made;
  }

  // ---- plural rules ----------------------------------------------------------------------------------------------

  const pluralTexts = lazy(() => JSON.parse(data.plurals));
  const pluralCache = new Map();

  function pluralRules(tag, kind) {
    const key = `${tag}/${kind}`;
    if (!pluralCache.has(key)) {
      let at = tag;
      while (pluralTexts()[at] === undefined) at = parents().get(at);
      const rules = [];
      const source = pluralTexts()[at].p[kind === "ordinal" ? 1 : 0];
      for (const [, name, condition] of source.matchAll(/(zero|one|two|few|many): (.*?)(?=, (?:zero|one|two|few|many): |$)/g)) {
        rules.push([name, condition.split(" or ").map((all) => all.split(" and ").map(relation))]);
      }
      pluralCache.set(key, rules);
    }
    return pluralCache.get(key);
  }

  function relation(text) {
    const found = /^(\w)(?: mod (\d+))? (not )?(in|within) (.*)$/.exec(text);
    if (!found) throw new Error(`plural rule not understood: ${text}`);
    const [, operand, modulus, not, kind, ranges] = found;
    return {
      operand, modulus: Number(modulus ?? 0), not: not !== undefined, within: kind === "within",
      ranges: ranges.split(",").map((range) => range.split("..").map(Number)).map(([low, high = low]) => [low, high]),
    };
  }

  function holds({ operand, modulus, not, within, ranges }, operands) {
    let value = operands[operand];
    if (modulus) value %= modulus;
    const inside = (within || Number.isInteger(value)) && ranges.some(([low, high]) => value >= low && value <= high);
    return inside !== not;
  }

  // The plural category of a number as it is shown: its digits before and after the point, and a power of ten.
  function pluralOf(tag, kind, whole, fraction, power = 0) {
    let digits = whole;
    let rest = fraction;
    if (power > 0) {
      digits += rest.slice(0, power).padEnd(power, "0");
      rest = rest.slice(power);
    }
    // Rules look at remainders of small powers of ten only: leading digits are told by one that does not change those.
    const i = Number(digits.slice(-12)) + (digits.length > 12 ? 1e12 : 0);
    const trimmed = rest.replace(/0+$/, "");
    const operands = {
      n: trimmed ? Number(`${i}.${trimmed}`) : i, i, v: rest.length, w: trimmed.length, f: Number(rest || 0), t: Number(trimmed || 0),
      e: power, c: power,
    };
    for (const [name, alternatives] of pluralRules(tag, kind)) {
      if (alternatives.some((all) => all.every((item) => holds(item, operands)))) return name;
    }
    return "other";
  }

  const CATEGORIES = ["zero", "one", "two", "few", "many", "other"];

  function categories(tag, kind) {
    const names = pluralRules(tag, kind).map((rule) => rule[0]);
    return CATEGORIES.filter((name) => name === "other" || names.includes(name));
  }

  // One of the forms that locales.py joined, for a category.
  function formOf(tag, text, category) {
    const forms = text.split("|");
    if (forms.length === 1) return forms[0];
    const at = categories(tag, "cardinal").indexOf(category);
    return forms[at] || forms[forms.length - 1];
  }

  // ---- making classes --------------------------------------------------------------------------------------------

  const Intl = Object.create(global.Object.prototype, { [Symbol.toStringTag]: { value: "Intl", configurable: true } });

  // Put a class into Intl. `callable`: it may be called without `new`, as the oldest ones may.
  function install(name, made, callable) {
    let constructor = made;
    if (callable) {
      constructor = { [name]: function (locales = undefined, options = undefined) {
        return Reflect.construct(made, [locales, options], new.target ?? constructor);
      } }[name];
      constructor.prototype = made.prototype;
      Object.defineProperty(constructor, "prototype", { writable: false });
      Object.defineProperty(made.prototype, "constructor", { value: constructor, writable: true, configurable: true });
    }
    if (name !== "Locale") Object.defineProperty(constructor, "supportedLocalesOf", {
      value: { supportedLocalesOf(locales, options = undefined) { return supportedLocalesOf(locales, options); } }.supportedLocalesOf,
      writable: true, configurable: true,
    });
    Object.defineProperty(made.prototype, Symbol.toStringTag, { value: `Intl.${name}`, configurable: true });
    Object.defineProperty(Intl, name, { value: constructor, writable: true, configurable: true });
    return constructor;
  }

  // Replace a method of an intrinsic's prototype, or add one to Intl.
  function method(object, made) {
    for (const name of Object.keys(made)) {
      Object.defineProperty(object, name, { value: made[name], writable: true, configurable: true });
    }
  }

  class PluralRules {
    #found;
    #kind;
    #digits;
    constructor(locales = undefined, options = undefined) {
      this.#found = resolve(locales);
      const given = optionsObject(options);
      this.#kind = option(given, "type", ["cardinal", "ordinal"], "cardinal");
      this.#digits = shared.digitOptions(given, 0, 3, option(given, "notation", ["standard"], "standard"));
    }
    select(number) {
      const value = Number(number);
      if (!Number.isFinite(value)) return "other";
      const { whole, fraction } = shared.roundedDigits(shared.decimal(value), this.#digits);
      return pluralOf(this.#found.tag, this.#kind, whole, fraction);
    }
    selectRange() {
      throw new TypeError("Intl.PluralRules.prototype.selectRange is not supported: use select with the end of the range");
    }
    resolvedOptions() {
      return {
        locale: this.#found.locale, type: this.#kind, ...shared.resolvedDigits(this.#digits),
        pluralCategories: categories(this.#found.tag, this.#kind),
      };
    }
  }

  method(Intl, {
    getCanonicalLocales(locales) { return canonicalList(locales); },
    supportedValuesOf(key) {
      const lists = {
        __proto__: null,
        calendar: () => ["buddhist", "gregory"], collation: () => ["default"], numberingSystem: () => Object.keys(ZEROS).sort(),
        currency: () => data.currencies.split(" "), unit: () => shared.units.slice(), timeZone: () => shared.timeZones(),
      };
      if (!(String(key) in lists)) throw new RangeError(`Invalid key : ${String(key)}`);
      return lists[String(key)]();
    },
  });
  install("PluralRules", PluralRules, false);
  install("Locale", Locale, false);
  Object.defineProperty(global, "Intl", { value: Intl, writable: true, configurable: true });

  Object.assign(shared, {
    lazy, pairs, parents, section, parseTag, baseOf, canonicalList, resolve,
    option, flag, integer, optionsObject, numberingSystem, inDigits, pluralOf, formOf, install, method,
  });
})
