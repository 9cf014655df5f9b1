// Asks Node's Intl (ICU) for what Babel leaves out of CLDR. Run by intl_extras.py, which packs the answer.
// stdin: {"tags": [...], "currencies": [...]}; stdout: {section: {tag: value}}.
"use strict";

const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
const STYLES = ["full", "long", "medium", "short"];
const UNITS = ["year", "quarter", "month", "week", "day", "hour", "minute", "second"];
const at = new Date(Date.UTC(2026, 10, 23, 14, 5, 6));

// How a date and a time are joined, by the date's style.
function glue(tag) {
  return STYLES.map((dateStyle) => {
    const text = (options) => new Intl.DateTimeFormat(`${tag}-u-ca-gregory`, { timeZone: "UTC", ...options }).format(at);
    const both = text({ dateStyle, timeStyle: "medium" });
    const made = both.replace(text({ dateStyle }), "\x01").replace(text({ timeStyle: "medium" }), "\x02");
    if (made.replace(/[^\x01\x02]/g, "").length !== 2) throw new Error(`${tag}: ${both}`);
    return made.replace("\x01", "{1}").replace("\x02", "{0}");
  });
}

// Offsets from UTC: zero, then long and short ones with either sign, the short ones with and without minutes.
function offsets(tag) {
  const text = (timeZone, timeZoneName) =>
    new Intl.DateTimeFormat(`${tag}-u-nu-latn`, { timeZone, timeZoneName }).formatToParts(at)
      .find((part) => part.type === "timeZoneName").value;
  const form = (zone, style, hour, minute) => text(zone, style).replace(hour, "{0}").replace(minute, "{1}");
  return [
    text("UTC", "longOffset"), text("UTC", "shortOffset"),
    form("Asia/Kolkata", "longOffset", "05", "30"), form("America/St_Johns", "longOffset", "03", "30"),
    form("Asia/Kolkata", "shortOffset", "5", "30"), form("America/St_Johns", "shortOffset", "3", "30"),
    form("Europe/Berlin", "shortOffset", "1", "00"), form("America/Sao_Paulo", "shortOffset", "3", "00"),
  ];
}

// The words for "yesterday" and the like; short and narrow ones where they differ from the long ones.
function words(tag) {
  const found = {};
  for (const unit of UNITS) for (const style of ["long", "short", "narrow"]) {
    const format = new Intl.RelativeTimeFormat(tag, { numeric: "auto", style });
    for (const value of [-2, -1, 0, 1, 2]) {
      const parts = format.formatToParts(value, unit);
      if (parts.every((part) => part.type === "literal")) {
        const text = format.format(value, unit);
        if (style === "long" || found[unit]?.[value] !== text) (found[unit + (style === "long" ? "" : "-" + style)] ??= {})[value] = text;
      }
    }
  }
  return found;
}

function symbol(tag, currency, currencyDisplay) {
  return new Intl.NumberFormat(tag, { style: "currency", currency, currencyDisplay }).formatToParts(1)
    .find((part) => part.type === "currency").value;
}

