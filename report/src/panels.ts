// Plots by Plotly, drawn when they come into view; those over time zoom together and carry the player's cursor.
import { Block, Panel, Trace } from "./payload";

declare global {
  interface Window {
    Plotly?: any;
  }
}

/** Points that a line may have on the screen; more are thinned out, and come back when one zooms in. */
const MOST_POINTS = 3000;

interface Series {
  trace: Trace;
  x: Float32Array | null;
  start: number;
  step: number;
  y: Float32Array;
  /** The lower edge of an envelope. */
  low: Float32Array | null;
}

interface Drawn {
  panel: Panel;
  element: HTMLElement;
  plot: HTMLElement;
  cursor: HTMLElement;
  series: Series[];
  ready: boolean;
}

export class Panels {
  private readonly drawn: Drawn[] = [];
  private range: [number, number] | null = null;
  private zooming = false;

  constructor(
    private readonly host: HTMLElement,
    panels: Panel[],
    private readonly block: Block,
    private readonly duration: number,
    private readonly seek: (time: number) => void,
  ) {
    for (const panel of panels) this.frame(panel);
  }

  private frame(panel: Panel): void {
    const element = document.createElement("section");
    element.className = `panel${panel.timed ? "" : " half"}`;
    element.id = `panel-${panel.id}`;
    element.innerHTML = `<header><h3></h3><p></p></header><div class="plot"><div class="cursor" hidden></div></div>`;
    element.querySelector("h3")!.textContent = panel.title;
    element.querySelector("p")!.textContent = panel.note;
    const plot = element.querySelector<HTMLElement>(".plot")!;
    plot.style.height = `${panel.height}px`;
    const cursor = element.querySelector<HTMLElement>(".cursor")!;
    this.host.append(element);
    this.drawn.push({ panel, element, plot, cursor, series: [], ready: false });
  }

  /** Begin to draw; to be called once Plotly is there. */
  start(): void {
    const watcher = new IntersectionObserver(
      (entries) => {
        for (const entry of entries) {
          const one = this.drawn.find((d) => d.element === entry.target);
          if (entry.isIntersecting && one && !one.ready) {
            watcher.unobserve(one.element);
            void this.draw(one);
          }
        }
      },
      { rootMargin: "300px" },
    );
    this.drawn.forEach((one) => watcher.observe(one.element));
    window.addEventListener("beforeprint", () => this.drawn.filter((d) => !d.ready).forEach((d) => void this.draw(d)));
  }

  private read(trace: Trace): Series {
    const regular = "start" in trace.x;
    const envelope = trace.kind === "envelope";
    return {
      trace,
      x: regular ? null : this.block.floats(trace.x as any),
      start: regular ? (trace.x as any).start : 0,
      step: regular ? (trace.x as any).step : 0,
      y: this.block.column(trace.y, envelope ? 0 : trace.column ?? 0),
      low: envelope ? this.block.column(trace.y, 1) : null,
    };
  }

  /** The part of a series within the range, thinned so that peaks stay. */
  private cut(series: Series, range: [number, number] | null): { x: number[]; y: (number | null)[]; low: number[] } {
    const count = series.y.length;
    const at = (i: number): number => (series.x ? series.x[i] : series.start + i * series.step);
    let first = 0;
    let last = count;
    if (range && series.trace.kind !== "bars") {
      const lower = (value: number): number => {
        let a = 0;
        let b = count;
        while (a < b) {
          const m = (a + b) >> 1;
          if (at(m) < value) a = m + 1;
          else b = m;
        }
        return a;
      };
      first = Math.max(0, lower(range[0]) - 1);
      last = Math.min(count, lower(range[1]) + 2);
    }
    const bucket = series.trace.kind === "line" || series.low ? Math.max(1, Math.ceil((last - first) / MOST_POINTS)) : 1;
    const x: number[] = [];
    const y: (number | null)[] = [];
    const low: number[] = [];
    for (let i = first; i < last; i += bucket) {
      let top = -Infinity;
      let bottom = Infinity;
      let topAt = i;
      let bottomAt = i;
      for (let k = i; k < Math.min(i + bucket, last); k++) {
        if (series.y[k] > top) (top = series.y[k]), (topAt = k);
        const floor = series.low ? series.low[k] : series.y[k];
        if (floor < bottom) (bottom = floor), (bottomAt = k);
      }
      if (series.low) {
        x.push(at(i));
        y.push(top);
        low.push(bottom);
      } else if (top === -Infinity) {
        x.push(at(i));
        y.push(null);
      } else if (bucket === 1 || topAt === bottomAt) {
        x.push(at(topAt));
        y.push(top);
      } else {
        const rising = bottomAt < topAt;
        x.push(at(rising ? bottomAt : topAt), at(rising ? topAt : bottomAt));
        y.push(rising ? bottom : top, rising ? top : bottom);
      }
    }
    return { x, y, low };
  }

