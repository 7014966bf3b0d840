// The page of a report. It runs before the browser has read the data and Plotly, which stand behind it in the file:
// the graphics card is at work on the heads' program meanwhile.
import { Controls, themed, wanted } from "./controls";
import { fillTables, fillWords, find } from "./header";
import { Panels } from "./panels";
import { Block, Report, bytesOf } from "./payload";
import { Player } from "./player";
import { Stage } from "./stage";

const report = JSON.parse(find("report").textContent!) as Report;
let repaint = (): void => {};
const mark = (name: string): PerformanceMark => performance.mark(`timar:${name}`);

function makeStage(): Stage | null {
  find("stage").dataset.count = String(report.heads.length);
  if (!report.heads.length) {
    find("stage").innerHTML = `<p class="none">No motion was recorded.</p>`;
    find("theatre").hidden = !report.audio.length;
    find("transport").hidden = !report.audio.length;
    return null;
  }
  try {
    return new Stage(find("stage"));
  } catch {
    find("stage").innerHTML = `<p class="none">This browser shows no 3D (WebGL is off); the plots below are complete.</p>`;
    return null;
  }
}

/** The first kind of sound that this browser plays. */
async function loadSound(player: Player): Promise<boolean> {
  const probe = document.createElement("audio");
  for (const { id, mime } of report.audio) {
    if (!probe.canPlayType(mime)) continue;
    if (await player.load(new Blob([bytesOf(id)], { type: mime }))) return true;
  }
  return false;
}

async function present(stage: Stage | null): Promise<void> {
  const block = new Block(bytesOf("block"));
  mark("data");
  const player = new Player(report.duration);
  const panels = new Panels(find("panels"), report.panels, block, report.duration, (time) => player.seek(time));
  const controls = new Controls(player, panels);
  player.onJump(() => panels.cursor(player.time, true));
  repaint = () => {
    stage?.recolor();
    panels.restyle();
  };
  stage?.fill(report.heads, block);
  if (wanted.has("film")) return film(stage, player);
  // For tests and the curious.
  const state = { player, panels, report, inspect: () => stage?.inspect(player.time) ?? [], programs: stage?.programs ?? 0 };
  Object.assign(window, { timar: state });
  const start = Number(wanted.get("t") ?? 0);
  if (start > 0) player.seek(start);
  const update = (): void => {
    player.tick();
    const time = player.time;
    stage?.draw(time);
    panels.cursor(time);
    controls.update(time);
    requestAnimationFrame(update);
  };
  const sound = loadSound(player).then((audible) => {
    controls.enable(audible);
    mark("sound");
  });
  const plots = panels.start().then(() => mark("plots"));
  // The plots are up first: the heads' program may need that long.
  await plots;
  update();
  await stage?.finished();
  mark("heads");
  await sound;
  mark("usable");
  document.documentElement.dataset.ready = "true";
}

/** Only the heads and who speaks, drawn when `timar film` asks for a time. */
function film(stage: Stage | null, player: Player): void {
  document.documentElement.dataset.film = "true";
  const bands = report.panels.find((panel) => panel.id === "sound")?.bands ?? [];
  const talks = (role: string, time: number): boolean =>
    bands.some((band) => band.color === role && band.from - 0.1 <= time && time < band.to + 0.25);
  const show = async (time: number): Promise<void> => {
    const who = [talks("user", time) ? "Partner" : "", talks("agent", time) ? "Robot" : ""];
    find("caption").textContent = who[0] && who[1] ? "Both speak" : who[0] || who[1] ? `${who[0] || who[1]} speaks` : "";
    find("caption").className = who[0] && who[1] ? "" : who[0] ? "role-user" : "role-agent";
    stage?.draw(time);
    await stage?.finished();
  };
  Object.assign(window, { timar: { show, duration: player.duration } });
  document.documentElement.dataset.ready = "true";
}

mark("script");
themed(() => repaint());
fillWords(report);
fillTables(report.tables);
const stage = makeStage();
mark("stage");
document.addEventListener("DOMContentLoaded", () => void present(stage));
