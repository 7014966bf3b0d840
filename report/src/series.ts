// Curves read from the block, and the part of one that a plot of a certain range needs.
import { Block, Trace } from "./payload";

/** Points that a line may have on the screen; more are thinned out, and come back when one zooms in. */
const MOST_POINTS = 2000;

export type Range = [number, number];

export interface Points {
  x: number[];
  y: (number | null)[];
  /** The lower edge, for an envelope. */
  low: number[];
}

export class Series {
  private readonly x: Float32Array | null;
  private readonly start: number = 0;
  private readonly step: number = 0;
  private readonly y: Float32Array;
  private readonly low: Float32Array | null;

  constructor(block: Block, readonly trace: Trace) {
    const envelope = trace.kind === "envelope";
    if ("start" in trace.x) {
      this.x = null;
      this.start = trace.x.start;
      this.step = trace.x.step;
    } else {
      this.x = block.floats(trace.x);
    }
    this.y = block.column(trace.y, envelope ? 0 : trace.column ?? 0);
    this.low = envelope ? block.column(trace.y, 1) : null;
  }

  private at(i: number): number {
    return this.x ? this.x[i] : this.start + i * this.step;
  }

  /** The first point at or after a value of x. */
  private from(value: number): number {
    let low = 0;
    let high = this.y.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.at(middle) < value) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The part within the range (all of it without one), thinned so that peaks stay. */
  cut(range: Range | null): Points {
    const { kind } = this.trace;
    const first = range && kind !== "bars" ? Math.max(0, this.from(range[0]) - 1) : 0;
    const last = range && kind !== "bars" ? Math.min(this.y.length, this.from(range[1]) + 2) : this.y.length;
    const thick = kind === "line" || kind === "envelope";
    const bucket = thick ? Math.max(1, Math.ceil((last - first) / MOST_POINTS)) : 1;
    const points: Points = { x: [], y: [], low: [] };
    for (let i = first; i < last; i += bucket) this.reduce(points, i, Math.min(i + bucket, last));
    return points;
  }

  /** Lowest and highest of a bucket of points, in their order. */
  private reduce(points: Points, first: number, end: number): void {
    let topAt = -1;
    let bottomAt = -1;
    const floor = this.low ?? this.y;
    for (let k = first; k < end; k++) {
      // Comparisons with NaN are false: points that are not known are never chosen.
      if (topAt < 0 ? this.y[k] === this.y[k] : this.y[k] > this.y[topAt]) topAt = k;
      if (bottomAt < 0 ? floor[k] === floor[k] : floor[k] < floor[bottomAt]) bottomAt = k;
    }
    if (topAt < 0) {
      points.x.push(this.at(first));
      points.y.push(null);
    } else if (this.low) {
      points.x.push(this.at(first));
      points.y.push(this.y[topAt]);
      points.low.push(this.low[bottomAt]);
    } else {
      for (const k of topAt === bottomAt ? [topAt] : [Math.min(topAt, bottomAt), Math.max(topAt, bottomAt)]) {
        points.x.push(this.at(k));
        points.y.push(this.y[k]);
      }
    }
  }
}
