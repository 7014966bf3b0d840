// The page of a report: stage, player, plots, tables.
import { Panels } from "./panels";
import { Block, Report, Table, bytesOf } from "./payload";
import { Player } from "./player";
import { Stage } from "./stage";

const report = JSON.parse(document.getElementById("report")!.textContent!) as Report;
const block = new Block(bytesOf("block"));
const find = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T;

function clock(time: number): string {
  const minutes = Math.floor(time / 60);
  return `${minutes}:${(time - 60 * minutes).toFixed(1).padStart(4, "0")}`;
}

function fillHeader(): void {
  document.title = report.title;
  find("title").textContent = report.title;
  find("subtitle").textContent = report.subtitle;
  for (const { label, value, tone } of report.chips) {
    const chip = document.createElement("li");
    chip.className = `chip ${tone}`;
    const name = document.createElement("span");
    name.textContent = label;
    const number = document.createElement("b");
    number.textContent = value;
    chip.append(name, number);
    find("chips").append(chip);
  }
  for (const warning of report.warnings) {
    const line = document.createElement("p");
    line.textContent = warning;
    find("warnings").append(line);
  }
  find("footer").textContent = report.footer;
}

function fillTable(table: Table): HTMLElement {
  const section = document.createElement("section");
  section.className = "panel table";
  const heading = document.createElement("header");
  const title = document.createElement("h3");
  title.textContent = table.title;
  const note = document.createElement("p");
  note.textContent = table.note;
  heading.append(title, note);
  const grid = document.createElement("table");
  const head = grid.createTHead().insertRow();
  for (const name of table.columns) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = name;
    head.append(cell);
  }
  const body = grid.createTBody();
  for (const row of table.rows) {
    const line = body.insertRow();
    for (const text of row) line.insertCell().textContent = text;
  }
  const scroll = document.createElement("div");
  scroll.className = "scroll";
  scroll.append(grid);
  section.append(heading, scroll);
  return section;
}

function makeTheme(repaint: () => void): void {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const wanted = new URLSearchParams(location.hash.slice(1)).get("theme");
  const apply = (theme: string): void => {
    root.dataset.theme = theme;
    find("theme").setAttribute("aria-label", theme === "dark" ? "Switch to light" : "Switch to dark");
    repaint();
  };
  let chosen = wanted === "dark" || wanted === "light" ? wanted : null;
  apply(chosen ?? (system.matches ? "dark" : "light"));
  system.addEventListener("change", () => chosen ?? apply(system.matches ? "dark" : "light"));
  find("theme").addEventListener("click", () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    apply(chosen);
  });
}

function main(): void {
  fillHeader();
  const sources = report.audio.map(({ id, mime }) => {
    const bytes = bytesOf(id);
    return { url: URL.createObjectURL(new Blob([bytes.buffer as ArrayBuffer], { type: mime })), mime };
  });
  const player = new Player(report.duration, sources);
  const panels = new Panels(find("panels"), report.panels, block, report.duration, (time) => player.seek(time));
  let stage: Stage | null = null;
  makeTheme(() => {
    stage?.recolor();
    if (window.Plotly) panels.restyle();
  });
  if (report.heads.length) {
    find("stage").dataset.count = String(report.heads.length);
    try {
      stage = new Stage(find("stage"), report.heads, block);
    } catch {
      find("stage").innerHTML = `<p class="none">This browser shows no 3D (WebGL is off); the plots below are complete.</p>`;
    }
  } else if (sources.length) {
    find("stage").innerHTML = `<p class="none">No motion was recorded.</p>`;
  } else {
    find("theatre").hidden = true;
  }
  report.tables.forEach((table) => find("tables").append(fillTable(table)));

  const play = find<HTMLButtonElement>("play");
  const bar = find<HTMLInputElement>("scrub");
  bar.max = String(report.duration);
  find("total").textContent = clock(report.duration);
  play.addEventListener("click", () => player.toggle());
  bar.addEventListener("input", () => player.seek(Number(bar.value)));
  const speed = find<HTMLSelectElement>("speed");
  speed.addEventListener("change", () => player.setSpeed(Number(speed.value)));
  const mutes = [find<HTMLButtonElement>("mute-user"), find<HTMLButtonElement>("mute-agent")];
  const mute = (channel: number): void => {
    const off = mutes[channel].getAttribute("aria-pressed") !== "true";
    mutes[channel].setAttribute("aria-pressed", String(off));
    player.setAudible(channel, !off);
  };
  mutes.forEach((button, channel) => {
    button.hidden = !sources.length;
    button.addEventListener("click", () => mute(channel));
  });

  const keys: Record<string, (shift: boolean) => void> = {
    " ": () => player.toggle(),
    k: () => player.toggle(),
    ArrowLeft: (shift) => player.seek(player.time - (shift ? 10 : 1)),
    ArrowRight: (shift) => player.seek(player.time + (shift ? 10 : 1)),
    ",": () => player.seek(player.time - 0.04),
    ".": () => player.seek(player.time + 0.04),
    Home: () => player.seek(0),
    End: () => player.seek(report.duration),
    u: () => sources.length && mute(0),
    a: () => sources.length && mute(1),
    d: () => find("theme").click(),
    "?": () => find<HTMLDialogElement>("help").showModal(),
  };
  document.addEventListener("keydown", (event) => {
    const target = event.target as HTMLElement;
    if (event.ctrlKey || event.metaKey || event.altKey || target.tagName === "SELECT") return;
    // A focused button answers the space bar itself.
    if (event.key === " " && target.tagName === "BUTTON") return;
    const action = keys[event.key];
    if (!action) return;
    event.preventDefault();
    action(event.shiftKey);
  });
  find("keys").addEventListener("click", () => find<HTMLDialogElement>("help").showModal());

  const update = (): void => {
    player.tick();
    const time = player.time;
    stage?.draw(time);
    panels.cursor(time);
    if (document.activeElement !== bar || player.playing) bar.value = String(time);
    bar.style.setProperty("--done", `${(100 * time) / Math.max(report.duration, 1e-6)}%`);
    bar.setAttribute("aria-valuetext", clock(time));
    find("time").textContent = clock(time);
    play.classList.toggle("playing", player.playing);
    play.setAttribute("aria-label", player.playing ? "Pause" : "Play");
    requestAnimationFrame(update);
  };
  const start = Number(new URLSearchParams(location.hash.slice(1)).get("t") ?? 0);
  if (start > 0) player.seek(start);
  update();

  // The plots' library is large: the heads are up before the browser has read it.
  requestAnimationFrame(() =>
    setTimeout(() => {
      const script = document.createElement("script");
      script.textContent = find("plotly").textContent;
      document.head.append(script);
      panels.start();
      document.documentElement.dataset.ready = "true";
    }),
  );
  // For tests and the curious.
  Object.assign(window, { timar: { player, inspect: () => stage?.inspect(player.time) ?? [], report } });
}

main();
