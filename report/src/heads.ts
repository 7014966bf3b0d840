// The heads on the stage. Head and jaw move exactly as the data says; brows and mouth corners are a hint only.
import * as THREE from "three";
import { Block, HeadSpec, MeshSpec, Role } from "./payload";
import { MOUTH_WIDTH, MOUTH_Y, LiveTube, blush, closedSurface, faceDirection, facePatch, hairLift, humanHead, robotHead } from "./shapes";
import { Surface } from "./surface";

const smooth = THREE.MathUtils.smoothstep;

/** A pose at one instant: rotations as axis-angle vectors [rad] in FLAME's axes, which are three.js's here. */
export interface Pose {
  head: THREE.Vector3;
  jaw: THREE.Vector3;
  brow: number;
  smile: number;
  wide: number;
  known: boolean;
  speaking: boolean;
  /** Positions of the robot's joints by name [rad], where the figure is drawn from its URDF. */
  joints?: Record<string, number>;
}

/** A head's recorded motion, read at any time. */
export class Track {
  private readonly pose: Float32Array;
  private readonly known: Float32Array;
  private readonly talking: Float32Array;
  readonly length: number;
  private readonly columns: number;
  private readonly positions: Float32Array | null;

  constructor(block: Block, private readonly spec: HeadSpec) {
    this.positions = spec.body ? block.floats(spec.body.positions) : null;
    this.pose = block.floats(spec.pose);
    this.known = block.floats(spec.known);
    this.talking = block.floats(spec.speaking);
    this.length = spec.pose.shape[0];
    this.columns = spec.pose.shape[1];
  }

  at(time: number): Pose {
    const place = Math.max(0, Math.min(time * this.spec.rate, this.length - 1));
    const first = Math.floor(place);
    const next = Math.min(first + 1, this.length - 1);
    const part = place - first;
    const mix = (column: number): number => {
      const a = this.pose[first * this.columns + column];
      return a + (this.pose[next * this.columns + column] - a) * part;
    };
    return {
      head: new THREE.Vector3(mix(0), mix(1), mix(2)),
      jaw: new THREE.Vector3(mix(3), mix(4), mix(5)),
      brow: mix(6),
      smile: mix(7),
      wide: mix(8),
      known: this.known[first] > 0,
      speaking: this.talking[first] === 1,
      joints: this.joints(first, next, part),
    };
  }

  private joints(first: number, next: number, part: number): Record<string, number> | undefined {
    const { positions } = this;
    const names = this.spec.body?.names;
    if (!positions || !names) return undefined;
    const mixed = (column: number): number => {
      const a = positions[first * names.length + column];
      return a + (positions[next * names.length + column] - a) * part;
    };
    return Object.fromEntries(names.map((name, column) => [name, mixed(column)]));
  }

  /** The frame nearest to a time. */
  frame(time: number): number {
    return Math.max(0, Math.min(Math.round(time * this.spec.rate), this.length - 1));
  }
}

export interface Colors {
  accent: THREE.Color;
}

/** Something on the stage that takes a pose. */
export interface Figure {
  readonly group: THREE.Group;
  show(pose: Pose, time: number): void;
  recolor(colors: Colors): void;
}

function rotation(vector: THREE.Vector3): THREE.Quaternion {
  const angle = vector.length();
  return new THREE.Quaternion().setFromAxisAngle(angle > 1e-9 ? vector.clone().divideScalar(angle) : new THREE.Vector3(1, 0, 0), angle);
}

/** Deforms vertices by the jaw's rotation about a hinge, by weight. */
class JawSkin {
  private readonly rest: Float32Array;
  private readonly moving: number[] = [];

  constructor(private readonly geometry: THREE.BufferGeometry, private readonly weights: number[], private readonly hinge: THREE.Vector3) {
    this.rest = Float32Array.from(geometry.getAttribute("position").array);
    weights.forEach((weight, index) => weight > 0 && this.moving.push(index));
  }

  bend(jaw: THREE.Quaternion): void {
    const place = this.geometry.getAttribute("position") as THREE.BufferAttribute;
    const p = new THREE.Vector3();
    const q = new THREE.Vector3();
    for (const index of this.moving) {
      p.fromArray(this.rest, index * 3);
      q.copy(p).sub(this.hinge).applyQuaternion(jaw).add(this.hinge);
      p.lerp(q, this.weights[index]);
      place.setXYZ(index, p.x, p.y, p.z);
    }
    place.needsUpdate = true;
  }
}

const HINGE = new THREE.Vector3(0, -0.12, -0.08);
const PIVOT = new THREE.Vector3(0, -0.85, -0.2);