// Patterns of the Buddhist calendar, read from what they give for 23 November 2569.
const LETTERS = { weekday: "E", month: "M", day: "d", year: "y", era: "G" };
function buddhist(tag) {
  const pattern = (options, skeleton) => new Intl.DateTimeFormat(`${tag}-u-ca-buddhist`, { timeZone: "UTC", ...options })
    .formatToParts(at).map(({ type, value }) => {
      if (type === "literal") return /[a-z']/i.test(value) ? `'${value}'` : value;
      const asked = new RegExp(`${LETTERS[type]}+`).exec(skeleton)?.[0] ?? LETTERS[type];
      return type === "year" && value.length === 2 ? "yy" : asked;
    }).join("");
  const WIDTH = { M: ["numeric", "2-digit", "short", "long"], E: ["short", "short", "short", "long"] };
  const found = {};
  for (const date of ["y", "yM", "yMMM", "yMMMM", "yMd", "yMMMd", "yMMMMd", "yMEd", "yMMMEd", "yMMMMEEEEd", "yMMMMEd", "yMMMEEEEd"]) {
    for (const skeleton of [date, `G${date}`]) {
      const options = {};
      for (const [name, letter] of Object.entries(LETTERS)) {
        const size = (new RegExp(`${letter}+`).exec(skeleton)?.[0] ?? "").length;
        if (size) options[name] = WIDTH[letter]?.[size - 1] ?? (letter === "G" ? "short" : "numeric");
      }
      found[skeleton] = pattern(options, skeleton);
    }
  }
  const styles = STYLES.map((dateStyle, i) => pattern({ dateStyle }, ["EEEEdMMMMyG", "dMMMMyG", "dMMMyG", "dMyG"][i]));
  const era = (width) => new Intl.DateTimeFormat(`${tag}-u-ca-buddhist`, { era: width }).formatToParts(at).find((part) => part.type === "era").value;
  return { S: found, D: styles, e: { wide: [era("long")], abbreviated: [era("short")], narrow: [era("narrow")] } };
}

// The decimal point and the sign between groups, of numbers and of amounts of money.
function separators(tag) {
  const found = (options, type) => new Intl.NumberFormat(`${tag}-u-nu-latn`, options).formatToParts(123456789.5)
    .find((part) => part.type === type)?.value ?? "";
  const money = { style: "currency", currency: "EUR" };
  return [found({}, "decimal"), found({}, "group"), found(money, "decimal"), found(money, "group")];
}

// By zone: the English names that it had, as [until, name]: until a time in seconds, the last for ever. "" says that the
// zone had no name then. Names are looked up month by month, and the change between two months to the minute.
function zoneHistory(zone) {
  const format = new Intl.DateTimeFormat("en", { timeZone: zone, timeZoneName: "long" });
  const name = (time) => {
    const text = format.formatToParts(time).find((part) => part.type === "timeZoneName").value;
    return /^GMT[+-]|^GMT$/.test(text) ? "" : text.replace(/ (Standard|Daylight|Summer) Time$/, " Time");
  };
  const found = [[0, ""]]; // as CLDR has it: before 1970 no zone had a name
  let before = Date.UTC(1970, 0, 1);
  let held = name(before);
  for (let month = 1; month < 58 * 12; month++) {
    const at = Date.UTC(1970, month, 1);
    if (name(at) === held) {
      before = at;
      continue;
    }
    let [low, high] = [before, at];
    while (high - low > 60000) {
      const middle = Math.floor((low + high) / 120000) * 60000;
      if (name(middle) === held) low = middle;
      else high = middle;
    }
    found.push([high / 1000, held]);
    held = name(at);
    before = at;
  }
  found.push([null, held]);
  return found;
}

// ---- the order of letters -------------------------------------------------------------------------------------------

function span(first, last) {
  return Array.from({ length: last - first + 1 }, (_, i) => String.fromCodePoint(first + i));
}
const MARKS = [...span(0x300, 0x314), ...span(0x323, 0x328), "\u032d", "\u032e", "\u0330", "\u0331", "\u0335", "\u0338", "\u0342", "\u0345"];
const SIGNS = [
  "\t", "\n", "\r", ...span(0x20, 0x2f), ...span(0x3a, 0x40), ...span(0x5b, 0x60), ...span(0x7b, 0x7e), ...span(0xa0, 0xb4), ...span(0xb6, 0xbf), "×", "÷",
  ...span(0x2010, 0x2015), ...span(0x2018, 0x201e), ..."†‡•…‰′″‹›€₹₽₺₴₪₩₫™←↑→↓−≈≠≤≥",
];
const LETTERS_OF = [
  ...span(0x30, 0x39), ...span(0x41, 0x5a), ...span(0x61, 0x7a), ...span(0xc0, 0x24f), ...span(0x386, 0x3ce), ...span(0x400, 0x45f), "Ґ", "ґ",
  ...span(0x5d0, 0x5ea),
  ...span(0x1e00, 0x1e99), ...span(0x1ea0, 0x1ef9), "ẞ",
].filter((letter) => /[\p{L}\p{Nd}]/u.test(letter));
const DIGRAPHS = ["ch", "cs", "dz", "dž", "dzs", "gy", "ll", "lj", "ly", "ny", "nj", "sz", "ty", "zs", "aa", "ng"];

function sortedMarks(full) {
  return MARKS.filter((mark) => full.compare(`a${mark}b`, "ab") !== 0).sort((a, b) => full.compare("q" + a, "q" + b)).join("");
}

// {order: groups of characters that differ in case only, apart by spaces, in the order of the alphabet; marks: the order of
// accents; same: letters as others with accents}, and by tag what differs there.
function collation(tags) {
  const base = new Intl.Collator("en", { sensitivity: "base" });
  const accent = new Intl.Collator("en", { sensitivity: "accent" });
  const full = new Intl.Collator("en");
  const ignored = (text) => full.compare("a" + text + "b", "ab") === 0;
  const marks = [...sortedMarks(full)];
  const singles = [...SIGNS, ...LETTERS_OF].filter((item) => [...item.normalize("NFD")].length === 1 && item.normalize("NFD") === item && !ignored(item));
  const ascii = [..."abcdefghijklmnopqrstuvwxyz0123456789"];
  const same = {};
  const plain = [];
  for (const item of singles) {
    if (/[a-z0-9]/i.test(item)) {
      plain.push(item);
      continue;
    }
    const lower = item.toLowerCase();
    const upper = lower !== item;
    const whole = (text) => (upper ? text.toUpperCase() : text);
    const pair = ascii.flatMap((x) => ascii.map((y) => x + y)).find((text) => base.compare(lower, text) === 0);
    const single = singles.find((other) => other < item && /\p{Ll}/u.test(other) && other.toLowerCase() === other && !(other in same) && other !== lower && base.compare(other, lower) === 0);
    if (pair) {
      same[item] = whole(pair[0]) + (accent.compare(lower, pair) === 0 ? "" : "\x01") + whole(pair[1]);
    } else if (single) {
      if (accent.compare(single, lower) === 0) {
        plain.push(item);
        continue;
      }
      const equal = marks.find((one) => accent.compare(single + one, lower) === 0);
      const mark = equal ?? (marks.every((one) => accent.compare(single + one, lower) < 0) ? "\x01" : undefined);
      if (mark === undefined) continue; // it stands somewhere that this model does not have: such a letter is refused
      if (equal !== undefined && full.compare(whole(single + mark), item) !== 0) continue;
      same[item] = whole(single + mark);
    } else plain.push(item);
  }
  plain.sort((a, b) => full.compare(a, b));
  const groups = [];
  for (const item of plain) {
    const last = groups[groups.length - 1];
    if (last && base.compare(last[0], item) === 0) last.push(item);
    else groups.push([item]);
  }
  const found = { "*": { order: groups.map((group) => group.map((item) => item.codePointAt(0).toString(36)).join(",")).join(" "), marks: marks.join(""), same } };
  const letters = groups.map((group) => group[0]).filter((letter) => /\p{Ll}/u.test(letter));
  found["*"].units = tailoring("en", letters, base, same).units ?? "";
  for (const tag of tags) {
    const own = tailoring(tag, letters, base, same);
    if (Object.keys(own).length) found[tag] = own;
  }
  return found;
}

// {units: runs of letters that have a place of their own, each behind a letter; first: scripts that come first; upper:
// capitals come first; backwards: accents count from the end}.
function tailoring(tag, letters, root, same) {
  const base = new Intl.Collator(tag, { sensitivity: "base", ignorePunctuation: false });
  const full = new Intl.Collator(tag, { ignorePunctuation: false });
  const own = {};
  const stripped = (text) => [...text.normalize("NFD")].map((item) => (same[item] ?? item).replace("\x01", "")).join("").replace(/\p{M}/gu, "");
  const lower = LETTERS_OF.filter((letter) => letter.toLowerCase() === letter && /\p{L}/u.test(letter));
  // A plain letter that moved: without it the others stand as they always do.
  const latin = letters.filter((letter) => /[a-z]/.test(letter));
  const sorted = (list) => list.slice().sort(base.compare).join("");
  const moved = sorted(latin) === latin.join("") ? [] : [latin.find((letter) => sorted(latin.filter((x) => x !== letter)) === latin.filter((x) => x !== letter).join(""))];
  const special = [...new Set([...moved, ...lower, ...DIGRAPHS])].filter((unit) => unit !== undefined && (moved.includes(unit) || (
    unit.length > 1 && !unit.normalize("NFD").slice(1).match(/^\p{M}+$/u)
      ? base.compare(unit, unit[0] + "\u200b" + unit.slice(1)) !== 0 && base.compare(unit, `${unit[0]}\u200bzzz`) > 0
      : tag === "en" || root.compare(unit, stripped(unit)) === 0 ? base.compare(unit, stripped(unit)) !== 0
        : letters.some((letter) => letter !== unit && Math.sign(base.compare(unit, letter)) !== Math.sign(root.compare(unit, letter)) && !/[\u0370-\u04ff]/.test(letter) && !/[\u0370-\u04ff]/.test(unit)))));
  // What begins with such a letter, in normal form D, is that letter with one more accent.
  const start = (unit) => special.some((other) => other !== unit && unit.length === 1 && other.length === 1 && unit.normalize("NFD").startsWith(other.normalize("NFD")) && other !== stripped(unit));
  special.splice(0, special.length, ...special.filter((unit) => !start(unit)));
  const plain = letters.filter((letter) => !special.includes(letter));
  special.sort(full.compare);
  const runs = {};
  for (const unit of special) {
    let after = null;
    for (const letter of plain) if (base.compare(letter, unit) <= 0 && (after === null || base.compare(letter, after) >= 0)) after = letter;
    if (after === null) continue;
    const run = (runs[after] ??= []);
    const last = run[run.length - 1];
    if (last ? base.compare(last[0] || after, unit) === 0 : base.compare(after, unit) === 0) {
      if (last) last.push(unit);
      else run.push(["", unit]);
    } else run.push([unit]);
  }
  if (special.length) own.units = Object.entries(runs).map(([letter, run]) => `${letter}<${run.map((group) => group.join(",")).join("<")}`).join(" ");
  const first = [["\u03b1", "Grek"], ["\u0430", "Cyrl"], ["\u05d0", "Hebr"]].filter(([letter]) => base.compare(letter, "z") < 0).map((item) => item[1]);
  if (first.length) own.first = first[0];
  if (full.compare("a", "A") > 0) own.upper = 1;
  const marks = sortedMarks(full);
  if (marks !== sortedMarks(new Intl.Collator("en"))) own.marks = marks;
  if (full.compare("cot\u00e9", "c\u00f4te") > 0) own.backwards = 1;
  if (new Intl.Collator(tag).resolvedOptions().ignorePunctuation) own.ignore = 1;
  return own;
}

// Languages that have a name of their own in a region or script, as English has British English.
const DIALECTS = (
  "ar-001 az-Arab de-AT de-CH en-AU en-CA en-GB en-US es-419 es-ES es-MX fa-AF fr-CA fr-CH hi-Latn nds-NL nl-BE pt-BR pt-PT ro-MD sr-ME sw-CD zh-Hans zh-Hant"
).split(" ");
function dialects(tag) {
  const names = new Intl.DisplayNames(tag, { type: "language" });
  return Object.fromEntries(DIALECTS.map((code) => [code, names.of(code)]));
}

const answer = { dialects: {}, more: {}, words: {}, narrow: {}, buddhist: {} };
for (const tag of given.tags) {
  answer.more[tag] = {
    A: glue(tag),
    z: offsets(tag),
    c: separators(tag),
    g: /^.\D/u.test((1234).toLocaleString(tag, { useGrouping: "auto" }).replace(/\p{Nd}/gu, "1")) ? 1 : 2,
  };
  answer.dialects[tag] = dialects(tag);
  answer.words[tag] = words(tag);
  answer.narrow[tag] = {};
  for (const currency of given.currencies) {
    answer.narrow[tag][currency] = symbol(tag, currency, "narrowSymbol");
  }
}
for (const tag of given.tags.filter((tag) => tag === "th")) answer.buddhist[tag] = buddhist(tag);
answer.collation = collation(given.tags.filter((tag) => !tag.includes("-") || tag === "fr-CA"));
answer.zones = Object.fromEntries(Intl.supportedValuesOf("timeZone").map((zone) => [zone, zoneHistory(zone)]));
console.log(JSON.stringify(answer));
