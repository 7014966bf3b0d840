// Surfaces of the stylised heads: a unit sphere pushed into shape, and patches that lie on it.
import * as THREE from "three";

/** Maps a direction (unit vector; x to the head's left, y up, z out of the face) to a point of the surface. */
export type Sculpt = (d: THREE.Vector3) => THREE.Vector3;

const smooth = THREE.MathUtils.smoothstep;
const bump = (x: number, y: number, cx: number, cy: number, sx: number, sy: number): number =>
  Math.exp(-(((x - cx) / sx) ** 2) - ((y - cy) / sy) ** 2);

export const MOUTH_Y = -0.47;
export const MOUTH_WIDTH = 0.25;

/** A friendly human head, about 2 units tall. */
export const humanHead: Sculpt = (d) => {
  const { x, y, z } = d;
  const front = Math.max(0, z);
  const side = Math.abs(x);
  const below = Math.max(0, -y);
  const p = new THREE.Vector3(0.74 * x, y > 0 ? 1.02 * y : -0.97 * below ** 0.93, (z > 0 ? 0.84 : 0.92) * z);
  // A fuller jaw than a sphere's lower half, narrowing to a soft chin.
  p.x *= 1 + 0.16 * bump(0, y, 0, -0.62, 1, 0.34) - 0.24 * smooth(below, 0.2, 0.9);
  p.z *= z < 0 ? 1 - 0.34 * smooth(below, 0.1, 1.0) : 1;
  p.z -= 0.06 * smooth(front, 0.65, 1);
  if (z > 0) {
    p.z += 0.17 * bump(x, y, 0, -0.2, 0.115, 0.085) + 0.085 * bump(x, y, 0, -0.05, 0.08, 0.16);
    p.z -= 0.1 * bump(side, y, 0.31, 0.08, 0.18, 0.13);
    p.z += 0.035 * bump(side, y, 0.31, 0.3, 0.24, 0.08) + 0.05 * bump(side, y, 0.4, -0.24, 0.2, 0.17);
    p.z += 0.045 * bump(x, y, 0, MOUTH_Y, 0.24, 0.1) + 0.1 * bump(x, y, 0, -0.85, 0.26, 0.16);
  }
  return p;
};

/** How red the skin is, 0 to 1: cheeks, nose, ears. */
export function blush(d: THREE.Vector3): number {
  if (d.z < 0) return 0;
  return 0.75 * bump(Math.abs(d.x), d.y, 0.44, -0.24, 0.17, 0.14) + 0.4 * bump(d.x, d.y, 0, -0.22, 0.1, 0.08);
}

/** How far hair stands off the skin; negative where there is none, so that the hairline is where the two cross. */
export function hairLift(d: THREE.Vector3): number {
  const line = 0.56 - 0.1 * Math.cos(2.6 * d.x + 0.5) - 1.05 * smooth(-d.z, -0.55, 0.2) + 0.03 * Math.sin(9 * d.x);
  return -0.03 + 0.105 * smooth(d.y - line, -0.05, 0.11);
}

/** A robot's shell: a rounder box. */
export const robotHead: Sculpt = (d) => {
  const power = (v: number, e: number): number => Math.sign(v) * Math.abs(v) ** e;
  const q = new THREE.Vector3(power(d.x, 0.8), power(d.y, 0.82), power(d.z, 0.8));
  q.x *= 0.84 * (1 - 0.12 * smooth(-d.y, 0.1, 1));
  q.y *= 0.92;
  q.z *= 0.82 * (1 - 0.06 * smooth(-d.y, 0.2, 1));
  return q;
};

