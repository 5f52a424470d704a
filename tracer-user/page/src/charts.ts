// What all curves have in common.

import type uPlot from "uplot";

import { colour } from "./theme";
import { bytes } from "./units";

const DAY = 86400;

const two = (value: number) => String(value).padStart(2, "0");

/** Times of the reader's clock; the first one of each day has the day, too. */
function times(_: uPlot, splits: number[], _axis: number, _space: number, step: number): string[] {
  let before = "";
  return splits.map((seconds) => {
    const at = new Date(seconds * 1000);
    const day = `${two(at.getMonth() + 1)}-${two(at.getDate())}`;
    const clock = `${two(at.getHours())}:${two(at.getMinutes())}${step < 60 ? `:${two(at.getSeconds())}` : ""}`;
    const isNew = day !== before;
    before = day;
    if (step >= DAY) return day;
    return isNew ? `${clock}\n${day}` : clock;
  });
}

/** A chart of bytes over time, from 0 on. */
export function options(width: number, height: number): uPlot.Options & { axes: uPlot.Axis[] } {
  const axis: uPlot.Axis = {
    stroke: colour("dim"),
    grid: { stroke: colour("grid"), width: 1 },
    ticks: { stroke: colour("grid"), width: 1 },
    font: "12px system-ui, sans-serif",
  };
  return {
    width,
    height,
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, points: { show: false }, y: false },
    scales: { y: { range: (_, low, high) => [Math.min(0, low), high > 0 ? high * 1.05 : 1] } },
    axes: [
      // A time of day has eight letters.
      { ...axis, space: 72, values: times },
      { ...axis, size: 72, values: (_, splits) => splits.map((value) => bytes(value)) },
    ],
    series: [],
  };
}
