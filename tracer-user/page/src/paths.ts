// Call paths as a table, those of most bytes first.

import { button, el } from "./dom";
import { namesOf, type Path, type Tree } from "./tree";
import { bytes, count, percent, rate } from "./units";

/** Rows at a time: thousands that nobody reads would only be slow. */
const ROWS = 20;
/** Functions that a row shows, from the innermost on. */
const FUNCTIONS = 4;

/** Numbers of paths that have something of their own, those of most first. */
function largest(tree: Tree, among: Uint8Array | null): number[] {
  const own = new Float64Array(tree.size);
  const found: number[] = [];
  for (let index = 0; index < tree.size; index += 1) {
    for (const column of tree.own) own[index] = Math.max(own[index] ?? 0, Math.abs(column[index] ?? 0));
    if ((own[index] ?? 0) > 0 && (!among || among[index])) found.push(index);
  }
  return found.sort((a, b) => (own[b] ?? 0) - (own[a] ?? 0));
}

export class Paths {
  readonly element = el("section", { class: "paths" });
  private rows = ROWS;
  /** What was shown last, and the paths that there were. */
  private last: { tree: Tree; search: string; all: number[] } | null = null;

  constructor(private readonly chosen: (path: Path) => void) {}

  show(tree: Tree, search: string, path: Path | null): void {
    if (this.last?.tree !== tree || this.last.search !== search) {
      this.last = { tree, search, all: largest(tree, search ? tree.matches(search) : null) };
    }
    const { all } = this.last;
    const more = () => {
      this.rows += ROWS;
      this.show(tree, search, path);
    };
    const isTwo = tree.spans.length > 1;
    const heads = isTwo ? ["here", "other", "call path, innermost first"] : ["bytes", "", "call path, innermost first"];
    const rows = all.slice(0, this.rows).map((it) => this.row(tree, tree.path(it), it === path?.index));
    this.element.replaceChildren(
      el("h2", {}, `Call paths (${count(all.length)})`),
      el(
        "table",
        {},
        el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", {}, head)))),
        el("tbody", {}, ...rows),
      ),
      all.length > rows.length
        ? button(`${count(all.length - rows.length)} more: show ${ROWS}`, more)
        : "",
    );
  }

  private row(tree: Tree, path: Path, isChosen: boolean): HTMLElement {
    const say = tree.isRate ? rate : bytes;
    const [one = 0, two] = path.own;
    const second = two === undefined ? percent(one, tree.root.sums[0] ?? 0) : say(two);
    const names = namesOf(path).reverse();
    const hidden = names.length - FUNCTIONS;
    const shown = names.slice(0, FUNCTIONS).join(" ← ") + (hidden > 0 ? ` ← ${hidden} more` : "");
    return el(
      "tr",
      isChosen ? { class: "chosen" } : {},
      el("td", { class: "number" }, say(one)),
      el("td", { class: "number" }, second),
      el(
        "td",
        { class: "path" },
        el("button", { type: "button", class: "link", click: () => this.chosen(path) }, shown),
      ),
    );
  }
}
