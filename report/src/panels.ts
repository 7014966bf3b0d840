// Plots by Plotly, drawn when they come into view; those over time show one range and carry the player's cursor.
import { layout, traces } from "./figure";
import { Block, Panel } from "./payload";
import { Range, Series } from "./series";

/** The part of Plotly that is used here, and the fields of a drawn plot. */
interface Plotly {
  newPlot(plot: HTMLElement, traces: object[], layout: object, config: object): Promise<unknown>;
  react(plot: HTMLElement, traces: object[], layout: object): Promise<unknown>;
}
interface Axis {
  range: Range;
  _offset: number;
  _length: number;
  p2l(pixel: number): number;
}
interface DrawnPlot extends HTMLElement {
  _fullLayout?: { xaxis: Axis; _size: { t: number; h: number } };
  on(event: string, listener: (change: Record<string, unknown>) => void): void;
}

declare global {
  interface Window {
    Plotly?: Plotly;
  }
}

interface Frame {
  panel: Panel;
  element: HTMLElement;
  plot: DrawnPlot;
  cursor: HTMLElement;
  series: Series[];
  drawn: boolean;
  /** What is shown is not what it should be. */
  stale: boolean;
  visible: boolean;
}

export class Panels {
  private readonly frames: Frame[] = [];
  private range: Range | null = null;
  private busy = false;
  private now = 0;

  constructor(
    private readonly host: HTMLElement,
    panels: Panel[],
    private readonly block: Block,
    private readonly duration: number,
    private readonly seek: (time: number) => void,
  ) {
    let section = "";
    for (const panel of panels) {
      if (panel.section !== section) {
        const heading = document.createElement("h2");
        heading.textContent = section = panel.section;
        host.append(heading);
      }
      this.frames.push(this.frame(panel));
    }
  }

  private frame(panel: Panel): Frame {
    const element = document.createElement("section");
    element.className = `panel${panel.half ? " half" : ""}`;
    element.id = `panel-${panel.id}`;
    element.innerHTML = `<header><h3></h3><p></p></header><div class="plot"><div class="cursor" hidden></div></div>`;
    element.querySelector("h3")!.textContent = panel.title;
    if (panel.timed && panel.unit) element.querySelector("h3")!.insertAdjacentHTML("beforeend", ` <small></small>`);
    element.querySelector("small")?.append(`[${panel.unit}]`);
    element.querySelector("p")!.textContent = panel.note;
    const plot = element.querySelector<DrawnPlot>(".plot")!;
    plot.style.height = `${panel.height}px`;
    const cursor = element.querySelector<HTMLElement>(".cursor")!;
    this.host.append(element);
    return { panel, element, plot, cursor, series: [], drawn: false, stale: true, visible: false };
  }

  /** How many plots have been drawn. */
  get drawn(): number {
    return this.frames.filter((one) => one.drawn).length;
  }

  /** Begin to draw, once Plotly is there; resolves when all that is in view has been drawn. */
  start(): Promise<void> {
    window.addEventListener("beforeprint", () => this.frames.forEach((one) => void this.draw(one)));
    return new Promise((done) => {
      const watcher = new IntersectionObserver(
        (entries) => {
          for (const entry of entries) {
            this.frames.find((one) => one.element === entry.target)!.visible = entry.isIntersecting;
          }
          void this.refresh().then(done);
        },
        { rootMargin: "100px" },
      );
      this.frames.forEach((one) => watcher.observe(one.element));
      if (!this.frames.length) done();
    });
  }

  /** Draw what is in view and not as it should be, one after the other so that the page stays alive. */
  private async refresh(): Promise<void> {
    if (this.busy) return;
    this.busy = true;
    for (let next = this.next(); next; next = this.next()) {
      await this.draw(next);
      await new Promise((done) => setTimeout(done));
    }
    this.busy = false;
  }

  private next(): Frame | undefined {
    return this.frames.find((one) => one.visible && one.stale);
  }

