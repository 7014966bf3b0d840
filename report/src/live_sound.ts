// Both voices, played as they come: the partner's to the left, the robot's to the right.

/** How far ahead sound is scheduled, so that a late message makes no hole [s]. */
const AHEAD = 0.12;

export class LiveSound {
  on = false;
  private context: AudioContext | null = null;
  private readonly due = [0, 0];

  set(on: boolean): void {
    this.on = on;
    if (on) {
      this.context ??= new AudioContext();
      void this.context.resume();
    } else {
      void this.context?.suspend();
    }
  }

  take(data: ArrayBuffer): void {
    const { context } = this;
    if (!this.on || !context || data.byteLength <= 8) return;
    const [voice, rate] = new Uint32Array(data, 0, 2);
    const samples = Float32Array.from(new Int16Array(data, 8), (value) => value / 32768);
    const buffer = context.createBuffer(1, samples.length, rate);
    buffer.copyToChannel(samples, 0);
    const source = new AudioBufferSourceNode(context, { buffer });
    source.connect(new StereoPannerNode(context, { pan: voice ? 0.3 : -0.3 })).connect(context.destination);
    const now = context.currentTime;
    if (this.due[voice] < now + 0.02 || this.due[voice] > now + 1) this.due[voice] = now + AHEAD;
    source.start(this.due[voice]);
    this.due[voice] += buffer.duration;
  }
}
