// The flamegraph, by d3-flame-graph: the root is on top, as in a list that one reads down.

import flamegraph, { type FlameGraph } from "d3-flame-graph";
import { select } from "d3-selection";

import { el } from "./dom";
import { isDark } from "./theme";
import type { Path, Tree } from "./tree";
import { bytes, percent, rate } from "./units";

/** Boxes that are narrower are not drawn, pixels: one could not point at them. */
const NARROWEST = 1.5;
const CELL = 19;

/** What is drawn of a path: what it calls, as far as that is wide enough. */
interface Drawn {
  path: Path;
  name: string;
  value: number;
  children: Drawn[];
  /** It calls what is zoomed to, and is as wide. */
  fade: boolean;
}

/** What the library makes of it. */
interface Box {
  data: Drawn;
}

function drawn(path: Path, narrowest: number): Drawn {
  const wide = path.children.filter((child) => child.width >= narrowest);
  const children = wide.map((child) => drawn(child, narrowest));
  return { path, name: path.name, value: path.width, children, fade: false };
}

/** A path with what it calls, below all its callers. */
function zoomed(path: Path, pixels: number): Drawn {
  let top = drawn(path, (path.width * NARROWEST) / pixels);
  for (let above = path.parent; above; above = above.parent) {
    top = { path: above, name: above.name, value: path.width, children: [top], fade: true };
  }
  return top;
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
function fill(path: Path, isFound: boolean): string {
  const light = isDark() ? 62 : 72;
  if (isFound) return isDark() ? "hsl(285 70% 68%)" : "hsl(285 85% 76%)";
  const { sums, name } = path;
  if (!path.parent) return isDark() ? "hsl(220 8% 66%)" : "hsl(220 10% 82%)";
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
  private chart: FlameGraph<Drawn, Box> | null = null;
  private tree: Tree | null = null;
  private path: Path | null = null;
  private search = "";

  /** `chosen` is called with the path that was clicked, or gone to by keys. */
  constructor(private readonly chosen: (path: Path) => void) {
    this.host.setAttribute(
      "aria-label",
      "flamegraph: click or press enter to zoom; arrow keys go to callers, to what is called, and beside; escape goes back",
    );
    this.host.addEventListener("keydown", (event) => this.key(event));
    // Before the library, which would zoom within what is drawn.
    this.host.addEventListener("click", (event) => this.click(event), true);
    this.element = el("div", {}, this.host, this.said);
    let width = 0;
    new ResizeObserver(() => {
      if (this.tree && this.host.clientWidth !== width) {
        width = this.host.clientWidth;
        this.redraw();
      }
    }).observe(this.host);
  }

  /** Draws what a path of it calls; all of it, if none is chosen. */
  show(tree: Tree, path: Path | null): void {
    if (this.tree === tree && this.path === (path ?? tree.root)) return;
    this.tree = tree;
    this.path = path ?? tree.root;
    this.redraw();
  }

  redraw(): void {
    const { tree, path, host } = this;
    if (!tree || !path) return;
    this.chart?.destroy();
    host.replaceChildren();
    const width = Math.max(200, host.clientWidth);
    const isFound = (name: string) => this.search !== "" && name.toLowerCase().includes(this.search);
    const chart = flamegraph<Drawn, Box>()
      .width(width)
      .cellHeight(CELL)
      .minFrameSize(NARROWEST)
      .inverted(true)
      .transitionDuration(0)
      .setColorMapper((box) => fill(box.data.path, isFound(box.data.name)))
      .setLabelHandler((box) => `${box.data.name}\n${describe(tree, box.data.path)}`)
      .setDetailsHandler((text) => {
        if (text) this.said.textContent = text.replace("\n", ": ");
      });
    this.chart = chart;
    select(host).datum(zoomed(path, width)).call(chart);
    this.said.textContent = `${path.name}: ${describe(tree, path)}`;
  }

  /** Marks what has this text in its name. */
  find(text: string): void {
    const wanted = text.toLowerCase();
    if (wanted === this.search) return;
    this.search = wanted;
    this.chart?.update();
  }

  go(path: Path): void {
    if (this.tree) this.show(this.tree, path);
    this.chosen(path);
  }

  private click(event: Event): void {
    const box = (event.target as Element).closest(".frame");
    if (!box) return;
    event.stopPropagation();
    this.go((select(box).datum() as Box).data.path);
  }

  private key(event: KeyboardEvent): void {
    const { path, tree } = this;
    if (!path || !tree) return;
    const beside = path.parent?.children ?? [];
    const index = beside.indexOf(path);
    const next: Record<string, Path | null | undefined> = {
      ArrowDown: path.children[0],
      ArrowUp: path.parent,
      ArrowLeft: beside[index - 1],
      ArrowRight: beside[index + 1],
      Escape: tree.root,
    };
    if (!(event.key in next)) return;
    event.preventDefault();
    const to = next[event.key];
    if (to) this.go(to);
  }
}