  private async draw(one: Drawn): Promise<void> {
    one.ready = true;
    one.series = one.panel.traces.map((trace) => this.read(trace));
    await window.Plotly.newPlot(one.plot, this.traces(one), this.layout(one.panel), {
      displayModeBar: false,
      responsive: true,
      doubleClick: "reset",
    });
    one.element.classList.add("ready");
    one.plot.append(one.cursor);
    if (!one.panel.timed) return;
    const gd = one.plot as any;
    gd.on("plotly_relayout", (change: any) => this.zoomed(one, change));
    let down: [number, number] | null = null;
    one.plot.addEventListener("mousedown", (e) => (down = [e.clientX, e.clientY]), true);
    one.plot.addEventListener(
      "mouseup",
      (event) => {
        const moved = down ? Math.hypot(event.clientX - down[0], event.clientY - down[1]) : 99;
        const axis = gd._fullLayout.xaxis;
        const left = one.plot.getBoundingClientRect().left + axis._offset;
        const inside = event.clientX >= left && event.clientX <= left + axis._length;
        const legend = (event.target as Element).closest?.(".legend");
        if (moved < 4 && inside && !legend) this.seek(axis.p2l(event.clientX - left));
        down = null;
      },
      true,
    );
    this.cursor(this.now);
  }

  private traces(one: Drawn): any[] {
    const color = (name: string): string => css(`--${name}`);
    const made: any[] = [];
    for (const series of one.series) {
      const { trace } = series;
      const { x, y, low } = this.cut(series, one.panel.timed ? this.range : null);
      const common = { name: trace.name, legendgroup: trace.name, visible: trace.hidden ? "legendonly" : true };
      if (trace.kind === "envelope") {
        const flat = { ...common, x, type: "scatter", mode: "lines", line: { width: 0.6, color: color(trace.color) } };
        made.push({ ...flat, y: low, showlegend: false, hoverinfo: "skip" });
        made.push({ ...flat, y, fill: "tonexty", fillcolor: color(trace.color), hoverinfo: "skip" });
      } else if (trace.kind === "bars") {
        made.push({ ...common, x, y, type: "bar", marker: { color: color(trace.color) } });
      } else if (trace.kind === "points") {
        made.push({
          ...common, x, y, type: "scatter", mode: "markers", text: trace.text,
          hovertemplate: trace.text ? "%{text}<extra></extra>" : undefined,
          marker: { color: color(trace.color), size: 6, opacity: 0.85 },
        });
      } else {
        made.push({
          ...common, x, y, type: "scatter", mode: "lines", connectgaps: false,
          line: { width: trace.dash ? 1.3 : 1.6, color: color(trace.color), dash: trace.dash ? "dot" : "solid" },
        });
      }
    }
    return made;
  }

