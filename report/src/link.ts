// The WebSocket to the graph's page node. It comes back by itself when the graph does.
import { ShapeSpec } from "./payload";

export interface PoseMessage {
  pose: number[];
  known: boolean;
  speaking: boolean;
  joints?: Record<string, number>;
}

/** Thirty times a second. `levels`: partner, robot, 0 to 1. */
export interface NowMessage {
  time: number;
  robot: PoseMessage;
  agent: PoseMessage;
  user: PoseMessage;
  levels: [number, number];
  turn: number;
}

/** What the robot looks like; `block` holds the numbers of `shape`. */
export interface BodyMessage {
  robot: string;
  jaw: boolean;
  shape?: ShapeSpec;
  block?: string;
}

/** Once a second. */
export interface WordsMessage {
  stream: { mode?: string; model?: string; trained?: boolean; delay?: number; step?: number };
  style: Record<string, number>;
  latency: [number | null, number | null];
  answered: number;
  recording: boolean;
  playing: boolean | null;
  microphone: string;
  nodes: { name: string; level: number; words: string }[];
}

export interface Listener {
  open(on: boolean): void;
  now(state: NowMessage): void;
  body(body: BodyMessage): void;
  words(words: WordsMessage): void;
  answer(text: string, good: boolean): void;
  sound(data: ArrayBuffer): void;
}

const PATIENCE = 1500;

export class Link {
  private socket: WebSocket | null = null;

  constructor(private readonly listener: Listener) {}

  begin(): void {
    const token = new URLSearchParams(location.search).get("token") ?? "";
    const socket = new WebSocket(`ws://${location.host}/live?token=${encodeURIComponent(token)}`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.addEventListener("open", () => this.listener.open(true));
    socket.addEventListener("message", (event) => this.take(event.data as string | ArrayBuffer));
    socket.addEventListener("close", () => {
      this.listener.open(false);
      setTimeout(() => this.begin(), PATIENCE);
    });
  }

  send(command: object): void {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(command));
  }

  /** Sound is dropped, not queued, where the connection does not keep up. */
  sendSound(samples: Int16Array<ArrayBuffer>): void {
    if (this.socket?.readyState === WebSocket.OPEN && this.socket.bufferedAmount < 100_000) this.socket.send(samples);
  }

  private take(data: string | ArrayBuffer): void {
    if (typeof data !== "string") return this.listener.sound(data);
    const message = JSON.parse(data);
    if (message.kind === "now") this.listener.now(message);
    else if (message.kind === "body") this.listener.body(message);
    else if (message.kind === "words") this.listener.words(message);
    else if (message.kind === "answer") this.listener.answer(message.words, message.good);
  }
}