function humanJawWeight(d: THREE.Vector3): number {
  const side = smooth(Math.abs(d.x), MOUTH_WIDTH * 0.7, MOUTH_WIDTH * 1.8);
  const middle = d.y < MOUTH_Y ? 1 : 0;
  const flank = smooth(-d.y, 0.3, 0.72);
  return (middle * (1 - side) + flank * side) * smooth(d.z, -0.45, 0.15);
}

/** The surfaces of every face, made once: their positions are each face's own. */
let surfaces: Record<"skin" | "cavity" | "hair", ReturnType<typeof closedSurface>> | null = null;

function faceSurfaces(): NonNullable<typeof surfaces> {
  const slit = (d: THREE.Vector3): boolean => {
    const along = d.x / (MOUTH_WIDTH * 0.84);
    return !(d.z > 0 && Math.abs(along) < 1 && Math.abs(d.y - MOUTH_Y) < 0.024 * Math.sqrt(1 - along * along) + 0.004);
  };
  surfaces ??= {
    skin: closedSurface(humanHead, 128, 112, slit),
    cavity: closedSurface(humanHead, 64, 48, undefined, 0.95),
    hair: closedSurface((d) => humanHead(d).addScaledVector(d, hairLift(d)), 112, 80, (d) => hairLift(d) > -0.028),
  };
  return surfaces;
}

/** A human bust. */
export class Face implements Figure {
  readonly group = new THREE.Group();
  private readonly head = new THREE.Group();
  private readonly skins: JawSkin[] = [];
  private readonly upperLip = new LiveTube(25);
  private readonly lowerLip = new LiveTube(25);
  private readonly lids: THREE.Object3D[] = [];
  private readonly brows: THREE.Object3D[] = [];
  private readonly lowerTeeth: THREE.Object3D;
  private readonly cloth: Surface;

  constructor(colors: Colors, look: { skin: number; hair: number; lips: number; eyes: number }) {
    const pivot = new THREE.Group();
    pivot.position.copy(PIVOT);
    this.head.position.copy(PIVOT).negate();
    pivot.add(this.head);
    this.group.add(pivot);
    const skin = new Surface(look.skin, 0.62);
    this.cloth = new Surface(colors.accent, 0.85);

    const { skin: shell, cavity, hair } = faceSurfaces();
    const shellGeometry = shell.geometry.clone();
    this.skins.push(new JawSkin(shellGeometry, shell.directions.map(humanJawWeight), HINGE));
    const tint = new THREE.Color();
    const red = new THREE.Color(look.lips);
    const shades = shell.directions.flatMap((d) => tint.set(look.skin).lerp(red, 0.55 * blush(d)).toArray());
    shellGeometry.setAttribute("color", new THREE.Float32BufferAttribute(shades, 3));
    this.head.add(new THREE.Mesh(shellGeometry, new Surface(0xffffff, 0.62)));
    const cavityGeometry = cavity.geometry.clone();
    this.skins.push(new JawSkin(cavityGeometry, cavity.directions.map(humanJawWeight), HINGE));
    this.head.add(new THREE.Mesh(cavityGeometry, new Surface(0x3a0f14, 0.9)));

    const lips = new Surface(look.lips, 0.5);
    this.head.add(new THREE.Mesh(this.upperLip.geometry, lips), new THREE.Mesh(this.lowerLip.geometry, lips));
    const teeth = new Surface(0xf6f1e7, 0.35);
    this.head.add(new THREE.Mesh(toothRow(MOUTH_Y + 0.015), teeth));
    this.lowerTeeth = new THREE.Group();
    this.lowerTeeth.position.copy(HINGE);
    const row = new THREE.Mesh(toothRow(MOUTH_Y - 0.075), teeth);
    row.position.copy(HINGE).negate();
    this.lowerTeeth.add(row);
    this.head.add(this.lowerTeeth);

    for (const side of [-1, 1]) this.addEye(side, look, skin);
    this.head.add(new THREE.Mesh(hair.geometry, new Surface(look.hair, 0.7)));
    for (const side of [-1, 1]) {
      const ear = new THREE.Mesh(new THREE.SphereGeometry(0.17, 32, 24).scale(0.36, 1, 0.62), skin);
      ear.position.set(side * 0.735, -0.06, -0.06);
      ear.rotation.y = side * 0.35;
      this.head.add(ear);
    }
    const neck = new THREE.Mesh(new THREE.CylinderGeometry(0.33, 0.38, 0.8, 48), skin);
    neck.position.set(0, -1.05, -0.2);
    this.group.add(neck, bust(this.cloth));
  }

