// The call tree of one range of windows, or of two side by side. It is kept in columns, as it
// was answered: there can be 100,000 paths, of which few are looked at.

import type { CallTree, Span } from "./api";

const PRIME = 16777619;

function hashed(start: number, text: string): number {
  let hash = start;
  for (let i = 0; i < text.length; i += 1) hash = Math.imul(hash ^ text.charCodeAt(i), PRIME);
  return hash;
}

export class Tree {
  readonly spans: Span[];
  /** Two ranges are compared by the second, since they may be of different length. */
  readonly isRate: boolean;
  readonly leftOut: number;
  readonly size: number;
  readonly names: string[];
  readonly parents: number[];
  readonly functions: number[];
  /** What there is at each path and at all that it calls, for each range: bytes, or bytes a second. */
  readonly sums: Float64Array[];
  /** What is its own. */
  readonly own: Float64Array[];
  /** How wide each is: what has come, of the larger of both ranges. What has gone has no width. */
  readonly widths: Float64Array;
  /** Two halves of each path's id. */
  private readonly hashes: [Int32Array, Int32Array];
  /** What is called by path `i` is `called` from `firsts[i]` on, up to `firsts[i + 1]`. */
  private readonly firsts: Int32Array;
  private readonly called: Int32Array;
  private readonly made: (Path | undefined)[] = [];

  constructor(
    answer: CallTree,
    readonly rootName: string,
  ) {
    const { spans, names, parents, functions } = answer;
    this.spans = spans;
    this.names = names;
    this.parents = parents;
    this.functions = functions;
    this.size = parents.length;
    this.leftOut = answer.left_out;
    this.isRate = spans.length > 1 && spans.every((span) => span.is_difference);
    this.sums = answer.values.map((column) => Float64Array.from(column));
    this.own = this.sums.map((sums) => this.ownOf(sums));
    this.widths = this.widthsOf();
    this.hashes = [this.hash(2166136261), this.hash(40503)];
    this.firsts = new Int32Array(this.size + 1);
    this.called = new Int32Array(Math.max(0, this.size - 1));
    this.sortCalled();
  }

  /** A path by its number; the first is the root. */
  path(index: number): Path {
    return (this.made[index] ??= new Path(this, index));
  }

  get root(): Path {
    return this.path(0);
  }

  /** The path with an id. */
  withId(id: string): Path | null {
    for (let index = 0; index < this.size; index += 1) {
      if (this.id(index) === id) return this.path(index);
    }
    return null;
  }

  id(index: number): string {
    return this.hashes.map((half) => ((half[index] ?? 0) >>> 0).toString(36)).join(".");
  }

  /** What a path calls, the widest first. */
  children(index: number): Path[] {
    const [from, to] = [this.firsts[index] ?? 0, this.firsts[index + 1] ?? 0];
    const found = [...this.called.subarray(from, to)];
    found.sort((a, b) => (this.widths[b] ?? 0) - (this.widths[a] ?? 0));
    return found.map((child) => this.path(child));
  }

  /** Which paths have a function with this text in its name, whatever the case. */
  matches(text: string): Uint8Array {
    const wanted = text.toLowerCase();
    const has = this.names.map((name) => name.toLowerCase().includes(wanted));
    const found = new Uint8Array(this.size);
    for (let index = 1; index < this.size; index += 1) {
      const own = has[this.functions[index] ?? 0];
      found[index] = own || found[this.parents[index] ?? 0] ? 1 : 0;
    }
    return found;
  }

  /** Whole bytes are subtracted, and divided by the time then. */
  private ownOf(sums: Float64Array): Float64Array {
    const span = this.spans[this.sums.indexOf(sums)];
    const seconds = this.isRate && span ? (span.until - span.since) / 1000 : 1;
    const own = Float64Array.from(sums);
    this.parents.forEach((parent, index) => {
      if (index > 0) own[parent] = (own[parent] ?? 0) - (sums[index] ?? 0);
    });
    for (let index = 0; index < this.size; index += 1) {
      own[index] = (own[index] ?? 0) / seconds;
      sums[index] = (sums[index] ?? 0) / seconds;
    }
    return own;
  }

  private widthsOf(): Float64Array {
    const widths = new Float64Array(this.size);
    for (let index = this.size - 1; index >= 0; index -= 1) {
      let own = 0;
      for (const column of this.own) own = Math.max(own, column[index] ?? 0);
      widths[index] = (widths[index] ?? 0) + own;
      const parent = this.parents[index] ?? 0;
      if (index > 0) widths[parent] = (widths[parent] ?? 0) + (widths[index] ?? 0);
    }
    return widths;
  }

  private hash(start: number): Int32Array {
    const of = this.names.map((name) => hashed(start, name));
    const hashes = new Int32Array(this.size);
    for (let index = 1; index < this.size; index += 1) {
      const above = Math.imul(hashes[this.parents[index] ?? 0] ?? 0, 31);
      hashes[index] = Math.imul(above ^ (of[this.functions[index] ?? 0] ?? 0), PRIME);
    }
    return hashes;
  }

  private sortCalled(): void {
    const { firsts, parents } = this;
    for (let index = 1; index < this.size; index += 1) {
      const after = (parents[index] ?? 0) + 1;
      firsts[after] = (firsts[after] ?? 0) + 1;
    }
    for (let index = 0; index < this.size; index += 1) {
      firsts[index + 1] = (firsts[index + 1] ?? 0) + (firsts[index] ?? 0);
    }
    const next = firsts.slice();
    for (let index = 1; index < this.size; index += 1) {
      const parent = parents[index] ?? 0;
      const place = next[parent] ?? 0;
      this.called[place] = index;
      next[parent] = place + 1;
    }
  }
}

/** A call path by its last function. There is one of each. */
export class Path {
  constructor(
    private readonly tree: Tree,
    readonly index: number,
  ) {}

  get name(): string {
    const { names, functions, rootName } = this.tree;
    return this.index === 0 ? rootName : (names[functions[this.index] ?? 0] ?? "");
  }

  get parent(): Path | null {
    return this.index === 0 ? null : this.tree.path(this.tree.parents[this.index] ?? 0);
  }

  get children(): Path[] {
    return this.tree.children(this.index);
  }

  get sums(): number[] {
    return this.tree.sums.map((column) => column[this.index] ?? 0);
  }

  get own(): number[] {
    return this.tree.own.map((column) => column[this.index] ?? 0);
  }

  get width(): number {
    return this.tree.widths[this.index] ?? 0;
  }

  /** The same in every tree that has this path. */
  get id(): string {
    return this.tree.id(this.index);
  }
}

/** Names of its functions, outermost first. */
export function namesOf(path: Path): string[] {
  const names: string[] = [];
  for (let at: Path | null = path; at?.parent; at = at.parent) names.push(at.name);
  return names.reverse();
}

/** The path of these functions, or the longest part of it that there is. */
export function followed(tree: Tree, names: string[]): Path {
  let at = tree.root;
  for (const name of names) {
    const next = at.children.find((child) => child.name === name);
    if (!next) break;
    at = next;
  }
  return at;
}
