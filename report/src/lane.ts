// The last seconds of both voices, and when the network answered.
import { css } from "./figure";
import { NowMessage } from "./link";

const SECONDS = 20;

export class Lane {
  private readonly past: { time: number; levels: [number, number]; turn: number }[] = [];
  private colors = { user: "", agent: "", grid: "" };
  private stale = true;

  constructor(private readonly canvas: HTMLCanvasElement) {
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.recolor();
  }

  recolor(): void {
    this.colors = { user: css("--user"), agent: css("--agent"), grid: css("--line") };
    this.stale = true;
  }

  push({ time, levels, turn }: NowMessage): void {
    const last = this.past[this.past.length - 1];
    if (last && time < last.time) this.past.length = 0;
    this.past.push({ time, levels, turn });
    while (this.past[0].time < time - SECONDS) this.past.shift();
    this.stale = true;
  }

  private resize(): void {
    const ratio = Math.min(window.devicePixelRatio, 2);
    this.canvas.width = Math.round(this.canvas.clientWidth * ratio);
    this.canvas.height = Math.round(this.canvas.clientHeight * ratio);
    this.stale = true;
  }

  draw(): void {
    const context = this.canvas.getContext("2d");
    if (!this.stale || !context) return;
    this.stale = false;
    const { width, height } = this.canvas;
    context.clearRect(0, 0, width, height);
    const middle = height / 2;
    context.fillStyle = this.colors.grid;
    context.fillRect(0, middle, width, 1);
    if (!this.past.length) return;
    const end = this.past[this.past.length - 1].time;
    const x = (time: number): number => width * (1 - (end - time) / SECONDS);
    let turn = this.past[0].turn;
    for (const one of this.past) {
      if (one.turn !== turn) context.fillRect(x(one.time), middle - 5, 1, 11);
      turn = one.turn;
    }
    ["user", "agent"].forEach((role, side) => {
      context.fillStyle = this.colors[role as "user" | "agent"];
      context.beginPath();
      context.moveTo(x(this.past[0].time), middle);
      for (const one of this.past) {
        // Levels are even in decibels; what is below half is hardly heard.
        const size = Math.max(0, (one.levels[side] - 0.3) / 0.7) ** 1.5 * (middle - 8);
        context.lineTo(x(one.time), middle + (side ? size : -size));
      }
      context.lineTo(width, middle);
      context.globalAlpha = 0.75;
      context.fill();
      context.globalAlpha = 1;
    });
  }
}