  private addEye(side: number, look: { eyes: number; hair: number }, skin: THREE.Material): void {
    const centre = humanHead(faceDirection(side * 0.31, 0.08)).add(new THREE.Vector3(-side * 0.006, 0, -0.078));
    const white = new THREE.Mesh(new THREE.SphereGeometry(0.146, 40, 28), new Surface(0xfdfcf9, 0.25));
    white.position.copy(centre);
    const iris = new THREE.Mesh(new THREE.SphereGeometry(0.094, 32, 20), new Surface(look.eyes, 0.25));
    iris.position.set(-side * 0.02, 0, 0.079);
    const pupil = new THREE.Mesh(new THREE.SphereGeometry(0.055, 24, 16), new Surface(0x0d0d12, 0.15));
    pupil.position.set(-side * 0.026, 0, 0.123);
    const glint = new THREE.Mesh(new THREE.SphereGeometry(0.013, 12, 8), new Surface(0xffffff));
    glint.material.glow.set(0xffffff);
    glint.position.set(0.02, 0.036, 0.16);
    white.add(iris, pupil, glint);
    // The lid is a half sphere that turns over the eye.
    const lid = new THREE.Mesh(new THREE.SphereGeometry(0.162, 40, 20, 0, 2 * Math.PI, 0, Math.PI / 2), skin);
    lid.position.copy(centre);
    this.lids.push(lid);
    const arc: THREE.Vector3[] = [];
    for (let i = 0; i <= 16; i++) {
      const u = i / 16 - 0.5;
      const d = faceDirection(side * (0.31 + u * 0.31), 0.335 - 0.2 * u * u - 0.03 * u);
      arc.push(humanHead(d).addScaledVector(d, 0.012));
    }
    const brow = new THREE.Mesh(new THREE.TubeGeometry(new THREE.CatmullRomCurve3(arc), 24, 0.024, 8), new Surface(look.hair, 0.8));
    this.brows.push(brow);
    this.head.add(white, lid, brow);
  }

  show(pose: Pose, time: number): void {
    this.head.parent!.quaternion.copy(rotation(pose.head));
    const jaw = rotation(pose.jaw);
    this.skins.forEach((skin) => skin.bend(jaw));
    this.lowerTeeth.quaternion.copy(jaw);
    const width = MOUTH_WIDTH * (1 + 0.14 * pose.wide);
    // At rest a friendly face; corners that fall are only hinted at.
    const corners = 0.022 + (pose.smile > 0 ? 0.05 : 0.018) * pose.smile;
    const curve = (dy: number, arch: number, weight: number, lift: number): THREE.Vector3[] =>
      Array.from({ length: 25 }, (_, i) => {
        const u = (2 * i) / 24 - 1;
        const middle = 1 - u * u;
        const d = faceDirection(u * width, MOUTH_Y + (dy + arch) * middle + corners * u * u);
        const p = humanHead(d).addScaledVector(d, lift);
        const turned = p.clone().sub(HINGE).applyQuaternion(jaw).add(HINGE);
        // The corners follow half-way, the middle wholly.
        return p.lerp(turned, weight * Math.min(1, 0.42 + 1.3 * middle));
      });
    this.upperLip.update(curve(0.012, 0.022 * (1 - Math.abs(pose.smile) * 0.3), 0, 0.008), (a) => 0.012 + 0.03 * Math.sin(Math.PI * a));
    this.lowerLip.update(curve(-0.018, -0.025, 1, 0.01), (a) => 0.012 + 0.036 * Math.sin(Math.PI * a));
    const closed = blink(time);
    this.lids.forEach((lid) => (lid.rotation.x = -0.4 + 1.6 * closed - 0.1 * pose.brow));
    this.brows.forEach((brow) => (brow.position.y = 0.045 * pose.brow));
  }

  recolor(colors: Colors): void {
    this.cloth.color.copy(colors.accent);
  }
}

/** A robot with a visor, lit eyes and a moving chin. */
export class Robot implements Figure {
  readonly group = new THREE.Group();
  private readonly head = new THREE.Group();
  private readonly chin = new THREE.Group();
  private readonly eyes: THREE.Mesh[] = [];
  private readonly glow: Surface;
  private readonly trim: Surface;
  private readonly tip: Surface;
  private accent = new THREE.Color();

