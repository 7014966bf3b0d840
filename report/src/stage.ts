// One WebGL canvas behind a row of slots, one slot a head.
import * as THREE from "three";
import { Colors, Figure, Track, makeFigure } from "./heads";
import { Block, HeadSpec } from "./payload";

interface Slot {
  spec: HeadSpec;
  track: Track;
  figure: Figure;
  scene: THREE.Scene;
  element: HTMLElement;
  orbit: { yaw: number; pitch: number };
}

export class Stage {
  private readonly renderer: THREE.WebGLRenderer;
  private readonly camera = new THREE.PerspectiveCamera(24, 1, 0.1, 50);
  private readonly slots: Slot[] = [];
  private stale = true;
  private shown = -1;

  /** Throws where the browser has no WebGL. */
  constructor(private readonly host: HTMLElement, heads: HeadSpec[], block: Block) {
    const canvas = document.createElement("canvas");
    canvas.className = "stage-canvas";
    this.renderer = new THREE.WebGLRenderer({ canvas, antialias: true, alpha: true, preserveDrawingBuffer: true });
    this.renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
    this.renderer.toneMapping = THREE.ACESFilmicToneMapping;
    this.renderer.toneMappingExposure = 1.05;
    this.renderer.setScissorTest(true);
    host.prepend(canvas);
    for (const spec of heads) this.add(spec, block);
    new ResizeObserver(() => this.resize()).observe(host);
    this.resize();
    this.recolor();
  }

  private add(spec: HeadSpec, block: Block): void {
    const element = document.createElement("figure");
    element.className = `slot role-${spec.role}`;
    element.dataset.head = spec.id;
    element.innerHTML = `<figcaption><span class="dot"></span><b></b><small></small></figcaption>`;
    element.querySelector("b")!.textContent = spec.label;
    element.querySelector("small")!.textContent = spec.note;
    this.host.append(element);
    const track = new Track(block, spec);
    const figure = makeFigure(spec, block, track, this.colors(spec));
    const scene = new THREE.Scene();
    const key = new THREE.DirectionalLight(0xfff4e8, 2.3);
    key.position.set(2.2, 2.6, 3.4);
    const rim = new THREE.DirectionalLight(0xbcd4ff, 1.5);
    rim.position.set(-3, 1.6, -2.5);
    const fill = new THREE.DirectionalLight(0xe4ecff, 0.55);
    fill.position.set(-2.6, -0.2, 2.5);
    scene.add(new THREE.HemisphereLight(0xf4f7ff, 0x8a8078, 1.15), key, rim, fill, figure.group);
    const slot = { spec, track, figure, scene, element, orbit: { yaw: 0, pitch: 0 } };
    this.slots.push(slot);
    this.makeDraggable(slot);
  }

  private makeDraggable(slot: Slot): void {
    let from: [number, number] | null = null;
    slot.element.addEventListener("pointerdown", (event) => {
      from = [event.clientX, event.clientY];
      slot.element.setPointerCapture(event.pointerId);
    });
    slot.element.addEventListener("pointermove", (event) => {
      if (!from) return;
      slot.orbit.yaw = THREE.MathUtils.clamp(slot.orbit.yaw + (event.clientX - from[0]) * 0.008, -2.6, 2.6);
      slot.orbit.pitch = THREE.MathUtils.clamp(slot.orbit.pitch + (event.clientY - from[1]) * 0.006, -0.7, 0.9);
      from = [event.clientX, event.clientY];
      this.stale = true;
    });
    const stop = (): void => void (from = null);
    slot.element.addEventListener("pointerup", stop);
    slot.element.addEventListener("pointercancel", stop);
    slot.element.addEventListener("dblclick", () => {
      slot.orbit = { yaw: 0, pitch: 0 };
      this.stale = true;
    });
  }

  private colors(spec: HeadSpec): Colors {
    const style = getComputedStyle(document.documentElement);
    const read = (name: string): THREE.Color => new THREE.Color(style.getPropertyValue(name).trim() || "#888");
    return { accent: read(`--${spec.role}`), backdrop: read("--stage") };
  }

  recolor(): void {
    for (const slot of this.slots) slot.figure.recolor(this.colors(slot.spec));
    this.stale = true;
  }

  private resize(): void {
    this.renderer.setSize(this.host.clientWidth, this.host.clientHeight, false);
    this.stale = true;
  }

  /** Rotation of a head as shown now (for tests): quaternion of its neck, and the jaw's angle. */
  inspect(time: number): { id: string; head: number[]; jaw: number[]; known: boolean }[] {
    return this.slots.map(({ spec, track }) => {
      const pose = track.at(time);
      return { id: spec.id, head: pose.head.toArray(), jaw: pose.jaw.toArray(), known: pose.known };
    });
  }

  draw(time: number): void {
    if (!this.stale && time === this.shown) return;
    this.stale = false;
    this.shown = time;
    const height = this.host.clientHeight;
    const base = this.host.getBoundingClientRect();
    this.renderer.setScissor(0, 0, this.host.clientWidth, height);
    this.renderer.setViewport(0, 0, this.host.clientWidth, height);
    this.renderer.clear();
    for (const slot of this.slots) {
      const box = slot.element.getBoundingClientRect();
      const pose = slot.track.at(time);
      slot.figure.show(pose, time);
      slot.element.classList.toggle("speaking", pose.speaking);
      slot.element.classList.toggle("unknown", !pose.known);
      const left = box.left - base.left;
      const bottom = height - (box.bottom - base.top);
      this.renderer.setViewport(left, bottom, box.width, box.height);
      this.renderer.setScissor(left, bottom, box.width, box.height);
      this.camera.aspect = box.width / box.height;
      const distance = this.camera.aspect < 0.8 ? 8.1 / (this.camera.aspect / 0.8) ** 0.75 : 8.1;
      const { yaw, pitch } = slot.orbit;
      this.camera.position.set(
        -Math.sin(yaw) * Math.cos(pitch) * distance,
        Math.sin(pitch) * distance + 0.05,
        Math.cos(yaw) * Math.cos(pitch) * distance,
      );
      this.camera.lookAt(0, -0.06, 0);
      this.camera.updateProjectionMatrix();
      this.renderer.render(slot.scene, this.camera);
    }
  }
}
