// What is to be said of a service, with its evidence.

import type { Finding } from "./api";
import { button, el } from "./dom";
import { bytes, count, duration, percent, rate } from "./units";

const GROWS = ["leak", "growing", "children", "outside-allocations", "descriptors", "files-in-memory"];
/** Functions of a finding's path that are shown, from the innermost on. */
const FUNCTIONS = 6;

export const grows = (finding: Finding) => GROWS.includes(finding.kind);

/** A list of findings; `shown` is called with the path that somebody wants to see. */
export function findingList(title: string, all: Finding[], shown: (path: string[]) => void): HTMLElement {
  const sorted = [...all].sort((a, b) => Number(grows(b)) - Number(grows(a)));
  return el(
    "section",
    { class: "findings" },
    el("h2", {}, title),
    all.length === 0 && el("p", { class: "dim" }, "Nothing is to be said yet: findings need some windows."),
    ...sorted.map((finding, index) => card(finding, index === 0 && grows(finding), shown)),
  );
}

function card(finding: Finding, isOpen: boolean, shown: (path: string[]) => void): HTMLElement {
  const { path, forecast } = finding;
  const figures = [
    finding.bytes_per_second ? rate(finding.bytes_per_second) : "",
    finding.live_bytes ? `${bytes(finding.live_bytes)} live` : "",
    finding.live_count ? `${count(finding.live_count)} blocks or pages` : "",
    grows(finding) ? `${percent(finding.confidence, 1)} sure` : "",
  ].filter(Boolean);
  const limit =
    forecast &&
    `If it goes on, ${forecast.limit} (${bytes(forecast.limit_bytes)}, ${bytes(forecast.left_bytes)} left) is reached in ${duration(forecast.seconds)}.`;
  const innermost = [...path].reverse();
  const hidden = innermost.length - FUNCTIONS;
  return el(
    "details",
    { class: grows(finding) ? "finding grows" : "finding", open: isOpen },
    el(
      "summary",
      {},
      el("span", { class: "kind" }, finding.kind.replaceAll("-", " ")),
      ` ${finding.title} `,
      el("span", { class: "dim" }, figures.join(" · ")),
    ),
    limit && el("p", { class: "forecast" }, limit),
    finding.evidence.length > 0 &&
      el("ul", {}, ...finding.evidence.map((sentence) => el("li", {}, sentence))),
    path.length > 0 &&
      el(
        "ol",
        { class: "stack" },
        ...innermost.slice(0, FUNCTIONS).map((name) => el("li", {}, name)),
        hidden > 0 && el("li", { class: "dim" }, `${hidden} callers more`),
      ),
    path.length > 0 && button("Show in the flamegraph", () => shown(path)),
    finding.advice && el("p", {}, el("code", {}, finding.advice)),
  );
}