  private layout(panel: Panel): any {
    const narrow = this.host.clientWidth < 560;
    const ink = css("--ink-soft");
    const grid = css("--grid");
    const axis = { color: ink, gridcolor: grid, zerolinecolor: grid, linecolor: grid, tickfont: { size: 11 } };
    const legend = panel.traces.filter((t) => t.name).length > 1;
    return {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: css("--font"), size: 12, color: ink },
      margin: { l: narrow ? 44 : 56, r: narrow ? 8 : 14, t: legend ? 26 : 8, b: panel.xTitle || !panel.timed ? 38 : 24 },
      hovermode: panel.timed ? "x unified" : "closest",
      hoverlabel: { bgcolor: css("--card"), bordercolor: grid, font: { color: css("--ink"), size: 12 } },
      dragmode: narrow ? false : "zoom",
      showlegend: legend,
      legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", font: { size: 11 }, bgcolor: "rgba(0,0,0,0)" },
      bargap: 0.06,
      xaxis: {
        ...axis,
        range: panel.timed ? this.range ?? [0, this.duration] : undefined,
        title: panel.xTitle ? { text: panel.xTitle, font: { size: 11 } } : undefined,
        tickvals: panel.xTicks?.at,
        ticktext: panel.xTicks?.text,
        ticksuffix: panel.timed ? " s" : "",
        hoverformat: panel.timed ? ".2f" : undefined,
        showgrid: panel.timed,
        zeroline: !panel.timed,
        fixedrange: !panel.timed,
      },
      yaxis: {
        ...axis,
        title: panel.unit ? { text: panel.unit, font: { size: 11 }, standoff: 4 } : undefined,
        range: panel.yRange,
        tickvals: panel.yTicks?.at,
        ticktext: panel.yTicks?.text,
        fixedrange: true,
        nticks: 6,
      },
      shapes: [
        ...panel.bands.map((band) => ({
          type: "rect", layer: "below", xref: "x", yref: "paper", x0: band.from, x1: band.to,
          y0: band.lane?.[0] ?? 0, y1: band.lane?.[1] ?? 1,
          fillcolor: css(`--${band.color}`), opacity: 0.13, line: { width: 0 },
        })),
        ...panel.lines.map((line) => ({
          type: "line", xref: "paper", x0: 0, x1: 1, y0: line.y, y1: line.y,
          line: { width: 1.2, dash: "dash", color: css(`--${line.color}`) },
        })),
      ],
      annotations: panel.lines
        .filter((line) => line.label)
        .map((line) => ({
          xref: "paper", x: 1, xanchor: "right", y: line.y, yanchor: "bottom", showarrow: false,
          text: line.label, font: { size: 10, color: css(`--${line.color}`) },
        })),
    };
  }

  private zoomed(source: Drawn, change: any): void {
    if (this.zooming) return;
    const reset = change["xaxis.autorange"];
    if (change["xaxis.range[0]"] === undefined && !change["xaxis.range"] && !reset) return;
    const given = (source.plot as any)._fullLayout.xaxis.range as [number, number];
    this.range = reset ? null : [Math.max(0, given[0]), Math.min(this.duration, given[1])];
    if (this.range && this.range[1] - this.range[0] > this.duration * 0.995) this.range = null;
    this.zooming = true;
    const all = this.drawn.filter((one) => one.ready && one.panel.timed);
    void Promise.all(all.map((one) => window.Plotly.react(one.plot, this.traces(one), this.layout(one.panel)))).then(() => {
      this.zooming = false;
      this.cursor(this.now);
    });
  }

  /** Draw again in the present theme. */
  restyle(): void {
    for (const one of this.drawn.filter((d) => d.ready)) {
      void window.Plotly.react(one.plot, this.traces(one), this.layout(one.panel)).then(() => this.cursor(this.now));
    }
  }

  private now = 0;

  /** Move the cursor of every visible plot. */
  cursor(time: number): void {
    this.now = time;
    for (const one of this.drawn) {
      if (!one.ready || !one.panel.timed) continue;
      const full = (one.plot as any)._fullLayout;
      if (!full?.xaxis?._length) continue;
      const [from, to] = full.xaxis.range as [number, number];
      const x = full.xaxis._offset + ((time - from) / (to - from)) * full.xaxis._length;
      const hidden = time < from || time > to;
      one.cursor.hidden = hidden;
      if (!hidden) {
        one.cursor.style.transform = `translateX(${x}px)`;
        one.cursor.style.top = `${full._size.t}px`;
        one.cursor.style.height = `${full._size.h}px`;
      }
    }
  }
}

function css(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
