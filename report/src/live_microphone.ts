// The browser's microphone as the partner's voice or the robot's.
import { Link } from "./link";

/** Collects 20 ms of sound at a time in the audio thread. */
const WORKLET = `registerProcessor("timar-microphone", class extends AudioWorkletProcessor {
  constructor() { super(); this.block = new Int16Array(Math.round(sampleRate / 50)); this.filled = 0; }
  process([input]) {
    for (const value of input[0] ?? []) {
      this.block[this.filled++] = Math.max(-1, Math.min(1, value)) * 32767;
      if (this.filled === this.block.length) { this.port.postMessage(this.block.slice()); this.filled = 0; }
    }
    return true;
  }
});`;

export class LiveMicrophone {
  private readonly buttons: HTMLButtonElement[];
  private context: AudioContext | null = null;
  private stream: MediaStream | null = null;
  private taken = false;

  constructor(host: HTMLElement, private readonly link: Link, private readonly say: (text: string, good: boolean) => void) {
    this.buttons = [...host.querySelectorAll("button")];
    for (const button of this.buttons) button.addEventListener("click", () => void this.choose(button.dataset.role!));
  }

  /** Whose voice a microphone is now, of this browser's or another's. */
  show(role: string): void {
    for (const button of this.buttons) button.setAttribute("aria-pressed", String(button.dataset.role === role));
    // Before the graph has heard of this browser's microphone, "off" is no answer to it.
    if (role === "off" && this.taken) this.stop();
    this.taken = role !== "off" && this.stream !== null;
  }

  stop(): void {
    this.stream?.getTracks().forEach((track) => track.stop());
    void this.context?.close();
    this.stream = this.context = null;
    this.taken = false;
  }

  private async choose(role: string): Promise<void> {
    this.stop();
    if (role === "off") return this.link.send({ do: "microphone", role });
    try {
      const wish = { echoCancellation: role === "user", noiseSuppression: false, autoGainControl: false, channelCount: 1 };
      this.stream = await navigator.mediaDevices.getUserMedia({ audio: wish });
      this.context = new AudioContext();
      const address = URL.createObjectURL(new Blob([WORKLET], { type: "text/javascript" }));
      await this.context.audioWorklet.addModule(address);
      URL.revokeObjectURL(address);
      const node = new AudioWorkletNode(this.context, "timar-microphone", { numberOfOutputs: 0 });
      node.port.onmessage = (event: MessageEvent<Int16Array<ArrayBuffer>>) => this.link.sendSound(event.data);
      this.link.send({ do: "microphone", role, rate: this.context.sampleRate });
      this.context.createMediaStreamSource(this.stream).connect(node);
    } catch (error) {
      this.stop();
      this.say(`no microphone: ${(error as Error).message}`, false);
    }
  }
}
