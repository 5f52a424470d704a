// The chosen call path: all its functions, and what it had over the windows.

import uPlot from "uplot";

import { history, type History } from "./api";
import { options } from "./charts";
import { button, el } from "./dom";
import { describe } from "./flame";
import type { Source } from "./state";
import { colour } from "./theme";
import { namesOf, type Path, type Tree } from "./tree";
import { bytes, count } from "./units";

const HEIGHT = 150;

export class Detail {
  readonly element = el("section", { class: "detail", hidden: true });
  private plot: uPlot | null = null;
  private wanted = "";

  constructor(private readonly closed: () => void) {}

  hide(): void {
    this.element.hidden = true;
    this.wanted = "";
  }

  async show(service: string, source: Source, tree: Tree, path: Path): Promise<void> {
    const names = namesOf(path);
    const key = JSON.stringify([service, source, path.id, tree.spans]);
    if (key === this.wanted) return;
    this.wanted = key;
    const chart = el("div", { class: "plot" }, el("p", { class: "dim" }, "reading the windows…"));
    const note = el("p", { class: "dim" });
    this.element.hidden = false;
    this.element.replaceChildren(
      el("h2", {}, path.name),
      button("Close", this.closed),
      el("p", {}, describe(tree, path)),
      el("h3", {}, "Over the windows"),
      chart,
      note,
      el(
        "details",
        {},
        el("summary", {}, `The whole path (${names.length} functions)`),
        el("ol", { class: "stack" }, ...[...names].reverse().map((name) => el("li", {}, name))),
      ),
    );
    try {
      const had = await history(service, source, names);
      if (this.wanted === key) this.draw(chart, note, had);
    } catch (error) {
      chart.replaceChildren(el("p", {}, String((error as Error).message)));
    }
  }

  private draw(host: HTMLElement, note: HTMLElement, had: History): void {
    this.plot?.destroy();
    host.replaceChildren();
    const chart: uPlot.Options = {
      ...options(host.clientWidth || 300, HEIGHT),
      series: [{}, { stroke: colour("live"), width: 2, points: { show: had.ended.length < 40 } }],
    };
    this.plot = new uPlot(chart, [had.ended.map((it) => it / 1000), had.values], host);
    const some = had.windows > had.ended.length ? `${had.ended.length} of ${count(had.windows)} windows, evenly` : `${count(had.windows)} windows`;
    const ends = [had.values[0] ?? 0, had.values.at(-1) ?? 0] as const;
    note.textContent = `${some}: from ${bytes(ends[0])} to ${bytes(ends[1])}.`;
  }
}
