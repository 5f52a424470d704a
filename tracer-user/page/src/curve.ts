// A service's memory over time, on which ranges are chosen.

import uPlot from "uplot";

import type { Curve } from "./api";
import { options } from "./charts";
import { el } from "./dom";
import type { Range } from "./state";
import { colour } from "./theme";
import { bytes, change, time } from "./units";

const HEIGHT = 260;
/** A pointer that moved less has clicked, pixels. */
const DRAG = 5;
/** By how many windows a key moves a range. */
const STEPS: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1 };

/** What a row of the legend says of a window. */
interface Line {
  name: string;
  colour: string;
  values: (number | null)[];
  say: (value: number) => string;
}

function linesOf(curve: Curve): Line[] {
  const kind = (of: "anonymous_bytes" | "file_bytes" | "shared_bytes" | "swap_bytes") =>
    curve.resident.map((it) => (it ? it[of] : null));
  const swap = kind("swap_bytes");
  const lines: Line[] = [
    { name: "resident", colour: "resident", values: curve.resident_bytes, say: bytes },
    { name: "of it anonymous", colour: "anonymous", values: kind("anonymous_bytes"), say: bytes },
    { name: "files", colour: "files", values: kind("file_bytes"), say: bytes },
    { name: "shared", colour: "shared", values: kind("shared_bytes"), say: bytes },
    { name: "live, by known paths", colour: "live", values: curve.live_bytes, say: bytes },
    { name: "growth since watched", colour: "growth", values: curve.growth_bytes, say: change },
  ];
  if (swap.some((value) => value)) {
    lines.push({ name: "in swap", colour: "swap", values: swap, say: bytes });
  }
  return lines;
}

/** Called with a range that was chosen; with the one to compare with, if `isOther`. */
type Chosen = (range: Range, isOther: boolean) => void;

export class CurveChart {
  readonly element: HTMLElement;
  private readonly host = el("div", { class: "plot" });
  private readonly legend = el("div", { class: "legend" });
  private plot: uPlot | null = null;
  private curve: Curve | null = null;
  private lines: Line[] = [];
  private range: Range | null = null;
  private other: Range | null = null;
  private readonly hidden = new Set<string>(["growth since watched"]);
  /** Whether the next range is the one to compare with. */
  choosesOther = false;

  constructor(private readonly chosen: Chosen) {
    this.host.tabIndex = 0;
    this.host.setAttribute("role", "group");
    this.host.setAttribute(
      "aria-label",
      "memory over time: drag to choose a range; left and right move it, with shift they move its start",
    );
    this.host.addEventListener("keydown", (event) => this.key(event));
    this.element = el("div", { class: "curve" }, this.legend, this.host);
    new ResizeObserver(() => this.resize()).observe(this.host);
  }

  show(curve: Curve, range: Range | null, other: Range | null): void {
    this.curve = curve;
    this.range = range;
    this.other = other;
    this.lines = linesOf(curve);
    const drawn = this.plot?.series.length ?? 0;
    if (this.plot && drawn === this.shown().length + 1) {
      // Who drags goes on.
      this.plot.setData(this.data());
      this.tell(null);
    } else {
      this.draw();
    }
  }

  private shown(): Line[] {
    return this.lines.filter((line) => !this.hidden.has(line.name));
  }

  private data(): uPlot.AlignedData {
    const seconds = this.curve?.ended.map((at) => at / 1000) ?? [];
    return [seconds, ...this.shown().map((line) => line.values)] as uPlot.AlignedData;
  }

  /** Colours are others. */
  redraw(): void {
    if (this.curve) this.draw();
  }

  private resize(): void {
    const width = this.host.clientWidth;
    if (this.plot && width > 0 && width !== this.plot.width) {
      this.plot.setSize({ width, height: HEIGHT });
    }
  }

  private draw(): void {
    this.plot?.destroy();
    const isShort = (this.curve?.ended.length ?? 0) < 3;
    const chart: uPlot.Options = {
      ...options(this.host.clientWidth || 600, HEIGHT),
      series: [
        {},
        ...this.shown().map((line, index) => ({
          stroke: colour(line.colour),
          width: index === 0 ? 2 : 1.5,
          points: { show: isShort },
        })),
      ],
      hooks: {
        drawClear: [(plot) => this.marks(plot)],
        setCursor: [(plot) => this.tell(plot.cursor.idx ?? null)],
      },
    };
    this.plot = new uPlot(chart, this.data(), this.host);
    this.listen(this.plot);
    this.tell(null);
  }

