// The one clock of the page: the audio element where there is audio, else the browser's own.

type Listener = () => void;

export class Player {
  private element: HTMLAudioElement | null = null;
  private readonly jumped: Listener[] = [];
  private position = 0;
  private since = 0;
  private going = false;
  private speed = 1;
  private gains: GainNode[] | null = null;
  private context: AudioContext | null = null;
  private audible = [true, true];

  constructor(readonly duration: number) {}

  /** Give it the sound; resolves to whether this browser plays it. Without sound the clock runs all the same. */
  load(sound: Blob): Promise<boolean> {
    const element = document.createElement("audio");
    element.id = "sound";
    element.preload = "auto";
    element.preservesPitch = true;
    element.src = URL.createObjectURL(sound);
    element.addEventListener("ended", () => this.stopAtEnd());
    document.body.append(element);
    return new Promise((done) => {
      element.addEventListener("loadedmetadata", () => {
        this.element = element;
        element.currentTime = this.position;
        done(true);
      });
      element.addEventListener("error", () => done(false));
    });
  }

  get playing(): boolean {
    return this.going;
  }

  get time(): number {
    if (!this.going) return this.position;
    if (this.element && !this.element.ended) return Math.min(this.element.currentTime, this.duration);
    return Math.min(this.position + ((performance.now() - this.since) / 1000) * this.speed, this.duration);
  }

  /** Call back when the time is set from outside. */
  onJump(listener: Listener): void {
    this.jumped.push(listener);
  }

  async play(): Promise<void> {
    if (this.going) return;
    if (this.position >= this.duration - 0.02) this.seek(0);
    this.since = performance.now();
    this.going = true;
    if (!this.element) return;
    this.element.currentTime = this.position;
    this.element.playbackRate = this.speed;
    await this.context?.resume();
    try {
      await this.element.play();
    } catch (error) {
      // Paused before it began is no refusal.
      if ((error as DOMException).name !== "AbortError") this.going = false;
    }
  }

  pause(): void {
    this.position = this.time;
    this.going = false;
    this.element?.pause();
  }

  toggle(): void {
    if (this.going) this.pause();
    else void this.play();
  }

  seek(time: number): void {
    this.position = Math.max(0, Math.min(time, this.duration));
    this.since = performance.now();
    if (this.element) this.element.currentTime = this.position;
    this.jumped.forEach((listener) => listener());
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
  }

  /** To be called every animation frame. */
  tick(): void {
    if (this.going && this.time >= this.duration) {
      this.pause();
      this.position = this.duration;
    }
  }
}
