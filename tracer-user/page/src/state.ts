// What is shown, as the address says it: a link shows the same to somebody else.

/** A range of windows by the ends of its first and last one, milliseconds since 1970. */
export interface Range {
  from: number;
  to: number;
}

export type Source = "growth" | "heap";

export interface State {
  service: string | null;
  source: Source;
  /** What is shown; all that is there now, if it is null. */
  range: Range | null;
  /** What it is compared with. */
  other: Range | null;
  /** The chosen call path; see `tree.ts`. */
  path: string | null;
  /** What is searched for. */
  search: string;
}

function range(query: URLSearchParams, from: string, to: string): Range | null {
  const ends = [Number(query.get(from)), Number(query.get(to))] as const;
  const valid = ends.every((end) => Number.isSafeInteger(end) && end > 0) && ends[0] < ends[1];
  return valid ? { from: ends[0], to: ends[1] } : null;
}

export function read(): State {
  const query = new URLSearchParams(location.search);
  return {
    service: query.get("service"),
    source: query.get("source") === "heap" ? "heap" : "growth",
    range: range(query, "from", "to"),
    other: range(query, "other_from", "other_to"),
    path: query.get("path"),
    search: query.get("search") ?? "",
  };
}

/** The address of a state. */
export function address(state: State): string {
  const query = new URLSearchParams();
  const put = (name: string, value: string | number | null | undefined) => {
    if (value !== null && value !== undefined && value !== "") query.set(name, String(value));
  };
  put("service", state.service);
  put("source", state.source === "heap" ? "heap" : null);
  put("from", state.range?.from);
  put("to", state.range?.to);
  put("other_from", state.other?.from);
  put("other_to", state.other?.to);
  put("path", state.path);
  put("search", state.search);
  const text = query.toString();
  return text ? `/?${text}` : "/";
}

export function home(): State {
  return { service: null, source: "growth", range: null, other: null, path: null, search: "" };
}
