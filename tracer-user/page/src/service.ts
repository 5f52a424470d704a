// One service: its findings, its memory over time, and who has it.

import * as api from "./api";
import { CurveChart } from "./curve";
import { Detail } from "./detail";
import { button, el } from "./dom";
import { findingList } from "./findings";
import { Flame } from "./flame";
import { Paths } from "./paths";
import type { Range, State } from "./state";
import { followed, type Path, Tree } from "./tree";
import { bytes, change, count, duration, rate, time } from "./units";

/** Ranges that a button chooses, seconds. */
const PRESETS: [string, number][] = [["5 min", 300], ["1 h", 3600], ["6 h", 21600], ["24 h", 86400]];

const LEGEND =
  "Dashed: a process began. Grey: nobody watched. Green edge: a closer look was kept. Drag to choose a range, with shift the one to compare with.";

const SEARCHING = "Its memory is searched as soon as the searches before are paid for; the findings will say who holds what.";

type Go = (change: Partial<State>) => void;

export class ServiceView {
  readonly element = el("article", { class: "service" });
  private readonly head = el("div", { class: "figures" });
  private readonly bound = el("p", { class: "dim", hidden: true });
  private readonly found = el("div");
  private readonly closer = el("div");
  /** A search that was asked for, and how many had ended before. */
  private wanted: { service: string; searches: number } | null = null;
  private readonly controls = el("div", { class: "controls" });
  private readonly said = el("p", { class: "said range-said" });
  private readonly chart: CurveChart;
  private readonly flame: Flame;
  private readonly paths: Paths;
  private readonly detail: Detail;
  private readonly body = el("div");
  private curve: api.Curve | null = null;
  private tree: Tree | null = null;
  /** What the tree was asked for by. */
  private key = "";

  constructor(
    private state: State,
    private readonly go: Go,
  ) {
    this.chart = new CurveChart((range, isOther) => {
      this.chart.choosesOther = false;
      go(isOther && this.state.range ? { other: range } : { range, other: isOther ? null : this.state.other });
    });
    const choose = (path: Path) => go({ path: path.parent ? path.id : null });
    this.flame = new Flame(choose);
    this.paths = new Paths((path) => this.flame.go(path));
    this.detail = new Detail(() => go({ path: null }));
    this.body.append(this.flame.element, this.detail.element, this.paths.element);
    this.element.append(
      el("h1", {}, state.service ?? ""),
      this.head,
      this.found,
      el("h2", {}, "Memory over time"),
      this.chart.element,
      el("p", { class: "dim" }, LEGEND),
      el("h2", {}, "Who has it"),
      this.controls,
      this.said,
      this.bound,
      this.body,
      this.closer,
    );
  }

  /** Shows another state of the same service. */
  async show(state: State): Promise<void> {
    const { range, other, source } = this.state;
    const isSame = range === state.range && other === state.other && source === state.source;
    this.state = state;
    if (this.curve && !isSame) this.drawCurve();
    await this.showTree();
  }

  /** Asks for all there is. */
  async refresh(summary: api.Summary | null, tracer: api.Tracer): Promise<void> {
    const service = this.state.service ?? "";
    this.head.replaceChildren(...figures(summary));
    this.bound.hidden = tracer.faults_not_followed === 0;
    this.bound.textContent = `Of this host ${count(tracer.faults_not_followed)} page faults were not followed, to keep the budget: what call paths have by page faults is a lower bound.`;
    this.curve = await api.curve(service);
    const last = this.curve.ended.at(-1);
    const findings = summary ? await api.findings(service) : await api.findings(service, last);
    const show = (path: string[]) => this.showPath(path);
    this.found.replaceChildren(findingList("Findings", findings, show));
    this.drawCurve();
    this.key = "";
    await this.showTree();
    await this.showCloser(service);
  }

  redraw(): void {
    this.chart.redraw();
    this.flame.redraw();
  }

  private drawCurve(): void {
    const { range, other } = this.state;
    if (this.curve) this.chart.show(this.curve, range, other);
    this.drawControls();
  }

  private drawControls(): void {
    const { range, other, source } = this.state;
    const last = this.curve?.ended.at(-1) ?? 0;
    const first = this.curve?.began[0] ?? 0;
    const preset = ([text, seconds]: [string, number]) => {
      const from = this.endBefore(last - seconds * 1000);
      return from > first && button(text, () => this.go({ range: { from, to: last } }));
    };
    const compare = () => {
      this.chart.choosesOther = !this.chart.choosesOther;
      this.drawControls();
    };
    const children = [
      button("Page faults", () => this.go({ source: "growth", path: null }), source === "growth"),
      button("Closer looks", () => this.go({ source: "heap", path: null }), source === "heap"),
      el("span", { class: "gap" }),
      button("All that is there", () => this.go({ range: null, other: null }), !range),
      ...PRESETS.map(preset),
      range && button(this.chart.choosesOther ? "Drag the other range…" : "Compare with…", compare, this.chart.choosesOther),
      range && !other && button("Compare with the time before", () => this.go({ other: this.before(range) })),
      other && button("No comparison", () => this.go({ other: null })),
    ];
    this.controls.replaceChildren(...children.filter((it): it is HTMLButtonElement => !!it));
  }

  /** The end of the last window that ended until a time. */
  private endBefore(at: number): number {
    return this.curve?.ended.filter((ended) => ended <= at).at(-1) ?? 0;
  }

  /** A range of the same length that ends where this one begins. */
  private before(range: Range): Range {
    const from = this.endBefore(range.from - (range.to - range.from)) || (this.curve?.began[0] ?? 1);
    return { from: Math.min(from, range.from - 1), to: range.from };
  }

