// All services: what they have, how fast they grow, and what is to be said of them.

import type { Outline, Services, Summary } from "./api";
import { el, svg } from "./dom";
import { address, home } from "./state";
import { bytes, change, count, duration, rate, time } from "./units";

const WIDTH = 140;
const HEIGHT = 28;

type Column = "name" | "resident" | "live" | "growth" | "slope" | "findings";

interface Row {
  name: string;
  summary: Summary | null;
  outline: Outline | undefined;
}

const COLUMNS: [Column, string][] = [
  ["name", "service"],
  ["resident", "resident"],
  ["live", "live"],
  ["growth", "growth"],
  ["slope", "slope"],
  ["findings", "findings"],
];

function value(row: Row, column: Column): number | string {
  const it = row.summary;
  switch (column) {
    case "name":
      return row.name;
    case "resident":
      return it?.resident_bytes ?? -1;
    case "live":
      return it?.live_bytes ?? -1;
    case "growth":
      return it?.growth_bytes ?? Number.MIN_SAFE_INTEGER;
    case "slope":
      return it?.bytes_per_second ?? 0;
    case "findings":
      return it?.growing ?? -1;
  }
}

/** The list, sorted by a column that a click on its head chooses. */
export class ServiceList {
  readonly element = el("section", { class: "services" });
  private column: Column = "slope";
  private isDescending = true;
  private last: [Services, Outline[]] | null = null;
  private search = "";

  constructor(private readonly go: (service: string) => void) {}

  show(services: Services, outlines: Outline[], search: string): void {
    this.last = [services, outlines];
    this.search = search;
    const rows = this.sorted(services, outlines).filter((row) =>
      row.name.toLowerCase().includes(search.toLowerCase()),
    );
    const heads = COLUMNS.map(([column, text]) => this.head(column, text));
    this.element.replaceChildren(
      el("h1", {}, "Services"),
      rows.length === 0 && services.ended > 0
        ? el("p", {}, search ? `No service has “${search}” in its name.` : "No service is watched: see unfreed serve --check.")
        : el(
            "table",
            {},
            el("thead", {}, el("tr", {}, ...heads, el("th", {}, "resident, of late"))),
            el("tbody", {}, ...rows.map((row) => this.row(row))),
          ),
      services.ended === 0 ? el("p", { class: "dim" }, "The first window has not ended yet.") : "",
      tracer(services),
    );
  }

  private sorted(services: Services, outlines: Outline[]): Row[] {
    const names = new Set([...services.kept, ...services.services.map((it) => it.name)]);
    const summaries = new Map(services.services.map((it) => [it.name, it]));
    const lines = new Map(outlines.map((it) => [it.name, it]));
    const rows = [...names].map((name) => ({
      name,
      summary: summaries.get(name) ?? null,
      outline: lines.get(name),
    }));
    const sign = this.isDescending ? -1 : 1;
    return rows.sort((a, b) => {
      const [one, two] = [value(a, this.column), value(b, this.column)];
      if (one === two) return a.name.localeCompare(b.name);
      return one < two ? -sign : sign;
    });
  }

  private head(column: Column, text: string): HTMLElement {
    const isIt = this.column === column;
    const sort = () => {
      this.isDescending = isIt ? !this.isDescending : column !== "name";
      this.column = column;
      if (this.last) this.show(...this.last, this.search);
    };
    const order = isIt ? (this.isDescending ? "descending" : "ascending") : "none";
    return el(
      "th",
      { "aria-sort": order, class: column === "name" ? "" : "number" },
      el("button", { type: "button", class: "link", click: sort }, `${text}${isIt ? (this.isDescending ? " ↓" : " ↑") : ""}`),
    );
  }

  private row({ name, summary, outline }: Row): HTMLElement {
    const open = (event: Event) => {
      event.preventDefault();
      this.go(name);
    };
    const link = el("a", { href: address({ ...home(), service: name }), click: open }, name);
    const cell = (label: string, text: string, kind = "") =>
      el("td", { class: `number ${kind}`, "data-label": label }, text);
    const slope = summary?.bytes_per_second;
    const line = el("td", { class: "line" }, outline ? sparkline(outline.resident_bytes) : "");
    if (!summary) {
      const ended = outline?.ended.at(-1);
      const text = `no process now${ended ? `; the last window ended ${time(ended)}` : ""}`;
      return el("tr", { class: "gone" }, el("td", {}, link), el("td", { colspan: "5", class: "dim" }, text), line);
    }
    return el(
      "tr",
      summary.growing > 0 ? { class: "grows" } : {},
      el("td", {}, link),
      cell("resident", bytes(summary.resident_bytes)),
      cell("live", bytes(summary.live_bytes)),
      cell("growth", change(summary.growth_bytes)),
      cell("slope", slope ? rate(slope) : "steady", slope ? "bad" : "dim"),
      cell("findings", summary.growing > 0 ? `${summary.growing} grow` : "none", summary.growing > 0 ? "bad" : "dim"),
      line,
    );
  }
}

/** A line from 0 on. */
function sparkline(values: number[]): Element {
  const most = Math.max(1, ...values);
  const last = Math.max(1, values.length - 1);
  const points = values.map((it, index) => {
    const x = (index / last) * (WIDTH - 2) + 1;
    const y = HEIGHT - 1 - (it / most) * (HEIGHT - 3);
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  });
  const text = `${values.length} windows, ${bytes(values[0] ?? 0)} to ${bytes(values.at(-1) ?? 0)}`;
  const title = svg("title", {});
  title.textContent = text;
  return svg(
    "svg",
    { class: "sparkline", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, width: String(WIDTH), height: String(HEIGHT), role: "img", "aria-label": text },
    title,
    svg("polyline", { points: points.join(" ") }),
  );
}

/** What is to be known of the tracer: what was lost is never only a metric. */
function tracer({ tracer: it, gaps }: Services): HTMLElement {
  const said = [`${count(it.watched)} processes are watched.`];
  if (it.left_out > 0) said.push(`${count(it.left_out)} more are not: there is no room.`);
  if (it.windows_lost > 0) said.push(`${count(it.windows_lost)} windows could not be kept.`);
  if (it.windows_postponed > 0) said.push(`${count(it.windows_postponed)} windows were longer than asked.`);
  if (it.faults_not_followed > 0) {
    const all = it.faults_followed + it.faults_not_followed;
    said.push(`${count(it.faults_not_followed)} of ${count(all)} page faults were not followed, to keep the budget.`);
  }
  for (const lost of it.losses) said.push(`Lost: ${count(lost.count)} × ${lost.cause}.`);
  const last = gaps.at(-1);
  if (last) {
    const how = last.lost ? " (it had ended without a word)" : "";
    said.push(`Nobody watched for ${duration((last.to - last.from) / 1000)} before ${time(last.to)}${how}.`);
  }
  return el("p", { class: "dim tracer" }, said.join(" "));
}
