// Writes intl_cases.json: what Node's Intl (the oracle) answers to the cases. `node intl_cases.js`, with Node 24 or later
// and full ICU: older ones still have hourCycle as ECMA-402 had it before 2023.
"use strict";
const fs = require("fs");
const path = require("path");

const LOCALES = (
  "en-US en-GB en-AU en-CA en-IN en-NZ de de-AT de-CH fr fr-CA fr-CH es es-MX it pt-BR pt-PT nl sv da nb fi pl cs sk hu ro bg uk ru el tr "
  + "he ar ar-EG hi bn th vi id ja ko zh-CN zh-TW hr sl et lv lt ca"
).split(" ");
const NUMBERS = [1234567.891, -0.5, 21];
const MONEY = [1234.5, -0.005];
const WHEN = [Date.UTC(2026, 10, 23, 14, 5, 6, 789), Date.UTC(1999, 2, 1, 0, 30)];
const SOME = [WHEN[0]];
const WORDS = [
  ["zebra", "Ähre", "ähre", "apfel", "Öl", "ofen", "übung", "unter", "ß", "ss", "st"], ["cote", "coté", "côte", "côté"],
  ["ñu", "nz", "oca", "na"], ["čaj", "cukr", "dům", "chata", "hora"], ["łza", "lza", "mysz", "ławka"], ["a b", "ab", "a-b", "aB", "A-b"],
];
const CASES = [
  ["number", {}, [...NUMBERS, 1234, 0.1 + 0.2, 1e21, -1e-7]],
  ["number", { style: "percent", maximumFractionDigits: 1 }, [0.1256]], ["number", { minimumFractionDigits: 2, maximumFractionDigits: 2 }, [1.005, 2.5, 1234.565]],
  ["number", { maximumSignificantDigits: 3 }, [123456, 0.0012345]],
  ["number", { style: "currency", currency: "EUR" }, MONEY], ["number", { style: "currency", currency: "USD" }, MONEY], ["number", { style: "currency", currency: "JPY" }, MONEY],
  ["number", { style: "currency", currency: "CHF", currencyDisplay: "code" }, [1234.5]], ["number", { style: "currency", currency: "USD", currencyDisplay: "narrowSymbol" }, [5]],
  ["number", { style: "currency", currency: "GBP", currencyDisplay: "name" }, [1, 2.5]], ["number", { style: "currency", currency: "USD", currencySign: "accounting" }, [-1234.5]],
  ["number", { notation: "compact" }, [950, 15300, 1234567]], ["number", { notation: "compact", compactDisplay: "long" }, [15300, 1e6, 2.5e9]],
  ["number", { notation: "scientific" }, [123456]], ["number", { notation: "engineering" }, [123456]], ["number", { signDisplay: "exceptZero" }, [0, 5, -5]],
  ["number", { useGrouping: false }, [12345.6]], ["number", { useGrouping: "min2" }, [1234, 12345]],
  ["number", { style: "unit", unit: "kilometer-per-hour" }, [88]], ["number", { style: "unit", unit: "liter", unitDisplay: "long" }, [1, 2, 5]],
  ["number", { style: "unit", unit: "celsius", unitDisplay: "narrow" }, [21.5]], ["number", { style: "unit", unit: "gigabyte" }, [1.5]],
  ["parts", { of: "NumberFormat", style: "currency", currency: "EUR" }, [-1234.5]],
  ["date", {}, WHEN], ["date", { dateStyle: "full", timeStyle: "long" }, WHEN], ["date", { dateStyle: "long" }, SOME], ["date", { dateStyle: "medium", timeStyle: "short" }, WHEN],
  ["date", { dateStyle: "short" }, SOME], ["date", { timeStyle: "medium" }, WHEN],
  ["date", { year: "numeric", month: "2-digit", day: "2-digit" }, WHEN], ["date", { year: "numeric", month: "long" }, SOME], ["date", { month: "short", day: "numeric" }, SOME],
  ["date", { weekday: "long", month: "long", day: "numeric" }, SOME], ["date", { weekday: "short", hour: "2-digit", minute: "2-digit" }, SOME],
  ["date", { year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "2-digit", second: "2-digit" }, WHEN],
  ["date", { hour: "numeric", minute: "2-digit", hour12: true }, WHEN], ["date", { hour: "numeric", minute: "2-digit", hourCycle: "h23" }, WHEN],
  ["date", { hour: "numeric", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 }, SOME],
  ["date", { month: "long" }, SOME], ["date", { weekday: "long" }, SOME], ["date", { year: "numeric", era: "short" }, SOME],
  ["date", { timeZone: "America/New_York", timeStyle: "full" }, WHEN], ["date", { timeZone: "Asia/Kolkata", hour: "numeric", timeZoneName: "longOffset" }, SOME],
  ["date", { timeZone: "Europe/Berlin", hour: "2-digit", minute: "2-digit", timeZoneName: "short" }, SOME],
  ["parts", { of: "DateTimeFormat", timeZone: "UTC", dateStyle: "long", timeStyle: "short" }, SOME],
  ["relative", {}, [[1, "day"], [-3, "months"], [5, "year"], [-1.5, "hour"]]], ["relative", { numeric: "auto" }, [[0, "day"], [1, "day"], [-1, "week"], [2, "day"], [0, "second"]]],
  ["relative", { style: "short" }, [[-2, "month"], [3, "hour"]]],
  ["list", {}, [["a", "b"], ["a", "b", "c"], ["uno", "hijo"]]], ["list", { type: "disjunction", style: "short" }, [["a", "b", "ocho"]]], ["list", { type: "unit", style: "narrow" }, [["a", "b", "c"]]],
  ["plural", {}, [0, 1, 2, 3, 5, 11, 21, 1.5, 1000000]], ["plural", { type: "ordinal" }, [1, 2, 3, 4, 11, 22]],
  ["name", { type: "region" }, ["DE", "US", "JP", "419"]], ["name", { type: "language" }, ["de", "en-GB", "pt-BR", "zh-Hans", "es-CL"]], ["name", { type: "currency" }, ["EUR", "USD"]],
  ["sort", {}, WORDS], ["sort", { sensitivity: "base" }, [["b", "a", "ä", "c"]]], ["sort", { numeric: true }, [["a10", "a9", "a1"]]],
];

const answer = eval(fs.readFileSync(path.join(__dirname, "intl_answer.js"), "utf8"));
const locales = Object.fromEntries(LOCALES.map((locale) => [locale, CASES.map((item) => answer(Intl, item, locale))]));
const versions = { icu: process.versions.icu, cldr: process.versions.cldr, node: process.versions.node };
const lines = Object.entries(locales).map(([locale, results]) => `${JSON.stringify(locale)}: ${JSON.stringify(results)}`);
const cases = CASES.map((item) => "  " + JSON.stringify(item)).join(",\n");
fs.writeFileSync(path.join(__dirname, "intl_cases.json"), `{"versions": ${JSON.stringify(versions)},\n"cases": [\n${cases}\n],\n"locales": {\n${lines.join(",\n")}\n}}\n`);
