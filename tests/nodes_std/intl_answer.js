// What a case asks of Intl; evaluated by Node, which makes the answers, and by the sandbox, which is to give the same.
(function (Intl, [kind, options, values], locale) {
  const zone = { timeZone: "UTC", ...options };
  const made = {
    number: () => { const format = new Intl.NumberFormat(locale, options); return (value) => format.format(value); },
    date: () => { const format = new Intl.DateTimeFormat(locale, zone); return (value) => format.format(value); },
    relative: () => { const format = new Intl.RelativeTimeFormat(locale, options); return ([value, unit]) => format.format(value, unit); },
    list: () => { const format = new Intl.ListFormat(locale, options); return (value) => format.format(value); },
    plural: () => { const rules = new Intl.PluralRules(locale, options); return (value) => rules.select(value); },
    name: () => { const names = new Intl.DisplayNames(locale, options); return (value) => names.of(value); },
    sort: () => { const collator = new Intl.Collator(locale, options); return (value) => value.slice().sort(collator.compare).join(" "); },
    parts: () => {
      const format = new Intl[options.of](locale, options);
      return (value) => format.formatToParts(value).map((part) => `${part.type}:${part.value}`).join("|").replaceAll("\u202f", " ");
    },
  }[kind]();
  return values.map((value) => {
    try {
      return made(value);
    } catch (error) {
      return `${error.name}`;
    }
  });
})