/** The whole surface as a mesh of shared vertices (no seam); `keep` may leave triangles out by their directions. */
export function closedSurface(
  sculpt: Sculpt,
  columns: number,
  rows: number,
  keep: (centre: THREE.Vector3) => boolean = () => true,
  scale = 1,
): { geometry: THREE.BufferGeometry; directions: THREE.Vector3[] } {
  const directions = [new THREE.Vector3(0, 1, 0)];
  for (let r = 1; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      directions.push(new THREE.Vector3().setFromSphericalCoords(1, (Math.PI * r) / rows, (2 * Math.PI * c) / columns));
    }
  }
  directions.push(new THREE.Vector3(0, -1, 0));
  const last = directions.length - 1;
  // Row r, column c, where row 0 and the last row are the poles.
  const at = (r: number, c: number): number => (r === 0 ? 0 : r === rows ? last : 1 + (r - 1) * columns + (c % columns));
  const all: number[] = [];
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      if (r > 0) all.push(at(r, c), at(r + 1, c), at(r, c + 1));
      if (r < rows - 1) all.push(at(r, c + 1), at(r + 1, c), at(r + 1, c + 1));
    }
  }
  const points = new Float32Array(directions.length * 3);
  directions.forEach((d, i) => sculpt(d).multiplyScalar(scale).toArray(points, 3 * i));
  const geometry = new THREE.BufferGeometry();
  geometry.setAttribute("position", new THREE.BufferAttribute(points, 3));
  geometry.setIndex(all);
  // Normals of the whole surface, so that what is cut out leaves no edge in the shading.
  geometry.computeVertexNormals();
  const kept: number[] = [];
  const centre = new THREE.Vector3();
  for (let i = 0; i < all.length; i += 3) {
    centre.copy(directions[all[i]]).add(directions[all[i + 1]]).add(directions[all[i + 2]]);
    if (keep(centre.normalize())) kept.push(all[i], all[i + 1], all[i + 2]);
  }
  geometry.setIndex(kept);
  return { geometry, directions };
}

/** Direction of a point of the face given by its x and y. */
export function faceDirection(x: number, y: number): THREE.Vector3 {
  return new THREE.Vector3(x, y, Math.sqrt(Math.max(1e-4, 1 - x * x - y * y)));
}

/** A rounded patch lying on the face around (x, y), lifted off it by `lift`. */
export function facePatch(
  sculpt: Sculpt,
  x: number,
  y: number,
  rx: number,
  ry: number,
  lift: number,
  squareness = 1,
): THREE.BufferGeometry {
  const rings = 10;
  const around = 56;
  const points: number[] = [];
  const index: number[] = [];
  const round = (v: number): number => Math.sign(v) * Math.abs(v) ** (1 / squareness);
  for (let r = 0; r <= rings; r++) {
    for (let a = 0; a < around; a++) {
      const angle = (2 * Math.PI * a) / around;
      const u = (r / rings) * rx * round(Math.cos(angle));
      const v = (r / rings) * ry * round(Math.sin(angle));
      const d = faceDirection(x + u, y + v);
      // The rim sinks to the surface, so that the patch has a soft edge.
      const p = sculpt(d).addScaledVector(d, lift * (r === rings ? 0.35 : 1));
      points.push(p.x, p.y, p.z);
      if (r < rings) {
        const b = (a + 1) % around;
        const i = r * around;
        index.push(i + a, i + around + a, i + around + b, i + a, i + around + b, i + b);
      }
    }
  }
  const geometry = new THREE.BufferGeometry();
  geometry.setAttribute("position", new THREE.Float32BufferAttribute(points, 3));
  geometry.setIndex(index);
  geometry.computeVertexNormals();
  return geometry;
}

/** A tube whose path changes every frame. */
export class LiveTube {
  readonly geometry = new THREE.BufferGeometry();
  private readonly radial = 8;

  constructor(private readonly count: number) {
    const index: number[] = [];
    for (let i = 0; i < count - 1; i++) {
      for (let j = 0; j < this.radial; j++) {
        const k = (j + 1) % this.radial;
        const a = i * this.radial;
        const b = a + this.radial;
        index.push(a + j, b + k, b + j, a + j, a + k, b + k);
      }
    }
    this.geometry.setAttribute("position", new THREE.BufferAttribute(new Float32Array(count * this.radial * 3), 3));
    this.geometry.setIndex(index);
  }

  update(path: THREE.Vector3[], radius: (along: number) => number): void {
    const place = this.geometry.getAttribute("position") as THREE.BufferAttribute;
    const tangent = new THREE.Vector3();
    for (let i = 0; i < this.count; i++) {
      tangent.subVectors(path[Math.min(i + 1, this.count - 1)], path[Math.max(i - 1, 0)]).normalize();
      const out = new THREE.Vector3(0, 0, 1).addScaledVector(tangent, -tangent.z).normalize();
      const up = new THREE.Vector3().crossVectors(out, tangent);
      const r = radius(i / (this.count - 1));
      for (let j = 0; j < this.radial; j++) {
        const angle = (2 * Math.PI * j) / this.radial;
        const c = Math.cos(angle) * r;
        const s = Math.sin(angle) * r;
        const p = path[i];
        place.setXYZ(i * this.radial + j, p.x + c * up.x + s * out.x, p.y + c * up.y + s * out.y, p.z + c * up.z + s * out.z);
      }
    }
    place.needsUpdate = true;
    this.geometry.computeVertexNormals();
  }
}
