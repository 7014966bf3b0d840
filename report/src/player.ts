// The one clock of the page: the audio element where there is audio, else the browser's own.

type Listener = () => void;

export class Player {
  private readonly element: HTMLAudioElement | null;
  private listeners: Listener[] = [];
  private position = 0;
  private since = 0;
  private going = false;
  private speed = 1;
  private gains: GainNode[] | null = null;
  private context: AudioContext | null = null;
  private audible = [true, true];

  constructor(readonly duration: number, sources: { url: string; mime: string }[]) {
    this.element = sources.length ? document.createElement("audio") : null;
    if (this.element) {
      this.element.preload = "auto";
      this.element.preservesPitch = true;
      for (const { url, mime } of sources) {
        const source = document.createElement("source");
        source.src = url;
        source.type = mime;
        this.element.append(source);
      }
      this.element.id = "sound";
      this.element.addEventListener("ended", () => this.stopAtEnd());
      this.element.addEventListener("seeked", () => this.tell());
      document.body.append(this.element);
    }
  }

  get playing(): boolean {
    return this.going;
  }

  get time(): number {
    if (!this.going) return this.position;
    if (this.element && !this.element.ended) return Math.min(this.element.currentTime, this.duration);
    return Math.min(this.position + ((performance.now() - this.since) / 1000) * this.speed, this.duration);
  }

  onChange(listener: Listener): void {
    this.listeners.push(listener);
  }

  async play(): Promise<void> {
    if (this.going) return;
    if (this.position >= this.duration - 0.02) this.position = 0;
    this.since = performance.now();
    this.going = true;
    if (this.element) {
      this.element.currentTime = this.position;
      this.element.playbackRate = this.speed;
      await this.context?.resume();
      try {
        await this.element.play();
      } catch {
        // A browser that refuses to play still shows the motion; it runs without sound then.
        this.going = false;
      }
    }
    this.tell();
  }

  pause(): void {
    this.position = this.time;
    this.going = false;
    this.element?.pause();
    this.tell();
  }

  toggle(): void {
    if (this.going) this.pause();
    else void this.play();
  }

  seek(time: number): void {
    this.position = Math.max(0, Math.min(time, this.duration));
    this.since = performance.now();
    if (this.element) this.element.currentTime = this.position;
    this.tell();
  }

  setSpeed(speed: number): void {
    this.position = this.time;
    this.since = performance.now();
    this.speed = speed;
    if (this.element) this.element.playbackRate = speed;
  }

  /** Left channel 0 (user) or right channel 1 (agent) on or off. */
  setAudible(channel: number, on: boolean): void {
    this.audible[channel] = on;
    this.route();
    this.gains?.forEach((gain, index) => (gain.gain.value = this.audible[index] ? 1 : 0));
  }

  /** Web Audio comes in only when somebody is muted: plain playback needs no graph. */
  private route(): void {
    if (!this.element || this.gains) return;
    this.context = new AudioContext();
    const splitter = this.context.createChannelSplitter(2);
    this.context.createMediaElementSource(this.element).connect(splitter);
    this.gains = [0, 1].map((channel) => {
      const gain = this.context!.createGain();
      splitter.connect(gain, channel);
      gain.connect(this.context!.destination);
      return gain;
    });
    void this.context.resume();
  }

  private stopAtEnd(): void {
    this.position = this.duration;
    this.going = false;
    this.tell();
  }

  /** To be called every animation frame. */
  tick(): void {
    if (this.going && this.time >= this.duration) {
      this.pause();
      this.position = this.duration;
    }
  }

  private tell(): void {
    this.listeners.forEach((listener) => listener());
  }
}