  private async showTree(): Promise<void> {
    const { service, source, range, other } = this.state;
    const key = JSON.stringify([service, source, range, other]);
    if (key !== this.key) {
      this.key = key;
      try {
        const answer = await api.tree(service ?? "", source, range, other);
        if (this.key !== key) return;
        this.tree = new Tree(answer, service ?? "all");
      } catch (error) {
        if (error instanceof api.Refused && error.status === 401) throw error;
        this.tree = null;
        this.body.hidden = true;
        this.said.textContent = (error as Error).message;
        return;
      }
      this.body.hidden = false;
      this.say(this.tree);
    }
    if (!this.tree) return;
    const path = this.chosen();
    this.flame.show(this.tree, path);
    this.flame.find(this.state.search);
    this.paths.show(this.tree, this.state.search, path);
    if (path?.parent) void this.detail.show(service ?? "", source, this.tree, path);
    else this.detail.hide();
  }

  private chosen(): Path | null {
    const { path } = this.state;
    return (path && this.tree?.withId(path)) || null;
  }

  private showPath(names: string[]): void {
    if (!this.tree) return;
    this.flame.go(followed(this.tree, names));
    this.flame.element.scrollIntoView({ block: "center" });
  }

  private say(tree: Tree): void {
    const what = this.state.source === "heap" ? "allocated, in closer looks," : "first touched";
    const spans = tree.spans.map((span, which) => {
      const sum = tree.root.sums[which] ?? 0;
      const seconds = (span.until - span.since) / 1000;
      const when = `${time(span.since)} to ${time(span.until)} (${duration(seconds)})`;
      return `${tree.isRate ? `${rate(sum)}, ${change(sum * seconds)}` : bytes(sum)} ${what} from ${when}`;
    });
    const gone = tree.own[0]?.reduce((sum, own) => sum + Math.min(0, own), 0) ?? 0;
    const sentences = [
      spans.length > 1
        ? `Compared: ${spans[0]}; with ${spans[1]}. Red has grown faster than in the other, blue slower.`
        : `${spans[0]}, and there yet.`,
    ];
    if (gone < 0) {
      const went = tree.isRate ? rate(gone) : bytes(gone);
      sentences.push(`Boxes are as wide as what came; ${went} went at paths that shrank, which the table has.`);
    }
    if (tree.leftOut > 0) {
      sentences.push(`${count(tree.leftOut)} paths are too small to be told one by one: they count as their callers'.`);
    }
    this.said.textContent = sentences.join(" ");
  }

  /** Has the service's memory searched for who holds what; a later answer of the look has what was found. */
  private searchButton(service: string, searches: number): HTMLElement {
    const { wanted } = this;
    const waits = wanted?.service === service && searches <= wanted.searches;
    const said = el("span", { class: "dim", role: "status" }, waits && SEARCHING);
    const search = async () => {
      try {
        this.wanted = { service, searches: (await api.search(service)).searches };
        said.textContent = SEARCHING;
      } catch (error) {
        said.textContent = error instanceof Error ? error.message : String(error);
      }
    };
    return el("p", {}, button("Who holds it?", () => void search()), " ", said);
  }

  private async showCloser(service: string): Promise<void> {
    try {
      const { look, found } = await api.look(service);
      const when = look.ended ? `from ${time(look.began)} to ${time(look.ended)}` : `since ${time(look.began)}, going on`;
      const title = `Closer look ${when}: ${look.why}`;
      const show = (path: string[]) => this.showPath(path);
      const losses = look.losses.map((lost) => `${count(lost.count)} × ${lost.cause}`).join(", ");
      const said = [`Allocations were followed ${(100 * look.cost.duty).toFixed(0)} % of the time.`];
      if (look.failure) said.push(`It could not look: ${look.failure}`);
      if (losses) said.push(`Lost: ${losses}.`);
      this.closer.replaceChildren(
        findingList(title, found?.findings ?? [], show),
        el("p", { class: "dim" }, said.join(" ")),
        ...(look.ended === null && look.searches !== null ? [this.searchButton(service, look.searches)] : []),
      );
    } catch (error) {
      if (!(error instanceof api.Refused) || error.status !== 404) throw error;
      this.closer.replaceChildren(el("h2", {}, "Closer look"), el("p", { class: "dim" }, error.message));
    }
  }
}

/** What came in and is of no known path, where there is any. */
function ofNoPath(it: api.Summary): [string, number][] {
  const parts: [string, number][] = [
    ["not followed, to keep the budget", it.not_followed_bytes],
    ["came in without a page fault told", it.untold_bytes],
  ];
  return parts.filter(([, amount]) => amount > 0);
}

function figures(it: api.Summary | null): HTMLElement[] {
  if (!it) return [el("p", { class: "dim" }, "It has no process now; this is what is kept of it.")];
  const running = it.series.filter((series) => series.ended === null);
  const figure = (name: string, text: string, kind = "") =>
    el("div", { class: `figure ${kind}` }, el("span", { class: "dim" }, name), el("b", {}, text));
  const slope = it.bytes_per_second;
  return [
    figure("resident", bytes(it.resident_bytes)),
    figure("live, by known paths", bytes(it.live_bytes)),
    ...ofNoPath(it).map(([name, amount]) => figure(name, bytes(amount))),
    figure("growth since watched", change(it.growth_bytes)),
    figure("slope", slope ? rate(slope) : "steady", slope ? "bad" : ""),
    figure("call paths", count(it.paths)),
    figure("processes", running.length === 1 ? `pid ${running[0]?.pid}` : count(running.length)),
  ];
}