  constructor(colors: Colors) {
    const pivot = new THREE.Group();
    pivot.position.copy(PIVOT);
    this.head.position.copy(PIVOT).negate();
    pivot.add(this.head);
    this.group.add(pivot);
    const shellMaterial = new Surface(0xf2f4f7, 0.32, 0.05);
    const dark = new Surface(0x1b2028, 0.4, 0.3);
    this.glow = new Surface(0x111111);
    this.trim = new Surface(colors.accent, 0.4, 0.1);
    this.tip = new Surface(0x222222);

    const isChin = (d: THREE.Vector3): boolean => d.y < -0.44 && d.z > -0.25;
    const shell = closedSurface(robotHead, 128, 96, (d) => !isChin(d) && !(d.y < -0.42 && d.z > -0.28));
    this.head.add(new THREE.Mesh(shell.geometry, shellMaterial));
    const core = closedSurface(robotHead, 48, 36, undefined, 0.9);
    this.head.add(new THREE.Mesh(core.geometry, dark));
    const chinShell = closedSurface(robotHead, 128, 96, isChin);
    const chinMesh = new THREE.Mesh(chinShell.geometry, shellMaterial);
    chinMesh.position.copy(HINGE).negate();
    const chinCore = closedSurface(robotHead, 48, 36, (d) => d.y < -0.4 && d.z > -0.2, 0.955);
    const chinInner = new THREE.Mesh(chinCore.geometry, new Surface(0x2a313c, 0.5, 0.2));
    chinInner.material.side = THREE.DoubleSide;
    chinInner.position.copy(HINGE).negate();
    this.chin.position.copy(HINGE);
    this.chin.add(chinMesh, chinInner);
    this.head.add(this.chin);

    const visor = new Surface(0x0c0f14, 0.12, 0.4);
    this.head.add(new THREE.Mesh(facePatch(robotHead, 0, 0.1, 0.66, 0.36, 0.02, 2.4), visor));
    for (const side of [-1, 1]) {
      const geometry = facePatch(robotHead, side * 0.27, 0.12, 0.095, 0.14, 0.035, 1.3);
      geometry.computeBoundingBox();
      const middle = geometry.boundingBox!.getCenter(new THREE.Vector3());
      geometry.translate(-middle.x, -middle.y, -middle.z);
      const eye = new THREE.Mesh(geometry, this.glow);
      eye.position.copy(middle);
      this.eyes.push(eye);
      const ear = new THREE.Mesh(new THREE.CylinderGeometry(0.2, 0.24, 0.14, 48), dark);
      ear.rotation.z = Math.PI / 2;
      ear.position.set(side * 0.84, 0.06, -0.05);
      const ring = new THREE.Mesh(new THREE.TorusGeometry(0.19, 0.03, 16, 48), this.trim);
      ring.rotation.y = Math.PI / 2;
      ring.position.set(side * 0.905, 0.06, -0.05);
      this.head.add(eye, ear, ring);
    }
    const stalk = new THREE.Mesh(new THREE.CylinderGeometry(0.022, 0.03, 0.3, 16), dark);
    stalk.position.set(0, 1.02, -0.05);
    const tip = new THREE.Mesh(new THREE.SphereGeometry(0.07, 24, 16), this.tip);
    tip.position.set(0, 1.2, -0.05);
    this.head.add(stalk, tip);
    const neck = new THREE.Mesh(new THREE.CylinderGeometry(0.26, 0.32, 1.0, 48), dark);
    neck.position.set(0, -1.2, -0.2);
    this.group.add(neck);
    for (let i = 0; i < 4; i++) {
      const fold = new THREE.Mesh(new THREE.TorusGeometry(0.29, 0.035, 12, 48), new Surface(0x2b323d, 0.6));
      fold.rotation.x = Math.PI / 2;
      fold.position.set(0, -0.9 - 0.11 * i, -0.2);
      this.group.add(fold);
    }
    this.group.add(bust(shellMaterial));
    const band = new THREE.Mesh(new THREE.TorusGeometry(0.42, 0.035, 16, 64), this.trim);
    band.rotation.x = Math.PI / 2;
    band.position.set(0, -1.3, -0.2);
    this.group.add(band);
  }

  show(pose: Pose, time: number): void {
    this.head.parent!.quaternion.copy(rotation(pose.head));
    this.chin.quaternion.copy(rotation(pose.jaw));
    const open = 1 - 0.92 * blink(time + 1.7);
    this.eyes.forEach((eye) => eye.scale.set(1, open * (1 + 0.12 * pose.brow), 1));
    this.tip.glow.copy(this.accent).multiplyScalar(pose.speaking ? 2.4 : 0.25);
    this.glow.glow.copy(this.accent).multiplyScalar(pose.speaking ? 2.1 : 1.4);
  }

  recolor(colors: Colors): void {
    this.accent.copy(colors.accent);
    this.trim.color.copy(colors.accent);
  }
}

