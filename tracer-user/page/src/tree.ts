// The call tree of one range of windows, or of two side by side.

import type { CallTree, Span } from "./api";

/** A call path by its last function, with what is drawn of it. */
export interface Path {
  name: string;
  parent: Path | null;
  children: Path[];
  /** What there is at it and at all that it calls, for each range: bytes, or bytes a second. */
  sums: number[];
  /** What is its own. */
  own: number[];
  /** How wide it is: what has come, of the larger of both ranges. What has gone has no width. */
  value: number;
  /** The same in every tree that has this path. */
  id: string;
}

export interface Tree {
  root: Path;
  /** Callers stand before what they call. */
  paths: Path[];
  spans: Span[];
  /** Two ranges are compared by the second, since they may be of different length. */
  isRate: boolean;
  leftOut: number;
}

const PRIME = 16777619;

function hashed(start: number, text: string): number {
  let hash = start;
  for (let i = 0; i < text.length; i += 1) hash = Math.imul(hash ^ text.charCodeAt(i), PRIME);
  return hash >>> 0;
}

/** Makes it of what was answered. */
export function treeOf(answer: CallTree, rootName: string): Tree {
  const isRate = answer.spans.length > 1 && answer.spans.every((span) => span.is_difference);
  const seconds = answer.spans.map((span) => (isRate ? (span.until - span.since) / 1000 : 1));
  const halves = answer.names.map((name) => [hashed(2166136261, name), hashed(40503, name)] as const);
  const hashes: [number, number][] = [];
  const paths: Path[] = [];
  answer.parents.forEach((above, index) => {
    const number = answer.functions[index] ?? 0;
    const parent = index === 0 ? null : (paths[above] ?? null);
    const sums = answer.values.map((column, which) => (column[index] ?? 0) / (seconds[which] ?? 1));
    const [one, two] = (index > 0 && hashes[above]) || [1, 2];
    const [left, right] = halves[number] ?? [0, 0];
    const hash: [number, number] = [
      Math.imul(one ^ left, PRIME) >>> 0,
      (Math.imul(two, 31) + right) >>> 0,
    ];
    hashes.push(hash);
    const path: Path = {
      name: parent ? (answer.names[number] ?? "") : rootName,
      parent,
      children: [],
      sums,
      own: [...sums],
      value: 0,
      id: hash.map((half) => half.toString(36)).join("."),
    };
    paths.push(path);
    parent?.children.push(path);
  });
  for (const path of paths) {
    path.own = path.sums.map((sum, which) =>
      path.children.reduce((left, child) => left - (child.sums[which] ?? 0), sum),
    );
  }
  for (const path of [...paths].reverse()) {
    path.value += Math.max(0, ...path.own);
    if (path.parent) path.parent.value += path.value;
  }
  for (const path of paths) path.children.sort((a, b) => b.value - a.value);
  const root = paths[0];
  if (!root) throw new Error("a tree has no root");
  return { root, paths, spans: answer.spans, isRate, leftOut: answer.left_out };
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

/** Whether one of its functions has this text in its name, whatever the case. */
export function matches(path: Path, text: string): boolean {
  const wanted = text.toLowerCase();
  for (let at: Path | null = path; at?.parent; at = at.parent) {
    if (at.name.toLowerCase().includes(wanted)) return true;
  }
  return false;
}
