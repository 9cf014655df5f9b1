// The third script of `Intl`: time zones, DateTimeFormat, and toLocale…String of dates. Patterns come from skeletons as
// UTS 35 and ICU have it: the nearest of the locale's patterns, its fields made as wide as asked for.
(function (shared) {
  "use strict";

  const { global, data, lazy, pairs, section, resolve, option, integer, numberingSystem, inDigits, joined } = shared;
  const { Array, Boolean, Date, JSON, Map, Math, Number, Object, RangeError, Reflect, String, TypeError } = global;
  const now = Date.now;
  const { getTime } = Date.prototype;

  // ---- time zones ------------------------------------------------------------------------------------------------

  // By name in lower case: [name, rules]. The rules are decoded when first used.
  const zoneNames = lazy(() => {
    const found = new Map();
    for (const line of data.zones.split("\n")) {
      const [names, rules] = line.split("\t");
      for (const name of names.split(" ")) found.set(name.toLowerCase(), [name, rules]);
    }
    return found;
  });
  const zones = new Map();
  const zoneAliases = lazy(() => pairs(data.zonealiases));

  // {name, types: [{offset, summer}], times, kinds, tail, fixed}. Offsets and times are in seconds.
  function zoneOf(name) {
    if (name === "UTC") return UTC;
    const offset = /^([+-])([01]\d|2[0-3])(?::?([0-5]\d))?$/.exec(name);
    if (offset) {
      const seconds = (Number(offset[2]) * 60 + Number(offset[3] ?? 0)) * 60 * (offset[1] === "-" ? -1 : 1);
      const sign = seconds === 0 ? "+" : offset[1];
      return { ...UTC, name: `${sign}${offset[2]}:${offset[3] ?? "00"}`, types: [{ offset: seconds, summer: false }], fixed: true };
    }
    const found = zoneNames().get(name.toLowerCase());
    if (!found) throw new RangeError(`Invalid time zone specified: ${name}: it is a name such as Europe/Berlin, UTC, or an offset such as +05:30`);
    const [proper, rules] = found;
    if (!zones.has(proper)) zones.set(proper, decode(proper, rules));
    return zones.get(proper);
  }

  const UTC = { name: "UTC", types: [{ offset: 0, summer: false }], times: [], kinds: [], tail: null, fixed: false };

  function decode(name, rules) {
    const [types, transitions, tail] = rules.split(" ");
    const times = [];
    const kinds = [];
    let at = 0;
    for (const [, delta, kind] of transitions.matchAll(/(-?[0-9a-z]+)([A-Z])/g)) {
      at += Number.parseInt(delta, 36);
      times.push(at);
      kinds.push(kind.charCodeAt(0) - 65);
    }
    return {
      name, times, kinds, tail: posix(tail), fixed: false,
      types: types.split(",").map((type) => ({ offset: Number.parseInt(type, 36), summer: type.endsWith("!") })),
    };
  }

  function seconds(text) {
    const [hours, minutes = "0", rest = "0"] = text.replace(/^[+-]/, "").split(":");
    return (Number(hours) * 3600 + Number(minutes) * 60 + Number(rest)) * (text.startsWith("-") ? -1 : 1);
  }

  // The rule for all time after the last transition: null, or {standard, summer, start, end}.
  function posix(text) {
    const found = /^~([+-]?[\d:]+)(?:~([+-]?[\d:]+)?,([^,]+),([^,]+))?$/.exec(text ?? "");
    if (!found) return null;
    const standard = -seconds(found[1]);
    if (!found[3]) return { standard, summer: standard, start: null, end: null };
    return { standard, summer: found[2] ? -seconds(found[2]) : standard + 3600, start: change(found[3]), end: change(found[4]) };
  }

  function change(text) {
    const [day, time = "2"] = text.split("/");
    const month = /^M(\d+)\.(\d+)\.(\d+)$/.exec(day);
    if (month) return { month: Number(month[1]), week: Number(month[2]), weekday: Number(month[3]), time: seconds(time) };
    return { month: 0, day: Number(day.replace("J", "")), julian: day.startsWith("J"), time: seconds(time) };
  }

  // When a change happens in a year, in seconds of local time.
  function changeIn(year, rule) {
    if (!rule.month) {
      const leap = rule.julian && rule.day >= 60 && daysOf(year, 3, 1) - daysOf(year, 2, 28) === 2;
      return (daysOf(year, 1, 1) + rule.day - (rule.julian ? 1 : 0) + (leap ? 1 : 0)) * 86400 + rule.time;
    }
    const first = daysOf(year, rule.month, 1);
    let day = first + ((rule.weekday - weekdayOf(first) + 7) % 7) + (rule.week - 1) * 7;
    const next = rule.month === 12 ? daysOf(year + 1, 1, 1) : daysOf(year, rule.month + 1, 1);
    while (day >= next) day -= 7;
    return day * 86400 + rule.time;
  }

  // {offset, summer} of a zone at a time in seconds since 1970.
  function offsetAt(zone, at) {
    const { times, kinds, types, tail } = zone;
    let low = 0;
    let high = times.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (times[middle] <= at) low = middle + 1;
      else high = middle;
    }
    if (low < times.length || !tail) return types[low ? kinds[low - 1] : 0];
    if (!tail.start) return { offset: tail.standard, summer: false };
    const { year } = civil(Math.floor((at + tail.standard) / 86400));
    const start = changeIn(year, tail.start) - tail.standard;
    const end = changeIn(year, tail.end) - tail.summer;
    const summer = start < end ? at >= start && at < end : !(at >= end && at < start);
    return { offset: summer ? tail.summer : tail.standard, summer };
  }

  // ---- the calendar ----------------------------------------------------------------------------------------------

  // Days since 1970 of a date of the Gregorian calendar, which holds for all time here, and back.
  function daysOf(year, month, day) {
    const y = month <= 2 ? year - 1 : year;
    const era = Math.floor(y / 400);
    const dayOfYear = Math.floor((153 * (month > 2 ? month - 3 : month + 9) + 2) / 5) + day - 1;
    const yearOfEra = y - era * 400;
    return era * 146097 + yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear - 719468;
  }

  function civil(days) {
    const z = days + 719468;
    const era = Math.floor(z / 146097);
    const dayOfEra = z - era * 146097;
    const yearOfEra = Math.floor((dayOfEra - Math.floor(dayOfEra / 1460) + Math.floor(dayOfEra / 36524) - Math.floor(dayOfEra / 146096)) / 365);
    const dayOfYear = dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100));
    const m = Math.floor((5 * dayOfYear + 2) / 153);
    const month = m < 10 ? m + 3 : m - 9;
    return { year: yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, day: dayOfYear - Math.floor((153 * m + 2) / 5) + 1 };
  }

  function weekdayOf(days) {
    return (((days + 4) % 7) + 7) % 7;
  }

  function fieldsAt(time, zone) {
    const { offset, summer } = offsetAt(zone, Math.floor(time / 1000));
    const local = time + offset * 1000;
    const days = Math.floor(local / 86400000);
    const rest = local - days * 86400000;
    return {
      ...civil(days), weekday: weekdayOf(days), hour: Math.floor(rest / 3600000), minute: Math.floor(rest / 60000) % 60,
      second: Math.floor(rest / 1000) % 60, millisecond: rest % 1000, offset, summer, time,
    };
  }

  // ---- names of time zones ---------------------------------------------------------------------------------------

  function offsetText(format, offset, long) {
    const [longZero, shortZero, ...forms] = section(format.tag, "more").z;
    if (offset === 0) return inDigits(long ? longZero : shortZero, format.system);
    const size = Math.abs(offset);
    const [hours, minutes, rest] = [Math.floor(size / 3600), Math.floor(size / 60) % 60, size % 60];
    const pad = (number) => String(number).padStart(2, "0");
    const form = forms[(long ? 0 : minutes || rest ? 2 : 4) + (offset < 0 ? 1 : 0)];
    const between = /\{0\}(.*?)\{1\}/.exec(forms[0])[1];
    const text = form.replace("{0}", long ? pad(hours) : String(hours)).replace("{1}", pad(minutes) + (rest ? between + pad(rest) : ""));
    return inDigits(text, format.system);
  }

  // By zone: the meta zones that it was in, as [until, index]: until a time in seconds, the last for ever; index -1
  // means that the zone had none then, -2 that it had one whose names are not known here.
  const history = lazy(() => {
    const found = new Map();
    data.metazones.split(" ").forEach((item, index) => {
      for (const zone of item.slice(item.indexOf(":") + 1).split(",")) found.set(zone, [[Infinity, index]]);
    });
    for (const [zone, spans] of Object.entries(JSON.parse(data["*/metazones"]))) found.set(zone, spans.map(([until, index]) => [until ?? Infinity, index]));
    return found;
  });

  // Zones whose winter time the database calls the special one; CLDR names them the usual way round.
  const REVERSED = ["Europe/Dublin", "Eire"];

  function zoneText(format, fields, long) {
    const { zone } = format;
    if (zone.fixed) return offsetText(format, fields.offset, long);
    const summer = REVERSED.includes(zone.name) ? fields.offset !== 0 : fields.summer;
    const name = zoneAliases().get(zone.name) ?? zone.name;
    const which = summer ? 1 : 0;
    const texts = section(format.tag, "zone");
    const own = texts[long ? "lz" : "sz"][name === "UTC" || name === "Etc/UCT" ? "Etc/UTC" : name];
    if (own?.[which]) return own[which];
    const span = history().get(name)?.find(([until]) => fields.time / 1000 < until);
    if (span?.[1] === -2) throw new RangeError(`The name of the time zone ${zone.name} at that time is not known; use timeZoneName "${long ? "longOffset" : "shortOffset"}"`);
    const found = span && span[1] >= 0 ? texts[long ? "l" : "s"][span[1]]?.[which] : undefined;
    return found || offsetText(format, fields.offset, long);
  }

  // ---- patterns --------------------------------------------------------------------------------------------------

  // A pattern as a list of texts and {letter, size}.
  function tokens(pattern) {
    const found = [];
    const literal = (text) => {
      if (typeof found[found.length - 1] === "string") found[found.length - 1] += text;
      else found.push(text);
    };
    for (let i = 0; i < pattern.length; i++) {
      const letter = pattern[i];
      if (letter === "'") {
        if (pattern[i + 1] === "'") literal(pattern[i++]);
        else {
          for (i++; i < pattern.length && !(pattern[i] === "'" && pattern[i + 1] !== "'"); i++) {
            literal(pattern[i]);
            if (pattern[i] === "'") i++;
          }
        }
      } else if (/[A-Za-z]/.test(letter)) {
        let size = 1;
        while (pattern[i + size] === letter) size++;
        found.push({ letter, size });
        i += size - 1;
      } else literal(letter);
    }
    return found;
  }

  const FIELDS = ["G", "y", "Q", "ML", "w", "W", "Ece", "D", "F", "d", "abB", "hHkK", "m", "s", "S", "zvO"];
  const [YEAR, MONTH, WEEKDAY, PERIOD, HOUR, MINUTE, SECOND, FRACTION, ZONE] = [1, 3, 6, 10, 11, 12, 13, 14, 15];
  const DATE_FIELDS = (1 << PERIOD) - 1;
  const NUMERIC = 0x100;
  const DELTA = 0x10;
  const TEXT = { __proto__: null, 1: -0x103, 2: -0x103, 3: -0x103, 4: -0x104, 5: -0x101, 6: -0x102 };
  // How far a letter is from the usual one of its field, and whether it is a number when short.
  const LETTERS = {
    __proto__: null, G: [0], y: [0, 99], Q: [0, 2], M: [0, 2], L: [DELTA, 2], w: [0, 99], W: [0, 99], E: [0], c: [2 * DELTA, 2], e: [DELTA, 2],
    D: [0, 99], F: [DELTA, 99], d: [0, 99], a: [0], b: [DELTA], B: [3 * DELTA], h: [0, 99], H: [10 * DELTA, 99], k: [11 * DELTA, 99], K: [DELTA, 99],
    m: [0, 99], s: [0, 99], S: [0, 99], z: [0], v: [2 * DELTA], O: [DELTA],
  };

  function fieldOf(letter) {
    return FIELDS.findIndex((letters) => letters.includes(letter));
  }

  // {types, letters, sizes} by field.
  function skeletonOf(list) {
    const found = { types: new Array(16).fill(0), letters: [], sizes: [] };
    for (const item of list) {
      if (typeof item === "string") continue;
      const field = fieldOf(item.letter);
      const rule = LETTERS[item.letter];
      if (field < 0 || !rule) return null;
      const [away, numeric = 0] = rule;
      found.types[field] = item.size <= numeric ? NUMERIC + away + item.size : (TEXT[item.size] ?? TEXT[4]) - away;
      found.letters[field] = item.letter;
      found.sizes[field] = item.size;
    }
    const hour = found.letters[HOUR];
    if ((hour === "h" || hour === "K") && !found.types[PERIOD]) Object.assign(found.types, { [PERIOD]: TEXT[1] });
    if (hour === "H" || hour === "k") found.types[PERIOD] = 0;
    return found;
  }

  // Fields with their width as far as it makes another pattern: yMMdd and yMd are one base.
  function baseOf({ letters, sizes, types }) {
    return letters.map((letter, field) => (letter && types[field] ? letter.repeat(types[field] > 0 ? 1 : sizes[field]) : "")).join("");
  }

  const available = new Map();

  // All patterns of a locale and calendar: {list of tokens, skeleton, given: whether its skeleton was given}.
  function patternsOf(format) {
    const key = `${format.tag}/${format.calendar}`;
    if (available.has(key)) return available.get(key);
    const { D, T, S } = patternData(format);
    const found = [];
    const add = (pattern, skeletonText) => {
      const list = tokens(pattern);
      const skeleton = skeletonOf(skeletonText === null ? list : tokens(skeletonText));
      if (!skeleton) return;
      const base = baseOf(skeleton);
      if (skeletonText === null && found.some((other) => other.base === base)) return;
      const text = skeleton.types.join();
      const same = found.findIndex((other) => other.base === base && other.text === text);
      if (same >= 0) found.splice(same, 1);
      found.push({ list, skeleton, base, text, given: skeletonText !== null });
    };
    for (let i = 0; i < 4; i++) {
      add(D[i], null);
      add(T[i], null);
    }
    for (const letter of ["G", "y", "M", "E", "d", "B", "H", "m", "s", "S", "v"]) add(letter, null);
    for (const skeleton of Object.keys(S).sort()) add(S[skeleton], skeleton);
    const order = (item) => item.base.charCodeAt(0);
    found.sort((a, b) => order(a) - order(b));
    available.set(key, found);
    return found;
  }

  function patternData(format) {
    const own = section(format.tag, "date");
    if (format.calendar === "gregory") return own;
    const other = section(format.tag, "buddhist");
    const dates = {};
    for (const key of Object.keys(own.S)) if (!/[Gy]/.test(key)) dates[key] = own.S[key];
    return { ...own, D: other.D, S: { ...dates, ...other.S }, e: other.e };
  }

  function nearest(format, wanted, mask) {
    let best = null;
    let least = Infinity;
    for (const pattern of patternsOf(format)) {
      let distance = 0;
      let missing = 0;
      let extra = 0;
      for (let field = 0; field < 16; field++) {
        const mine = mask & (1 << field) ? wanted.types[field] : 0;
        const other = pattern.skeleton.types[field];
        if (mine === other) continue;
        if (mine === 0) {
          distance += 0x10000;
          extra |= 1 << field;
        } else if (other === 0) {
          distance += 0x1000;
          missing |= 1 << field;
        } else distance += Math.abs(mine - other);
      }
      if (distance < least) {
        least = distance;
        best = { pattern, missing, extra };
        if (distance === 0) break;
      }
    }
    return best;
  }

  // The tokens of a pattern, its fields as wide as asked for.
  function adjusted(format, pattern, wanted, fraction) {
    const made = [];
    for (const item of pattern.list) {
      if (typeof item === "string") {
        made.push(item);
        continue;
      }
      const field = fieldOf(item.letter);
      if (field === SECOND && fraction) {
        made.push(item, format.point, { letter: "S", size: wanted.sizes[FRACTION] });
        continue;
      }
      const asked = wanted.letters[field];
      if (field < 0 || asked === undefined || !wanted.types[field]) {
        made.push(item);
        continue;
      }
      const length = asked === "E" && wanted.sizes[field] < 3 ? 3 : wanted.sizes[field];
      let size = length;
      if (field === MINUTE || field === SECOND) size = item.size;
      else if (pattern.given && asked !== "c" && asked !== "e") {
        const itemNumeric = skeletonOf([item]).types[field] > 0;
        const askedNumeric = wanted.types[field] > 0;
        const specified = pattern.skeleton.letters[field] === "E" ? Math.max(3, pattern.skeleton.sizes[field]) : pattern.skeleton.sizes[field];
        if (specified === length || itemNumeric !== askedNumeric) size = item.size;
      }
      const letter = [HOUR, MONTH, WEEKDAY, YEAR].includes(field) ? item.letter : asked;
      made.push({ letter, size: letter === "E" ? Math.max(size, 3) : size });
    }
    return made;
  }

  function appended(format, wanted, mask) {
    if (!mask) return [];
    const first = nearest(format, wanted, mask);
    let made = adjusted(format, first.pattern, wanted, false);
    let { missing } = first;
    const fraction = (1 << SECOND) | (1 << FRACTION);
    if ((missing & fraction) === 1 << FRACTION && (mask & fraction) === fraction) {
      made = adjusted(format, first.pattern, wanted, true);
      missing &= ~(1 << FRACTION);
    }
    while (missing) {
      const next = nearest(format, wanted, missing);
      const found = missing & ~next.missing;
      // What ICU would write here is a list with names of fields, such as "2026 (day: 23)": hardly what is wanted.
      const top = 31 - Math.clz32(found);
      if (!found || next.extra || top !== ZONE) throw unsupported(format, wanted);
      made = [...made, " ", ...adjusted(format, next.pattern, wanted, false)];
      missing = next.missing;
    }
    if (first.extra) throw unsupported(format, wanted);
    return made;
  }

  function unsupported(format, wanted) {
    return new RangeError(
      `The locale ${format.locale} has no pattern for this combination of date and time fields (${wanted.letters.filter(Boolean).join("")}): add or leave out fields, or use dateStyle and timeStyle`);
  }

  function glued(format, date, time, style) {
    const made = [];
    for (const piece of section(format.tag, "more").A[style].split(/(\{[01]\})/)) {
      if (piece === "{0}") made.push(...time);
      else if (piece === "{1}") made.push(...date);
      else if (piece) made.push(piece);
    }
    return made;
  }

  function bestPattern(format, list) {
    const wanted = skeletonOf(list);
    const whole = nearest(format, wanted, -1);
    if (!whole.missing && !whole.extra) return adjusted(format, whole.pattern, wanted, false);
    let mask = 0;
    wanted.types.forEach((type, field) => {
      if (type) mask |= 1 << field;
    });
    const date = appended(format, wanted, mask & DATE_FIELDS);
    const time = appended(format, wanted, mask & ~DATE_FIELDS);
    if (!date.length || !time.length) return date.length ? date : time;
    const month = wanted.types[MONTH] < 0 ? wanted.sizes[MONTH] : 0;
    const style = month === 4 ? (wanted.types[WEEKDAY] ? 0 : 1) : month === 3 ? 2 : 3;
    return glued(format, date, time, style);
  }

  // ---- formatting ------------------------------------------------------------------------------------------------

  const WIDTH = { __proto__: null, 1: "abbreviated", 2: "abbreviated", 3: "abbreviated", 4: "wide", 5: "narrow", 6: "short" };
  const TYPES = {
    __proto__: null, G: "era", y: "year", M: "month", L: "month", E: "weekday", c: "weekday", e: "weekday", d: "day", a: "dayPeriod", B: "dayPeriod",
    h: "hour", H: "hour", k: "hour", K: "hour", m: "minute", s: "second", S: "fractionalSecond", z: "timeZoneName", O: "timeZoneName", v: "timeZoneName",
  };

  // A period of the day by name, as wide as asked for; a width that has no name for it has another one's.
  function periodName(format, name, size) {
    const { p } = section(format.tag, "date");
    for (const width of [WIDTH[size], "abbreviated", "wide", "narrow"]) if (p.format[width]?.[name]) return p.format[width][name];
    return undefined;
  }

  function dayPeriod(format, fields, size) {
    const { r } = section(format.tag, "date");
    if (r.noon && fields.hour === 12 && fields.minute === 0 && fields.second === 0) return periodName(format, "noon", size);
    for (const name of Object.keys(r)) {
      const [from, before] = r[name];
      const inside = from < before ? fields.hour >= from && fields.hour < before : from > before && (fields.hour >= from || fields.hour < before);
      if (inside) return periodName(format, name, size) ?? periodName(format, fields.hour < 12 ? "am" : "pm", size);
    }
    return periodName(format, fields.hour < 12 ? "am" : "pm", size);
  }

  function fieldText(format, fields, { letter, size }) {
    const number = (value, least = size) => inDigits(String(value).padStart(least, "0"), format.system);
    const texts = format.texts;
    switch (letter) {
      case "G": {
        const names = texts.e[WIDTH[size]] ?? texts.e.abbreviated;
        return names.length === 1 ? names[0] : names[fields.year > 0 ? 1 : 0];
      }
      case "y": {
        const year = format.calendar === "buddhist" ? fields.year + 543 : fields.year > 0 ? fields.year : 1 - fields.year;
        return size === 2 ? number(year % 100) : number(year);
      }
      case "M": case "L":
        if (size < 3) return number(fields.month);
        return texts.m[letter === "M" ? "format" : "stand-alone"][WIDTH[size]][fields.month - 1];
      case "E": case "c": case "e":
        if (letter !== "E" && size < 3) throw new RangeError(`a weekday as a number is not supported`);
        return texts.w[letter === "c" ? "stand-alone" : "format"][WIDTH[size]][fields.weekday];
      case "d": return number(fields.day);
      case "a": return periodName(format, fields.hour < 12 ? "am" : "pm", size);
      case "B": return dayPeriod(format, fields, size);
      case "h": return number(fields.hour % 12 || 12);
      case "K": return number(fields.hour % 12);
      case "H": return number(fields.hour);
      case "k": return number(fields.hour || 24);
      case "m": return number(fields.minute);
      case "s": return number(fields.second);
      case "S": return inDigits(String(fields.millisecond).padStart(3, "0").padEnd(size, "0").slice(0, size), format.system);
      case "z": return zoneText(format, fields, size === 4);
      case "O": return offsetText(format, fields.offset, size === 4);
      default: throw new RangeError(`the field ${letter} of a date pattern is not supported`);
    }
  }

  function dateParts(format, date) {
    const time = date === undefined ? now() : Number(date);
    if (!(Math.abs(time) <= 8.64e15)) throw new RangeError("Invalid time value");
    const fields = fieldsAt(Math.trunc(time) + 0, format.zone);
    const parts = [];
    for (const item of format.pattern) {
      const type = typeof item === "string" ? "literal" : TYPES[item.letter];
      // As all engines do: a plain space before AM and PM, not the narrow one of newer CLDR versions.
      const value = (typeof item === "string" ? item : fieldText(format, fields, item)).replaceAll("\u202f", " ");
      const last = parts[parts.length - 1];
      if (type === "literal" && last?.type === "literal") last.value += value;
      else parts.push({ type, value });
    }
    return parts;
  }

  // ---- Intl.DateTimeFormat ---------------------------------------------------------------------------------------

  const TEXTUAL = ["narrow", "short", "long"];
  const OPTIONS = [
    ["weekday", TEXTUAL, { short: "EEE", long: "EEEE", narrow: "EEEEE" }], ["era", TEXTUAL, { short: "G", long: "GGGG", narrow: "GGGGG" }],
    ["year", ["2-digit", "numeric"], { "2-digit": "yy", numeric: "y" }],
    ["month", ["2-digit", "numeric", ...TEXTUAL], { "2-digit": "MM", numeric: "M", short: "MMM", long: "MMMM", narrow: "MMMMM" }],
    ["day", ["2-digit", "numeric"], { "2-digit": "dd", numeric: "d" }], ["dayPeriod", TEXTUAL, { short: "B", long: "BBBB", narrow: "BBBBB" }],
    ["hour", ["2-digit", "numeric"], { "2-digit": "hh", numeric: "h" }], ["minute", ["2-digit", "numeric"], { "2-digit": "mm", numeric: "m" }],
    ["second", ["2-digit", "numeric"], { "2-digit": "ss", numeric: "s" }],
  ];
  const ZONE_NAMES = { short: "z", long: "zzzz", shortOffset: "O", longOffset: "OOOO", shortGeneric: "v", longGeneric: "vvvv" };
  const DATE_OPTIONS = ["weekday", "year", "month", "day"];
  const TIME_OPTIONS = ["dayPeriod", "hour", "minute", "second", "fractionalSecondDigits"];
  const CYCLES = { __proto__: null, h11: "K", h12: "h", h23: "H", h24: "k" };
  const STYLES = ["full", "long", "medium", "short"];

  function calendarOf(found, asked) {
    const usual = section(found.tag, "buddhist") ? "buddhist" : "gregory";
    const name = String(asked ?? found.keys.get("ca")?.join("-") ?? usual).toLowerCase();
    if (!/^[a-z0-9]{3,8}(-[a-z0-9]{3,8})*$/.test(name)) throw new RangeError(`Invalid calendar : ${name}`);
    const calendar = name === "gregorian" ? "gregory" : name;
    if (calendar !== "gregory" && calendar !== usual) throw new RangeError(`The calendar ${name} is not supported for ${found.locale}; leave it out, or use gregory`);
    return calendar;
  }

  function cycleOf(found, given) {
    const hour12 = given.hour12 === undefined ? undefined : Boolean(given.hour12);
    let cycle = option(given, "hourCycle", ["h11", "h12", "h23", "h24"], undefined);
    const own = tokens(section(found.tag, "date").T[3]).find((item) => item.letter && "hHkK".includes(item.letter)).letter;
    if (hour12 === true) return "h12";
    if (hour12 === false) return "h23";
    if (cycle === undefined && found.keys.has("hc")) cycle = found.keys.get("hc").join("-");
    if (cycle in CYCLES) return cycle;
    return { h: "h12", H: "h23", k: "h24", K: "h11" }[own];
  }

  function readFields(given) {
    const fields = {};
    for (const [name, allowed] of OPTIONS) fields[name] = option(given, name, allowed, undefined);
    fields.fractionalSecondDigits = integer(given.fractionalSecondDigits, "fractionalSecondDigits", 1, 3, undefined);
    fields.timeZoneName = option(given, "timeZoneName", Object.keys(ZONE_NAMES), undefined);
    return fields;
  }

  // `required` and `defaults` as ECMA-402 has them: "date", "time", "any"; "date", "time", "all".
  function makeFormat(locales, options, required, defaults) {
    const found = resolve(locales);
    const given = options === undefined ? { __proto__: null } : Object(options);
    if (options === null) throw new TypeError("Cannot convert undefined or null to object");
    option(given, "localeMatcher", ["lookup", "best fit"], "best fit");
    const format = { locale: found.locale, tag: found.tag, calendar: calendarOf(found, given.calendar), system: numberingSystem(found, given.numberingSystem) };
    const cycle = cycleOf(found, given);
    format.zone = zoneOf(given.timeZone === undefined ? "UTC" : String(given.timeZone));
    const fields = readFields(given);
    option(given, "formatMatcher", ["basic", "best fit"], "best fit");
    format.dateStyle = option(given, "dateStyle", STYLES, undefined);
    format.timeStyle = option(given, "timeStyle", STYLES, undefined);
    const numbers = section(found.tag, "number");
    format.point = (numbers.s[format.system] ?? section(found.tag, "more").c)[0];
    format.texts = patternData(format);
    if (format.dateStyle || format.timeStyle) {
      const single = Object.keys(fields).find((name) => fields[name] !== undefined);
      if (single) throw new TypeError(`Can't set option ${single} when ${format.dateStyle ? "dateStyle" : "timeStyle"} is used`);
      if (required === "date" && format.timeStyle) throw new TypeError("Invalid option : timeStyle");
      if (required === "time" && format.dateStyle) throw new TypeError("Invalid option : dateStyle");
      format.pattern = stylePattern(format, cycle);
    } else {
      withDefaults(fields, required, defaults);
      format.pattern = bestPattern(format, skeletonFor(fields, cycle));
    }
    const letter = CYCLES[cycle];
    format.pattern = format.pattern.map((item) => (item.letter && "hHkK".includes(item.letter) ? { letter, size: item.size } : item));
    format.cycle = format.pattern.some((item) => item.letter === letter) ? cycle : undefined;
    return format;
  }

  function withDefaults(fields, required, defaults) {
    const none = (names) => names.every((name) => fields[name] === undefined);
    const needed = (required === "time" || none(DATE_OPTIONS)) && (required === "date" || none(TIME_OPTIONS));
    if (!needed) return;
    if (defaults !== "time") Object.assign(fields, { year: "numeric", month: "numeric", day: "numeric" });
    if (defaults !== "date") Object.assign(fields, { hour: "numeric", minute: "numeric", second: "numeric" });
  }

  function skeletonFor(fields, cycle) {
    const twelve = cycle === "h11" || cycle === "h12";
    let text = "";
    for (const [name, , letters] of OPTIONS) {
      if (fields[name] === undefined || (name === "dayPeriod" && fields.hour !== undefined && !twelve)) continue;
      const letter = letters[fields[name]];
      text += name === "hour" && !twelve ? letter.toUpperCase() : letter;
    }
    if (fields.fractionalSecondDigits) text += "S".repeat(fields.fractionalSecondDigits);
    if (fields.timeZoneName) {
      const letters = ZONE_NAMES[fields.timeZoneName];
      if (letters.startsWith("v")) throw new RangeError(`timeZoneName "${fields.timeZoneName}" is not supported: use short, long, shortOffset or longOffset`);
      text += letters;
    }
    return tokens(text);
  }

  function stylePattern(format, cycle) {
    const date = format.dateStyle && tokens(format.texts.D[STYLES.indexOf(format.dateStyle)]);
    let time = format.timeStyle && tokens(format.texts.T[STYLES.indexOf(format.timeStyle)]);
    if (time) {
      const twelve = cycle === "h11" || cycle === "h12";
      const hour = time.find((item) => item.letter && "hHkK".includes(item.letter));
      if ("hK".includes(hour.letter) !== twelve) {
        const fields = time.filter((item) => item.letter && !"abB".includes(item.letter));
        time = bestPattern(format, fields.map((item) => (item === hour ? { letter: twelve ? "h" : "H", size: item.size } : item)));
      }
    }
    return date && time ? glued(format, date, time, STYLES.indexOf(format.dateStyle)) : date || time;
  }

  function resolvedFields(format) {
    const made = {};
    for (const item of format.pattern) {
      if (typeof item === "string") continue;
      const name = TYPES[item.letter];
      const { letter, size } = item;
      if (name === "fractionalSecond") made.fractionalSecondDigits = size;
      else if (name === "timeZoneName") made[name] = (size === 4 ? "long" : "short") + (letter === "O" ? "Offset" : "");
      else if (["era", "weekday"].includes(name) || letter === "B" || (name === "month" && size > 2)) {
        made[name] = size === 4 ? "long" : size === 5 ? "narrow" : "short";
      } else if (letter !== "a") made[name] = size === 2 ? "2-digit" : "numeric";
    }
    const order = ["weekday", "era", "year", "month", "day", "dayPeriod", "hour", "minute", "second", "fractionalSecondDigits", "timeZoneName"];
    return Object.fromEntries(order.filter((name) => name in made).map((name) => [name, made[name]]));
  }

  class DateTimeFormat {
    #format;
    #bound;
    constructor(locales = undefined, options = undefined) {
      this.#format = makeFormat(locales, options, "any", "date");
    }
    get format() {
      return (this.#bound ??= (date = undefined) => joined(dateParts(this.#format, date)));
    }
    formatToParts(date = undefined) {
      return dateParts(this.#format, date);
    }
    formatRange(start, end) {
      return joined(this.formatRangeToParts(start, end));
    }
    formatRangeToParts(start, end) {
      if (start === undefined || end === undefined) throw new TypeError("startDate or endDate cannot be undefined");
      const parts = dateParts(this.#format, start);
      if (joined(parts) !== joined(dateParts(this.#format, end))) {
        throw new TypeError("Intl.DateTimeFormat.prototype.formatRange is not supported for ends that differ: format both and join them");
      }
      return parts.map((part) => ({ ...part, source: "shared" }));
    }
    resolvedOptions() {
      const format = this.#format;
      const made = { locale: format.locale, calendar: format.calendar, numberingSystem: format.system, timeZone: format.zone.name };
      if (format.cycle) Object.assign(made, { hourCycle: format.cycle, hour12: format.cycle === "h11" || format.cycle === "h12" });
      if (!format.dateStyle && !format.timeStyle) return Object.assign(made, resolvedFields(format));
      if (format.dateStyle) made.dateStyle = format.dateStyle;
      if (format.timeStyle) made.timeStyle = format.timeStyle;
      return made;
    }
  }

  shared.install("DateTimeFormat", DateTimeFormat, true);

  // An invalid date says so in any locale; anything that is no Date is refused, as by all methods of dates.
  function localeText(date, locales, options, required, defaults) {
    const time = Reflect.apply(getTime, date, []);
    const format = makeFormat(locales, options, required, defaults);
    return Number.isNaN(time) ? "Invalid Date" : joined(dateParts(format, time));
  }

  shared.method(Date.prototype, {
    toLocaleString(locales = undefined, options = undefined) { return localeText(this, locales, options, "any", "all"); },
    toLocaleDateString(locales = undefined, options = undefined) { return localeText(this, locales, options, "date", "date"); },
    toLocaleTimeString(locales = undefined, options = undefined) { return localeText(this, locales, options, "time", "time"); },
  });

  shared.timeZones = () => [...zoneNames().values()].map((item) => item[0]).sort();
})
