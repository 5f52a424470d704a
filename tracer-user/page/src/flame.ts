// The flamegraph, by d3-flame-graph: the root is on top, as in a list that one reads down.

import { flamegraph } from "d3-flame-graph";
import { select } from "d3-selection";

import { el } from "./dom";
import { isDark } from "./theme";
import type { Path, Tree } from "./tree";
import { bytes, percent, rate } from "./units";

/** Boxes that are narrower are not drawn, pixels: one could not point at them. */
const NARROWEST = 1.5;
const CELL = 19;

/** A box: what the library makes of a path. */
interface Box {
  data: Path;
  parent: Box | null;
  children?: Box[];
  highlight?: boolean;
}

/** What a path has, in words. */
export function describe(tree: Tree, path: Path): string {
  const say = tree.isRate ? rate : bytes;
  const [one = 0, two] = path.sums;
  if (two === undefined) return `${say(one)} (${percent(one, tree.root.sums[0] ?? 0)})`;
  return `${say(one)} here, ${say(two)} in the other range: ${say(one - two)} between them`;
}

function hue(name: string): number {
  let hash = 0;
  for (let i = 0; i < name.length; i += 1) hash = (Math.imul(hash, 31) + name.charCodeAt(i)) | 0;
  return (hash >>> 0) / 2 ** 32;
}

/** Warm by name; where two ranges are compared red is more, blue is less. */
function fill(tree: Tree, box: Box): string {
  const light = isDark() ? 62 : 72;
  if (box.highlight) return isDark() ? "hsl(285 70% 68%)" : "hsl(285 85% 76%)";
  const { sums, name, parent } = box.data;
  if (!parent) return isDark() ? "hsl(220 8% 55%)" : "hsl(220 10% 82%)";
  const [one = 0, two] = sums;
  if (two === undefined) {
    const place = hue(name);
    return `hsl(${(18 + 32 * place).toFixed(0)} ${(62 + 25 * hue(name + name)).toFixed(0)}% ${light}%)`;
  }
  const most = Math.max(Math.abs(one), Math.abs(two), Number.MIN_VALUE);
  const change = (one - two) / most;
  const strength = Math.min(1, Math.abs(change));
  return `hsl(${change >= 0 ? 6 : 212} ${(75 * strength).toFixed(0)}% ${(light + 12 - 16 * strength).toFixed(0)}%)`;
}

export class Flame {
  readonly element: HTMLElement;
  private readonly host = el("div", { class: "flame", tabindex: "0", role: "group" });
  private readonly said = el("p", { class: "said", "aria-live": "polite" });
  private chart: ReturnType<typeof flamegraph> | null = null;
  private tree: Tree | null = null;
  private box: Box | null = null;
  private search = "";

  /** `chosen` is called with the path that was clicked, or gone to by keys. */
  constructor(private readonly chosen: (path: Path) => void) {
    this.host.setAttribute(
      "aria-label",
      "flamegraph: click or press enter to zoom; arrow keys go to callers, to what is called, and beside; escape goes back",
    );
    this.host.addEventListener("keydown", (event) => this.key(event));
    this.element = el("div", {}, this.host, this.said);
    let width = 0;
    new ResizeObserver(() => {
      if (this.tree && this.host.clientWidth !== width) {
        width = this.host.clientWidth;
        this.redraw();
      }
    }).observe(this.host);
  }

  show(tree: Tree, path: Path | null): void {
    this.tree = tree;
    this.draw(path);
  }

  redraw(): void {
    this.draw(this.box?.data ?? null);
  }

  private draw(path: Path | null): void {
    const tree = this.tree;
    if (!tree) return;
    this.chart?.destroy();
    this.host.replaceChildren();
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const chart = flamegraph()
      .width(Math.max(200, this.host.clientWidth))
      .cellHeight(CELL)
      .minFrameSize(NARROWEST)
      .inverted(true)
      .transitionDuration(calm ? 0 : 150)
      .sort(false)
      .setColorMapper((box: Box) => fill(tree, box))
      .label((box: Box) => `${box.data.name}\n${describe(tree, box.data)}`)
      .setDetailsHandler((text: string | null) => {
        if (text) this.said.textContent = text.replace("\n", ": ");
      })
      .onClick((box: Box) => this.went(box));
    this.chart = chart;
    for (const each of tree.paths) Object.assign(each, { hide: false, fade: false });
    select(this.host).datum(tree.root).call(chart);
    this.box = this.root();
    if (this.search) {
      this.mark();
      (chart as unknown as { update: () => void }).update();
    }
    const box = path && this.boxOf(path);
    if (box && box !== this.box) this.zoom(box);
    else this.say(tree.root);
  }

  /** Marks what has this text in its name. */
  find(text: string): void {
    const wanted = text.toLowerCase();
    if (wanted === this.search || !this.chart) return;
    this.search = wanted;
    this.mark();
    (this.chart as unknown as { update: () => void }).update();
  }

  private mark(): void {
    const boxes = [this.root()];
    for (let box = boxes.pop(); box; box = boxes.pop()) {
      box.highlight = this.search !== "" && box.data.name.toLowerCase().includes(this.search);
      boxes.push(...(box.children ?? []));
    }
  }

  go(path: Path): void {
    const box = this.boxOf(path);
    if (box) this.zoom(box);
  }

  private root(): Box {
    return select(this.host).datum() as unknown as Box;
  }

  private boxOf(path: Path): Box | null {
    const way: Path[] = [];
    for (let at: Path | null = path; at?.parent; at = at.parent) way.push(at);
    let box: Box | undefined = this.root();
    for (const step of way.reverse()) {
      box = box?.children?.find((child) => child.data === step);
    }
    return box ?? null;
  }

  private zoom(box: Box): void {
    (this.chart as unknown as { zoomTo: (box: Box) => void }).zoomTo(box);
  }

  private went(box: Box): void {
    this.box = box;
    this.say(box.data);
    this.chosen(box.data);
  }

  private say(path: Path): void {
    if (this.tree) this.said.textContent = `${path.name}: ${describe(this.tree, path)}`;
  }

  private key(event: KeyboardEvent): void {
    const box = this.box;
    if (!box) return;
    const beside = box.parent?.children ?? [];
    const index = beside.indexOf(box);
    const next: Record<string, Box | null | undefined> = {
      ArrowDown: box.children?.[0],
      ArrowUp: box.parent,
      ArrowLeft: beside[index - 1],
      ArrowRight: beside[index + 1],
      Escape: this.root(),
    };
    if (!(event.key in next)) return;
    event.preventDefault();
    const to = next[event.key];
    if (to) this.zoom(to);
  }
}
