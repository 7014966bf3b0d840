// The page of `timar live`: what the graph does now, and the buttons and sliders that steer it.
import * as THREE from "three";
import { themed } from "./controls";
import { find } from "./header";
import { Pose, Robot, faceOf } from "./heads";
import { Lane } from "./lane";
import { Link } from "./link";
import { BodyMessage, NowMessage, PoseMessage, WordsMessage } from "./link";
import { LiveSound } from "./live_sound";
import { LiveMicrophone } from "./live_microphone";
import { Block, bytesOfText } from "./payload";
import { UrdfRobot } from "./robot";
import { Sliders } from "./sliders";
import { Stage } from "./stage";

const NOTHING: PoseMessage = { pose: [0, 0, 0, 0, 0, 0, 0, 0, 0], known: false, speaking: false };

let now: NowMessage = { time: 0, robot: NOTHING, agent: NOTHING, user: NOTHING, levels: [0, 0], turn: -1 };
let states = 0;
let stage: Stage | null = null;
let repaint = (): void => {};

function poseOf({ pose, known, speaking, joints }: PoseMessage): Pose {
  const head = new THREE.Vector3(pose[0], pose[1], pose[2]);
  const jaw = new THREE.Vector3(pose[3], pose[4], pose[5]);
  return { head, jaw, brow: pose[6], smile: pose[7], wide: pose[8], known, speaking, joints };
}

/** Put the heads up, once it is known what the robot looks like. */
function raise(body: BodyMessage): void {
  find("title").textContent = body.robot;
  find("stage").replaceChildren();
  try {
    stage = new Stage(find("stage"));
  } catch {
    find("stage").innerHTML = `<p class="none">This browser shows no 3D (WebGL is off).</p>`;
    return;
  }
  const { shape, block } = body;
  const note = shape ? "joints as measured" : "a stand-in that moves as its joints do: no URDF is known";
  const robot = { id: "robot", label: "Robot", note: body.jaw ? note : `${note}; it has no jaw`, role: "agent" as const };
  stage.add(
    robot,
    (colors) => (shape && block ? new UrdfRobot(new Block(bytesOfText(block)), shape) : new Robot(colors)),
    () => poseOf(now.robot),
  );
  stage.add(
    { id: "agent", label: "What it wants to do", note: "the model’s FLAME motion", role: "agent" },
    (colors) => faceOf("agent", colors), () => poseOf(now.agent),
  );
  stage.add(
    { id: "user", label: "Partner", note: "as tracked", role: "user" },
    (colors) => faceOf("user", colors), () => poseOf(now.user),
  );
  stage.begin();
}

function figures(words: WordsMessage): void {
  const { stream, latency, answered } = words;
  const rolling = stream.mode === "rolling";
  const milliseconds = (value: number | null): string => (value === null ? "–" : `${value.toFixed(0)} ms`);
  const rows: [string, string, string][] = [
    ["Answer, median", milliseconds(latency[0]), "From a turn’s arrival to its motion’s, at this page’s node: what the network takes. Of the last 60 answers."],
    ["Answer, 95 %", milliseconds(latency[1]), "95 of 100 of the last 60 answers took less."],
    [
      rolling ? "Delay unless ahead" : "Playback delay",
      stream.delay === undefined ? "–" : `${(stream.delay * 1000).toFixed(0)} ms`,
      "How much later than heard the robot’s voice and motion are shown. In rolling mode speech that is published ahead of its time is not delayed.",
    ],
    [rolling ? "Hops answered" : "Turns answered", String(answered), "Since the page’s node was started."],
  ];
  find("figures").replaceChildren(
    ...rows.map(([name, value, title]) => {
      const row = document.createElement("div");
      row.title = title;
      const [term, figure] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = name;
      figure.textContent = value;
      row.append(term, figure);
      return row;
    }),
  );
}

function nodes(words: WordsMessage): void {
  const worst = Math.max(0, ...words.nodes.map((node) => node.level));
  find("nodes-note").textContent = words.nodes.length ? ["all well", "look at the yellow ones", "something failed", "some are silent"][worst] : "";
  find("nodes").replaceChildren(
    ...words.nodes.map((node) => {
      const line = document.createElement("li");
      line.className = `level${node.level}`;
      const [name, text] = [document.createElement("b"), document.createElement("span")];
      name.textContent = node.name;
      text.textContent = text.title = node.level === 3 ? "silent" : node.words;
      line.append(name, text);
      return line;
    }),
  );
}

function describe(words: WordsMessage): void {
  const { stream } = words;
  if (!stream.model) return;
  find("subtitle").textContent = [`model ${stream.model}`, stream.mode, stream.mode === "rolling" ? `a hop of ${stream.step?.toFixed(2)} s` : ""].filter(Boolean).join(" · ");
  const text = stream.trained ? "" : "UNTRAINED weights: the motion means nothing.";
  if (find("warnings").textContent === text) return;
  const warning = document.createElement("p");
  warning.textContent = text;
  find("warnings").replaceChildren(...(text ? [warning] : []));
}

let hush = 0;
function say(text: string, good: boolean): void {
  const toast = find("toast");
  toast.textContent = text;
  toast.hidden = false;
  toast.className = good ? "" : "bad";
  clearTimeout(hush);
  hush = window.setTimeout(() => (toast.hidden = true), 3500);
}

const link = new Link({
  open: (on) => {
    find("link").textContent = on ? "live" : "not connected";
    find("link").className = `pill ${on ? "on" : "off"}`;
    if (!on) microphone.stop();
    if (on && sound.on) link.send({ do: "hear", on: true });
  },
  now: (state) => {
    now = state;
    states += 1;
    lane.push(state);
  },
  body: raise,
  words: (words) => {
    describe(words);
    figures(words);
    nodes(words);
    sliders.update(words.style);
    find("record").setAttribute("aria-pressed", String(words.recording));
    find("record").textContent = words.recording ? "Recording" : "Record";
    find("source").hidden = words.playing === null;
    find("source").textContent = words.playing ? "Stop the recording" : "Play the recording";
    find("source").dataset.on = String(!words.playing);
    microphone.show(words.microphone);
  },
  answer: say,
  sound: (data) => sound.take(data),
});
const sound = new LiveSound();
const microphone = new LiveMicrophone(find("microphone"), link, say);
const sliders = new Sliders(find("sliders"), (name, value) => link.send({ do: "style", name, value }));
const lane = new Lane(find<HTMLCanvasElement>("lane"));

for (const name of ["cancel", "reset"]) find(name).addEventListener("click", () => link.send({ do: name }));
find("record").addEventListener("click", () => link.send({ do: "record", on: find("record").getAttribute("aria-pressed") !== "true" }));
find("source").addEventListener("click", () => link.send({ do: "play", on: find("source").dataset.on === "true" }));
find("hear").addEventListener("click", () => {
  sound.set(!sound.on);
  find("hear").setAttribute("aria-pressed", String(sound.on));
  link.send({ do: "hear", on: sound.on });
});

themed(() => repaint());
repaint = () => {
  stage?.recolor();
  lane.recolor();
};
link.begin();
/** A picture is begun when the graphics card is done with the last: where it is slow, sound must not wait for it. */
async function draw(): Promise<void> {
  lane.draw();
  if (stage?.draw(now.time)) await stage.finished();
  requestAnimationFrame(() => void draw());
}
void draw();
// For tests and the curious.
Object.assign(window, { timar: { now: () => now, states: () => states, link } });
document.documentElement.dataset.ready = "true";
