// One WebGL canvas behind a row of slots, one slot a head.
import * as THREE from "three";
import { makeFigure } from "./figures";
import { Colors, Figure, Pose, Track } from "./heads";
import { Block, HeadSpec, SlotSpec } from "./payload";
import { Surface } from "./surface";

/** What a head does at a time [s]. */
export type Motion = (time: number) => Pose;

interface Slot {
  spec: SlotSpec;
  motion: Motion;
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

  /** Throws where the browser has no WebGL. The program is on its way to the graphics card when this returns. */
  constructor(private readonly host: HTMLElement) {
    const canvas = document.createElement("canvas");
    canvas.className = "stage-canvas";
    const ratio = Math.min(window.devicePixelRatio, 2);
    // At its size from the beginning: another size later would cost a second frame buffer.
    canvas.width = Math.floor(host.clientWidth * ratio);
    canvas.height = Math.floor(host.clientHeight * ratio);
    this.renderer = new THREE.WebGLRenderer({ canvas, antialias: true, alpha: true, preserveDrawingBuffer: true });
    // To ask for errors would be to wait for the program.
    this.renderer.debug.checkShaderErrors = false;
    this.renderer.setPixelRatio(ratio);
    this.renderer.setScissorTest(true);
    this.renderer.setClearColor(0, 0);
    host.prepend(canvas);
    this.renderer.compile(new THREE.Mesh(new THREE.BufferGeometry(), new Surface(0)), this.camera);
  }

  /** Put the heads of a report up. */
  fill(heads: HeadSpec[], block: Block): void {
    for (const spec of heads) {
      const track = new Track(block, spec);
      this.add(spec, (colors) => makeFigure(spec, block, track, colors), (time) => track.at(time));
    }
    this.begin();
  }

  /** All heads have been added. */
  begin(): void {
    new ResizeObserver(() => this.resize()).observe(this.host);
    this.resize();
    this.recolor();
  }

  /** How many shader programs the stage uses. */
  get programs(): number {
    return this.renderer.info.programs?.length ?? 0;
  }

  /** Resolves when the graphics card has drawn what it was told so far. */
  finished(): Promise<void> {
    const gl = this.renderer.getContext() as WebGL2RenderingContext;
    const fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
    return new Promise((done) => {
      const look = (): void => {
        if (!fence || gl.isContextLost() || gl.getSyncParameter(fence, gl.SYNC_STATUS) === gl.SIGNALED) done();
        else setTimeout(look, 4);
      };
      look();
    });
  }

  /** Put one head up. */
  add(spec: SlotSpec, make: (colors: Colors) => Figure, motion: Motion): void {
    const element = document.createElement("figure");
    element.className = `slot role-${spec.role}`;
    element.dataset.head = spec.id;
    element.innerHTML = `<figcaption><span class="dot"></span><b></b><small></small></figcaption>`;
    element.querySelector("b")!.textContent = spec.label;
    element.querySelector("small")!.textContent = spec.note;
    this.host.append(element);
    const figure = make(this.colors(spec));
    const scene = new THREE.Scene().add(figure.group);
    const slot = { spec, motion, figure, scene, element, orbit: { yaw: 0, pitch: 0 } };
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

  private colors(spec: SlotSpec): Colors {
    const style = getComputedStyle(document.documentElement);
    return { accent: new THREE.Color(style.getPropertyValue(`--${spec.role}`).trim()) };
  }

  recolor(): void {
    for (const slot of this.slots) slot.figure.recolor(this.colors(slot.spec));
    this.stale = true;
  }

  private resize(): void {
    const { clientWidth, clientHeight } = this.host;
    const size = this.renderer.getSize(new THREE.Vector2());
    if (size.x === clientWidth && size.y === clientHeight) return;
    this.renderer.setSize(clientWidth, clientHeight, false);
    this.stale = true;
  }

  /** Rotation of a head as shown now (for tests): quaternion of its neck, and the jaw's angle. */
  inspect(time: number): { id: string; head: number[]; jaw: number[]; known: boolean }[] {
    return this.slots.map(({ spec, motion }) => {
      const pose = motion(time);
      return { id: spec.id, head: pose.head.toArray(), jaw: pose.jaw.toArray(), known: pose.known };
    });
  }

  /** Show a time; whether there was anything to draw. */
  draw(time: number): boolean {
    if (!this.stale && time === this.shown) return false;
    this.stale = false;
    this.shown = time;
    const height = this.host.clientHeight;
    const base = this.host.getBoundingClientRect();
    this.renderer.setScissor(0, 0, this.host.clientWidth, height);
    this.renderer.setViewport(0, 0, this.host.clientWidth, height);
    this.renderer.clear();
    for (const slot of this.slots) {
      const box = slot.element.getBoundingClientRect();
      const pose = slot.motion(time);
      slot.figure.show(pose, time);
      slot.element.classList.toggle("speaking", pose.speaking);
      slot.element.classList.toggle("unknown", !pose.known);
      // Whole pixels: between two slots none may be left over.
      const left = Math.round(box.left - base.left);
      const bottom = Math.round(height - (box.bottom - base.top));
      const width = Math.round(box.right - base.left) - left;
      const top = Math.round(height - (box.top - base.top));
      this.renderer.setViewport(left, bottom, width, top - bottom);
      this.renderer.setScissor(left, bottom, width, top - bottom);
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
    return true;
  }
}
