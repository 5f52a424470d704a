// Numbers for people. Bytes are in powers of 1024, as everywhere in unfreed.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** `1.50 MiB`, `-3 B`. */
export function bytes(value: number): string {
  let size = Math.abs(value);
  let unit = 0;
  while (size >= 1024 && unit < UNITS.length - 1) {
    size /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || size >= 100 ? 0 : size >= 10 ? 1 : 2;
  return `${value < 0 ? "-" : ""}${size.toFixed(digits)} ${UNITS[unit]}`;
}

/** The same with its sign. */
export function change(value: number): string {
  return value > 0 ? `+${bytes(value)}` : bytes(value);
}

/** `+1.50 MiB/min`, in the unit of time in which it is not tiny. */
export function rate(perSecond: number): string {
  const size = Math.abs(perSecond);
  if (size >= 1024) return `${change(perSecond)}/s`;
  if (size * 60 >= 1024) return `${change(perSecond * 60)}/min`;
  return `${change(perSecond * 3600)}/h`;
}

/** `1,234`. */
export function count(value: number): string {
  return value.toLocaleString("en");
}

/** `2 d 3 h`, `5 min`, `12 s`. */
export function duration(seconds: number): string {
  const parts: [number, string][] = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const rounded = Math.max(0, Math.round(seconds));
  const first = parts.findIndex(([size]) => rounded >= size);
  if (first < 0) return "0 s";
  let rest = rounded;
  const said: string[] = [];
  for (const [size, name] of parts.slice(first, first + 2)) {
    const number = Math.floor(rest / size);
    rest -= number * size;
    if (number > 0) said.push(`${number} ${name}`);
  }
  return said.join(" ");
}

const two = (value: number) => String(value).padStart(2, "0");

/** A time of the reader's clock, with its day if that is not today. */
export function time(milliseconds: number): string {
  const at = new Date(milliseconds);
  const clock = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  if (at.toDateString() === new Date().toDateString()) return clock;
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock}`;
}

/** `93 %`. */
export function percent(part: number, whole: number): string {
  if (whole === 0) return "";
  const value = (100 * part) / whole;
  return `${Math.abs(value) >= 10 ? value.toFixed(0) : value.toFixed(1)} %`;
}