  private async draw(one: Frame): Promise<void> {
    if (!one.stale) return;
    one.stale = false;
    const range: Range = this.range ?? [0, this.duration];
    if (!one.drawn) one.series = one.panel.traces.map((trace) => new Series(this.block, trace));
    const figure = [traces(one.panel, one.series, this.range), layout(one.panel, range, one.plot.clientWidth)] as const;
    if (one.drawn) {
      await window.Plotly!.react(one.plot, ...figure);
    } else {
      one.drawn = true;
      await window.Plotly!.newPlot(one.plot, ...figure, { displayModeBar: false, responsive: true, doubleClick: false });
      one.plot.append(one.cursor);
      if (one.panel.timed) this.listen(one);
      one.element.classList.add("ready");
    }
    this.place(one);
  }

  private listen(one: Frame): void {
    one.plot.on("plotly_relayout", (change) => {
      if ("xaxis.range" in change || "xaxis.range[0]" in change) this.show(one.plot._fullLayout!.xaxis.range);
    });
    one.plot.on("plotly_doubleclick", () => this.show(null));
    let down: [number, number] | null = null;
    one.plot.addEventListener("mousedown", (e) => (down = [e.clientX, e.clientY]), true);
    one.plot.addEventListener(
      "mouseup",
      (event) => {
        const moved = down ? Math.hypot(event.clientX - down[0], event.clientY - down[1]) : 99;
        const axis = one.plot._fullLayout!.xaxis;
        const left = one.plot.getBoundingClientRect().left + axis._offset;
        const inside = event.clientX >= left && event.clientX <= left + axis._length;
        const legend = (event.target as Element).closest?.(".legend");
        if (moved < 4 && inside && !legend) this.seek(axis.p2l(event.clientX - left));
        down = null;
      },
      true,
    );
  }

  /** How many seconds the plots show. */
  get span(): number {
    return this.range ? this.range[1] - this.range[0] : this.duration;
  }

  /** Show so many seconds about the cursor. */
  zoom(seconds: number): void {
    this.show([this.now - seconds / 2, this.now + seconds / 2]);
  }

  /** Show a range in every plot over time; all of it without one. */
  show(range: Range | null): void {
    if (range) {
      const width = Math.min(Math.max(range[1] - range[0], 0.2), this.duration);
      const from = Math.max(0, Math.min(range[0], this.duration - width));
      range = width > this.duration * 0.995 ? null : [from, from + width];
    }
    this.range = range;
    this.host.dispatchEvent(new CustomEvent("span"));
    this.frames.filter((one) => one.panel.timed).forEach((one) => (one.stale = true));
    void this.refresh();
  }

  /** Draw again in the present theme. */
  restyle(): void {
    this.frames.forEach((one) => (one.stale = true));
    void this.refresh();
  }

  /** Move the cursor. A range that it runs out of moves on with it, and one that it jumps out of goes there. */
  cursor(time: number, jumped = false): void {
    if (this.range) {
      const [from, to] = this.range;
      const left = time < from || time > to;
      if (left && jumped) this.show([time - 0.25 * (to - from), time + 0.75 * (to - from)]);
      else if (left && this.now >= from && this.now <= to) this.show([time, time + to - from]);
    }
    if (time === this.now && !jumped) return;
    this.now = time;
    this.frames.filter((one) => one.visible).forEach((one) => this.place(one));
  }

  private place(one: Frame): void {
    const full = one.plot._fullLayout;
    if (!one.panel.timed || !full?.xaxis?._length) return;
    const [from, to] = full.xaxis.range;
    one.cursor.hidden = this.now < from || this.now > to;
    const x = full.xaxis._offset + ((this.now - from) / (to - from)) * full.xaxis._length;
    one.cursor.style.transform = `translateX(${x}px)`;
    one.cursor.style.top = `${full._size.t}px`;
    one.cursor.style.height = `${full._size.h}px`;
  }
}
