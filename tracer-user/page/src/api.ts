// What `unfreed serve` answers; see /api/openapi.json.

import type { Range, Source } from "./state";

export interface Series {
  pid: number;
  name: string;
  began: number;
  ended: number | null;
}

export interface Resident {
  anonymous_bytes: number;
  file_bytes: number;
  shared_bytes: number;
  swap_bytes: number;
}

export interface Summary {
  name: string;
  began: number;
  ended: number;
  series: Series[];
  resident_bytes: number;
  resident: Resident;
  growth_bytes: number;
  live_bytes: number;
  not_followed_bytes: number;
  untold_bytes: number;
  new_bytes: number;
  paths: number;
  growing: number;
  bytes_per_second: number | null;
}

export interface Gap {
  from: number;
  to: number;
  lost: boolean;
}

export interface Lost {
  cause: string;
  count: number;
}

export interface Look {
  service: string;
  why: string;
  began: number;
  ended: number | null;
  failure: string | null;
  /** Searches for who holds what that have ended; null if it does not search. */
  searches: number | null;
  cost: { duty: number; bursts: number };
  losses: Lost[];
}

export interface Tracer {
  watched: number;
  left_out: number;
  windows_lost: number;
  windows_postponed: number;
  faults_followed: number;
  faults_not_followed: number;
  losses: Lost[];
}

export interface Services {
  ended: number;
  services: Summary[];
  kept: string[];
  gaps: Gap[];
  looks: Look[];
  tracer: Tracer;
}

export interface Outline {
  name: string;
  ended: number[];
  resident_bytes: number[];
  live_bytes: number[];
}

export interface Curve {
  began: number[];
  ended: number[];
  resident_bytes: number[];
  resident: (Resident | null)[];
  growth_bytes: number[];
  live_bytes: number[];
  growing: number[];
  series: Series[];
  series_left_out: number;
  looked_at: number[];
  gaps: Gap[];
}

export interface Finding {
  kind: string;
  title: string;
  path: string[];
  bytes_per_second: number;
  live_bytes: number;
  live_count: number;
  confidence: number;
  forecast: { limit: string; limit_bytes: number; left_bytes: number; seconds: number } | null;
  evidence: string[];
  advice: string;
}

export interface Looked {
  look: Look;
  found: { since: number; until: number; findings: Finding[] } | null;
}

export interface Span {
  since: number;
  until: number;
  is_difference: boolean;
}

export interface CallTree {
  spans: Span[];
  names: string[];
  parents: number[];
  functions: number[];
  values: number[][];
  left_out: number;
}

export interface History {
  ended: number[];
  values: number[];
  windows: number;
}

/** An answer that says why there is none. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    sentence: string,
  ) {
    super(sentence);
  }
}

const KEY = "unfreed-token";

/** The token is kept as long as the tab is open, and is in no address. */
export function keepToken(token: string): void {
  sessionStorage.setItem(KEY, token.trim());
}

export function hasToken(): boolean {
  return sessionStorage.getItem(KEY) !== null;
}

export function forgetToken(): void {
  sessionStorage.removeItem(KEY);
}

async function ask<T>(path: string, body?: unknown): Promise<T> {
  const headers = new Headers();
  const token = sessionStorage.getItem(KEY);
  if (token) headers.set("Authorization", `Bearer ${token}`);
  const request: RequestInit = { headers, cache: "no-store" };
  if (body !== undefined) {
    headers.set("Content-Type", "application/json");
    request.method = "POST";
    request.body = JSON.stringify(body);
  }
  let answer: Response;
  try {
    answer = await fetch(path, request);
  } catch {
    throw new Refused(0, "unfreed serve does not answer");
  }
  if (!answer.ok) throw new Refused(answer.status, (await answer.text()).trim());
  return (await answer.json()) as T;
}

const of = (service: string) => `/api/services/${encodeURIComponent(service)}`;

export const services = () => ask<Services>("/api/services");
export const curves = () => ask<{ services: Outline[] }>("/api/curves");
export const curve = (service: string) => ask<Curve>(`${of(service)}/curve`);
export const look = (service: string) => ask<Looked>(`${of(service)}/look`);

/** Has the memory of a service searched for who holds what; how many searches had ended before. */
export const search = (service: string) => ask<{ searches: number }>(`${of(service)}/holders`, {});

export function findings(service: string, window?: number): Promise<Finding[]> {
  const which = window === undefined ? "" : `?window=${window}`;
  return ask<Finding[]>(`${of(service)}/findings${which}`);
}

export function tree(service: string, source: Source, range: Range | null, other: Range | null) {
  const query = new URLSearchParams({ source });
  if (range) {
    query.set("from", String(range.from));
    query.set("to", String(range.to));
  }
  if (other) {
    query.set("other_from", String(other.from));
    query.set("other_to", String(other.to));
  }
  return ask<CallTree>(`${of(service)}/tree?${query}`);
}

export function history(service: string, source: Source, path: string[]): Promise<History> {
  return ask<History>(`${of(service)}/path`, { path, source });
}
