// What `timar report` writes into the page: a JSON description, and one block of bytes that it refers to.

/** A typed array inside the block. 16-bit values stand for `value * scale[column] + offset[column]`. */
export interface ArrayRef {
  at: number;
  dtype: "f32" | "i16" | "u8" | "u32";
  shape: number[];
  scale?: number[];
  offset?: number[];
}

export type Role = "agent" | "user" | "truth" | "other";

/** A shape of a link, in the link's frame; `rotation` is a quaternion x y z w, lengths in m. */
export interface VisualSpec {
  kind: "surface" | "box" | "cylinder" | "sphere";
  size: number[];
  surface: number;
  position: [number, number, number];
  rotation: [number, number, number, number];
  color: [number, number, number];
}

/** A robot's links, parents first, in the frame of their parents; see `timar_ros/simulation/robot_shape.py`. */
export interface ShapeSpec {
  links: {
    parent: number;
    position: [number, number, number];
    rotation: [number, number, number, number];
    joint: string;
    axis: [number, number, number];
    multiplier: number;
    offset: number;
    visuals: VisualSpec[];
  }[];
  surfaces: { points: ArrayRef; faces: ArrayRef }[];
  centre: [number, number, number];
  radius: number;
}

/** What stands under a head: its id, its words and whose colour it has. */
export interface SlotSpec {
  id: string;
  label: string;
  note: string;
  role: Role;
}

/** A head on the stage. `pose` has columns head x y z, jaw x y z [rad], then brow, smile, wide (about -1 to 1). */
export interface HeadSpec extends SlotSpec {
  kind: "face" | "robot" | "mesh";
  rate: number;
  pose: ArrayRef;
  known: ArrayRef;
  speaking: ArrayRef;
  mesh?: MeshSpec;
  /** The robot by its URDF: its shape, and the positions [T, J] of these joints [rad]. */
  body?: { shape: ShapeSpec; names: string[]; positions: ArrayRef };
}

/** A face mesh as a low-rank film: vertices = mean + basis · weights[t], before the head's own rotation. */
export interface MeshSpec {
  faceArray: ArrayRef;
  mean: ArrayRef;
  basis: ArrayRef;
  weights: ArrayRef;
  pivot: [number, number, number];
  size: number;
}

export interface Trace {
  name: string;
  /** Names a colour of the theme, such as "agent", "user", "c1". */
  color: string;
  kind: "line" | "envelope" | "points" | "bars";
  x: ArrayRef | { start: number; step: number };
  y: ArrayRef;
  column?: number;
  dash?: boolean;
  hidden?: boolean;
  text?: string[];
}

export interface Panel {
  id: string;
  /** The heading that it stands under; panels of one section follow each other. */
  section: string;
  title: string;
  note: string;
  height: number;
  unit: string;
  /** Whether x is the conversation's time: such panels zoom together and show the cursor. */
  timed: boolean;
  /** Two of these stand beside each other where there is room. */
  half: boolean;
  xTitle?: string;
  yRange?: [number, number];
  yTicks?: { at: number[]; text: string[] };
  xTicks?: { at: number[]; text: string[] };
  traces: Trace[];
  bands: { from: number; to: number; color: string; lane?: [number, number] }[];
  lines: { y: number; label: string; color: string }[];
}

export interface Table {
  title: string;
  note: string;
  columns: string[];
  rows: string[][];
}

export interface Report {
  title: string;
  subtitle: string;
  chips: { label: string; value: string; tone: "plain" | "good" | "warn" | "bad"; help: string }[];
  /** A sentence on the figures above. */
  explanation?: string;
  /** What is worth knowing and not wrong. */
  notes?: string[];
  warnings: string[];
  duration: number;
  audio: { id: string; mime: string }[];
  heads: HeadSpec[];
  panels: Panel[];
  tables: Table[];
  footer: string;
}

/** Bytes of a base64 block of the page. */
export function bytesOf(id: string): Uint8Array<ArrayBuffer> {
  return bytesOfText((document.getElementById(id)?.textContent ?? "").trim());
}

/** Bytes of base64 text. */
export function bytesOfText(text: string): Uint8Array<ArrayBuffer> {
  const native = (Uint8Array as { fromBase64?: (text: string) => Uint8Array<ArrayBuffer> }).fromBase64;
  if (native) return native(text);
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

/** Resolves references into the block. */
export class Block {
  constructor(private readonly bytes: Uint8Array) {}

  /** All values of a reference as numbers, row-major. */
  floats(ref: ArrayRef): Float32Array {
    const count = ref.shape.reduce((a, b) => a * b, 1);
    const start = this.bytes.byteOffset + ref.at;
    if (ref.dtype === "f32") return new Float32Array(this.bytes.buffer, start, count);
    if (ref.dtype === "u8") return Float32Array.from(new Uint8Array(this.bytes.buffer, start, count));
    const raw = new Int16Array(this.bytes.buffer, start, count);
    const columns = ref.shape.length > 1 ? ref.shape[ref.shape.length - 1] : 1;
    const out = new Float32Array(count);
    const scale = ref.scale ?? [1];
    const offset = ref.offset ?? [0];
    for (let i = 0; i < count; i++) {
      const c = columns > 1 ? i % columns : 0;
      // The lowest value stands for "not known".
      out[i] = raw[i] === -32768 ? NaN : raw[i] * scale[c % scale.length] + offset[c % offset.length];
    }
    return out;
  }

  /** One column of a reference. */
  column(ref: ArrayRef, column: number): Float32Array {
    const all = this.floats(ref);
    const columns = ref.shape.length > 1 ? ref.shape[1] : 1;
    if (columns === 1) return all;
    const out = new Float32Array(ref.shape[0]);
    for (let i = 0; i < out.length; i++) out[i] = all[i * columns + column];
    return out;
  }

  /** A reference of dtype u32. */
  integers(ref: ArrayRef): Uint32Array {
    const count = ref.shape.reduce((a, b) => a * b, 1);
    return new Uint32Array(this.bytes.buffer, this.bytes.byteOffset + ref.at, count);
  }
}
