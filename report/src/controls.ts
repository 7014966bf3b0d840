// Buttons, sliders and keys.
import { clock } from "./figure";
import { find } from "./header";
import { Panels } from "./panels";
import { Player } from "./player";

/** Spans of time that the plots offer [s]; 0 stands for all. */
const SPANS = [0, 60, 20, 5];

/** What is asked for in the address after `#`: `t`, a time, and `theme`. */
export const wanted = new URLSearchParams(location.hash.slice(1));

/** Dark or light: as the address says, else as the system does, until somebody chooses. */
export function themed(repaint: () => void): void {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = (theme: string): void => {
    root.dataset.theme = theme;
    find("theme").setAttribute("aria-label", theme === "dark" ? "Switch to light" : "Switch to dark");
    repaint();
  };
  const asked = wanted.get("theme");
  let chosen = asked === "dark" || asked === "light" ? asked : null;
  apply(chosen ?? (system.matches ? "dark" : "light"));
  system.addEventListener("change", () => chosen ?? apply(system.matches ? "dark" : "light"));
  find("theme").addEventListener("click", () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    apply(chosen);
  });
}

/** Everything that can be pressed. */
export class Controls {
  private readonly play = find<HTMLButtonElement>("play");
  private readonly bar = find<HTMLInputElement>("scrub");
  private readonly mutes = [find<HTMLButtonElement>("mute-user"), find<HTMLButtonElement>("mute-agent")];

  private shown = -1;
  private shownPlaying = false;

  constructor(private readonly player: Player, private readonly panels: Panels) {
    this.bar.max = String(player.duration);
    find("total").textContent = clock(player.duration);
    this.play.addEventListener("click", () => player.toggle());
    this.bar.addEventListener("input", () => player.seek(Number(this.bar.value)));
    const speed = find<HTMLSelectElement>("speed");
    speed.addEventListener("change", () => player.setSpeed(Number(speed.value)));
    this.mutes.forEach((button, channel) => button.addEventListener("click", () => this.mute(channel)));
    find("keys").addEventListener("click", () => find<HTMLDialogElement>("help").showModal());
    this.offerSpans();
    this.listen();
    // Everything below the top counts as seen: what is not has been scrolled past.
    const stuck = new IntersectionObserver(
      ([entry]) => find("transport").classList.toggle("stuck", !entry.isIntersecting),
      { rootMargin: "0px 0px 100000px 0px" },
    );
    stuck.observe(find("sentinel"));
  }

  /** From now on it plays. */
  enable(sound: boolean): void {
    this.play.disabled = false;
    this.mutes.forEach((button) => (button.hidden = !sound));
  }

  /** Show the time that the player is at. */
  update(time: number): void {
    const { duration, playing } = this.player;
    if (this.shown === time && this.shownPlaying === playing) return;
    this.shown = time;
    this.shownPlaying = playing;
    if (document.activeElement !== this.bar || playing) this.bar.value = String(time);
    this.bar.style.setProperty("--done", `${(100 * time) / Math.max(duration, 1e-6)}%`);
    this.bar.setAttribute("aria-valuetext", clock(time));
    find("time").textContent = clock(time);
    this.play.classList.toggle("playing", playing);
    this.play.setAttribute("aria-label", playing ? "Pause" : "Play");
  }

  private mute(channel: number): void {
    const off = this.mutes[channel].getAttribute("aria-pressed") !== "true";
    this.mutes[channel].setAttribute("aria-pressed", String(off));
    this.player.setAudible(channel, !off);
  }

  /** Buttons for how much time the plots show; only what is shorter than the conversation. */
  private offerSpans(): void {
    const { duration } = this.player;
    const host = find("spans");
    const offered = SPANS.filter((seconds) => seconds < duration);
    host.hidden = offered.length < 2;
    const buttons = offered.map((seconds) => {
      const button = document.createElement("button");
      button.textContent = seconds ? (seconds < 60 ? `${seconds} s` : `${seconds / 60} min`) : "All";
      button.addEventListener("click", () => (seconds ? this.panels.zoom(seconds) : this.panels.show(null)));
      host.append(button);
      return button;
    });
    const mark = (): void => {
      buttons.forEach((button, k) => {
        const on = Math.abs((offered[k] || duration) - this.panels.span) < 0.01;
        button.setAttribute("aria-pressed", String(on));
      });
    };
    find("panels").addEventListener("span", mark);
    mark();
  }

  private listen(): void {
    const { player, panels } = this;
    const step = (seconds: number): void => player.seek(player.time + seconds);
    const keys: Record<string, (shift: boolean) => void> = {
      " ": () => this.play.disabled || player.toggle(),
      k: () => this.play.disabled || player.toggle(),
      ArrowLeft: (shift) => step(shift ? -10 : -1),
      ArrowRight: (shift) => step(shift ? 10 : 1),
      ",": () => step(-0.04),
      ".": () => step(0.04),
      Home: () => player.seek(0),
      End: () => player.seek(player.duration),
      "+": () => panels.zoom(panels.span / 2),
      "=": () => panels.zoom(panels.span / 2),
      "-": () => panels.zoom(panels.span * 2),
      "0": () => panels.show(null),
      u: () => this.mutes[0].hidden || this.mute(0),
      a: () => this.mutes[1].hidden || this.mute(1),
      d: () => find("theme").click(),
      "?": () => find<HTMLDialogElement>("help").showModal(),
    };
    document.addEventListener("keydown", (event) => {
      const target = event.target as HTMLElement;
      if (event.ctrlKey || event.metaKey || event.altKey || target.tagName === "SELECT") return;
      if (find<HTMLDialogElement>("help").open) return;
      // A focused button answers the space bar itself.
      if (event.key === " " && target.tagName === "BUTTON") return;
      const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (!action) return;
      event.preventDefault();
      action(event.shiftKey);
    });
  }
}
