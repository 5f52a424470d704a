// What we use of d3-flame-graph 5, which brings no types.

declare module "d3-flame-graph" {
  import type { Selection } from "d3-selection";

  /** `Box` is what d3-hierarchy makes of a node of the data. */
  interface FlameGraph<Data, Box> {
    <E extends HTMLElement>(selection: Selection<E, Data, null, undefined>): void;
    width(pixels: number): this;
    cellHeight(pixels: number): this;
    minFrameSize(pixels: number): this;
    transitionDuration(milliseconds: number): this;
    inverted(isInverted: boolean): this;
    setColorMapper(mapper: (box: Box) => string): this;
    setLabelHandler(label: (box: Box) => string): this;
    setDetailsHandler(handler: (label: string | null) => void): this;
    update(): void;
    destroy(): void;
  }

  export default function flamegraph<Data, Box>(): FlameGraph<Data, Box>;
}