  /** The legend, with what there was in a window; the last one, if none is pointed at. */
  private tell(index: number | null): void {
    const at = index ?? (this.curve?.ended.length ?? 0) - 1;
    const ended = this.curve?.ended[at];
    const rows = this.lines.map((line) => {
      const value = line.values[at];
      const said = value === null || value === undefined ? "not known" : line.say(value);
      const isHidden = this.hidden.has(line.name);
      const toggle = () => {
        if (isHidden) this.hidden.delete(line.name);
        else this.hidden.add(line.name);
        this.draw();
      };
      return el(
        "button",
        { type: "button", class: "key", "aria-pressed": String(!isHidden), click: toggle },
        el("i", { class: `swatch ${line.colour}` }),
        `${line.name} `,
        el("b", {}, said),
      );
    });
    this.legend.replaceChildren(el("span", { class: "at" }, ended ? time(ended) : ""), ...rows);
  }

  /** Below the lines: gaps, closer looks, starts of processes, and the chosen ranges. */
  private marks(plot: uPlot): void {
    const { ctx, bbox } = plot;
    const x = (at: number) => {
      const place = plot.valToPos(at / 1000, "x", true);
      return Math.min(Math.max(place, bbox.left), bbox.left + bbox.width);
    };
    const band = (from: number, to: number, name: string, height = bbox.height) => {
      ctx.fillStyle = colour(name);
      ctx.fillRect(x(from), bbox.top + bbox.height - height, Math.max(1, x(to) - x(from)), height);
    };
    ctx.save();
    for (const gap of this.curve?.gaps ?? []) band(gap.from, gap.to, "gap");
    if (this.range) band(this.range.from, this.range.to, "range");
    if (this.other) band(this.other.from, this.other.to, "other");
    for (const at of this.curve?.looked_at ?? []) {
      band(this.windowBefore(at), at, "look", 5 * devicePixelRatio);
    }
    ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.strokeStyle = colour("restart");
    ctx.lineWidth = devicePixelRatio;
    for (const began of this.restarts()) {
      ctx.beginPath();
      ctx.moveTo(x(began), bbox.top);
      ctx.lineTo(x(began), bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }

  /** When processes began after the first window. */
  private restarts(): number[] {
    const first = this.curve?.ended[0] ?? 0;
    return (this.curve?.series ?? []).map((series) => series.began).filter((began) => began > first);
  }

  private windowBefore(ended: number): number {
    const index = this.curve?.ended.indexOf(ended) ?? -1;
    return this.curve?.began[index] ?? ended;
  }

  /** Mouse and finger alike. */
  private listen(plot: uPlot): void {
    const over = plot.over;
    let start: number | null = null;
    const place = (event: PointerEvent) => event.clientX - over.getBoundingClientRect().left;
    const select = (from: number, to: number) =>
      plot.setSelect({ left: Math.min(from, to), width: Math.abs(to - from), top: 0, height: over.clientHeight }, false);
    over.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      start = place(event);
      over.setPointerCapture(event.pointerId);
      this.host.focus({ preventScroll: true });
    });
    over.addEventListener("pointermove", (event) => {
      if (start !== null) select(start, place(event));
    });
    over.addEventListener("pointercancel", () => {
      start = null;
      select(0, 0);
    });
    over.addEventListener("pointerup", (event) => {
      if (start === null) return;
      const [from, to] = [start, place(event)].sort((a, b) => a - b) as [number, number];
      start = null;
      select(0, 0);
      const isClick = to - from < DRAG;
      const [first, last] = [plot.posToIdx(from), plot.posToIdx(to)];
      this.choose(isClick ? last - 1 : first, last, event.shiftKey);
    });
  }

  /** From the end of one window to that of another, by their numbers. */
  private choose(first: number, last: number, isOther: boolean): void {
    const ended = this.curve?.ended ?? [];
    const to = ended[Math.max(last, 0)];
    if (to === undefined) return;
    const before = Math.min(first, last - 1);
    // What the first window brought is since it began.
    const from = before >= 0 ? ended[before] : (this.curve?.began[0] ?? to - 1);
    if (from !== undefined && from < to) this.chosen({ from, to }, isOther || this.choosesOther);
  }

  private key(event: KeyboardEvent): void {
    const step = STEPS[event.key];
    const ended = this.curve?.ended ?? [];
    if (!step || ended.length < 2) return;
    event.preventDefault();
    const last = ended.length - 1;
    const now = this.choosesOther ? this.other : this.range;
    if (!now) {
      this.choose(last - 1, last, false);
      return;
    }
    const within = (index: number) => Math.min(Math.max(index, 0), last);
    const first = ended.indexOf(now.from);
    const until = ended.indexOf(now.to);
    if (event.shiftKey) this.choose(Math.min(within(first + step), until - 1), until, false);
    else this.choose(first + step, within(until + step), false);
  }
}