/** The user's own face model: a film of vertices made beforehand. */
export class MeshFace implements Figure {
  readonly group = new THREE.Group();
  private readonly turn = new THREE.Group();
  private readonly geometry = new THREE.BufferGeometry();
  private readonly mean: Float32Array;
  private readonly basis: Float32Array;
  private readonly weights: Float32Array;
  private readonly count: number;
  private readonly skin: Surface;

  constructor(block: Block, mesh: MeshSpec, private readonly track: Track, colors: Colors) {
    this.mean = block.floats(mesh.mean);
    this.basis = block.floats(mesh.basis);
    this.weights = block.floats(mesh.weights);
    this.count = mesh.weights.shape[1];
    this.skin = new Surface(0xe8c4ae, 0.65);
    this.skin.color.lerp(colors.accent, 0.06);
    this.geometry.setAttribute("position", new THREE.BufferAttribute(this.mean.slice(), 3));
    this.geometry.setIndex(new THREE.BufferAttribute(block.integers(mesh.faceArray), 1));
    const surface = new THREE.Mesh(this.geometry, this.skin);
    const pivot = new THREE.Vector3(...mesh.pivot);
    surface.position.copy(pivot).negate();
    this.turn.add(surface);
    const scale = 2 / mesh.size;
    this.group.add(this.turn);
    this.turn.scale.setScalar(scale);
    this.geometry.computeBoundingBox();
    const middle = this.geometry.boundingBox!.getCenter(new THREE.Vector3());
    this.turn.position.copy(pivot).sub(middle).multiplyScalar(scale).add(new THREE.Vector3(0, -0.1, 0));
  }

  show(pose: Pose, time: number): void {
    this.turn.quaternion.copy(rotation(pose.head));
    const place = this.geometry.getAttribute("position") as THREE.BufferAttribute;
    const out = place.array as Float32Array;
    const row = this.track.frame(time) * this.count;
    const weights = this.weights.subarray(row, row + this.count);
    for (let i = 0; i < out.length; i++) {
      let value = this.mean[i];
      const at = i * this.count;
      for (let k = 0; k < this.count; k++) value += weights[k] * this.basis[at + k];
      out[i] = value;
    }
    place.needsUpdate = true;
    this.geometry.computeVertexNormals();
  }

  recolor(): void {
    // A real face keeps its own colour.
  }
}

function toothRow(y: number): THREE.BufferGeometry {
  const points: number[] = [];
  const index: number[] = [];
  for (let i = 0; i <= 16; i++) {
    const u = (i / 8 - 1) * 0.19;
    for (const dy of [0.035, -0.02]) {
      const p = humanHead(faceDirection(u, y + dy));
      points.push(p.x * 0.97, p.y, p.z - 0.055);
    }
    if (i < 16) index.push(2 * i, 2 * i + 1, 2 * i + 3, 2 * i, 2 * i + 3, 2 * i + 2);
  }
  const geometry = new THREE.BufferGeometry();
  geometry.setAttribute("position", new THREE.Float32BufferAttribute(points, 3));
  geometry.setIndex(index);
  geometry.computeVertexNormals();
  return geometry;
}

function bust(cloth: THREE.Material): THREE.Mesh {
  const outline = [
    [0.0, -2.6], [1.3, -2.6], [1.28, -2.15], [1.12, -1.8], [0.8, -1.58], [0.52, -1.43], [0.43, -1.28], [0.36, -1.25],
  ].map(([x, y]) => new THREE.Vector2(x, y));
  const lathe = new THREE.LatheGeometry(new THREE.SplineCurve(outline).getPoints(40), 64).scale(1, 1, 0.62);
  const mesh = new THREE.Mesh(lathe, cloth);
  mesh.position.z = -0.2;
  return mesh;
}

/** Lids closed (1) or open (0): a blink each few seconds, the same at every replay. A decoration, not data. */
function blink(time: number): number {
  const cycle = 3.7;
  const phase = (time + 0.9 * Math.sin(Math.floor(time / cycle) * 12.9898)) % cycle;
  return phase > 0 && phase < 0.22 ? Math.sin((Math.PI * phase) / 0.22) ** 2 : 0;
}

/** The face of one of the two who talk. */
export function faceOf(role: Role, colors: Colors): Face {
  const looks = {
    user: { skin: 0xe3b08f, hair: 0x3b2a22, lips: 0xb86a5e, eyes: 0x4d6b57 },
    agent: { skin: 0xf0cdb8, hair: 0x8a4b2f, lips: 0xc4716b, eyes: 0x4a6fa5 },
  };
  return new Face(colors, role === "user" ? looks.user : looks.agent);
}
