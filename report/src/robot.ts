// A robot as its URDF draws it: links that turn by the positions of its joints.
import * as THREE from "three";
import { toCreasedNormals } from "three/addons/utils/BufferGeometryUtils.js";
import { Colors, Figure, Pose } from "./heads";
import { Block, ShapeSpec, VisualSpec } from "./payload";
import { Surface } from "./surface";

/** Edges sharper than this stay edges [rad]. */
const CREASE = 0.7;

/** REP-103 (x forward, z up) to the stage (z out of the face, y up, x to the head's left). */
const TO_STAGE = new THREE.Quaternion().setFromRotationMatrix(
  new THREE.Matrix4().set(0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1),
);

interface Turning {
  group: THREE.Group;
  rest: THREE.Quaternion;
  axis: THREE.Vector3;
  joint: string;
  multiplier: number;
  offset: number;
}

export class UrdfRobot implements Figure {
  readonly group = new THREE.Group();
  private readonly turning: Turning[] = [];

  constructor(block: Block, shape: ShapeSpec) {
    const surfaces = shape.surfaces.map((surface) => {
      const geometry = new THREE.BufferGeometry();
      geometry.setAttribute("position", new THREE.BufferAttribute(block.floats(surface.points), 3));
      geometry.setIndex(new THREE.BufferAttribute(block.integers(surface.faces), 1));
      return toCreasedNormals(geometry, CREASE);
    });
    const links: THREE.Group[] = [];
    const root = new THREE.Group();
    for (const link of shape.links) {
      const group = new THREE.Group();
      group.position.fromArray(link.position);
      group.quaternion.fromArray(link.rotation);
      (link.parent < 0 ? root : links[link.parent]).add(group);
      links.push(group);
      for (const visual of link.visuals) group.add(meshOf(visual, surfaces));
      if (!link.joint) continue;
      const { joint, multiplier, offset } = link;
      this.turning.push({ group, rest: group.quaternion.clone(), axis: new THREE.Vector3().fromArray(link.axis), joint, multiplier, offset });
    }
    // The head as tall as the faces beside it, and where they have theirs.
    const scale = 1.05 / shape.radius;
    root.quaternion.copy(TO_STAGE);
    root.scale.setScalar(scale);
    root.position.fromArray(shape.centre).applyQuaternion(TO_STAGE).multiplyScalar(-scale);
    this.group.add(root);
  }

  show(pose: Pose): void {
    const turn = new THREE.Quaternion();
    for (const { group, rest, axis, joint, multiplier, offset } of this.turning) {
      const angle = multiplier * (pose.joints?.[joint] ?? 0) + offset;
      group.quaternion.copy(rest).multiply(turn.setFromAxisAngle(axis, angle));
    }
  }

  recolor(_colors: Colors): void {
    // A robot keeps the colours of its URDF.
  }
}

function meshOf(visual: VisualSpec, surfaces: THREE.BufferGeometry[]): THREE.Mesh {
  // Colours of a URDF are as a screen shows them.
  const color = new THREE.Color().setRGB(...visual.color, THREE.SRGBColorSpace);
  const dark = Math.max(...visual.color) < 0.25;
  const material = new Surface(color, dark ? 0.3 : 0.5, dark ? 0.2 : 0.03);
  material.side = THREE.DoubleSide;
  const mesh = new THREE.Mesh(geometryOf(visual, surfaces), material);
  mesh.position.fromArray(visual.position);
  mesh.quaternion.fromArray(visual.rotation);
  return mesh;
}

function geometryOf(visual: VisualSpec, surfaces: THREE.BufferGeometry[]): THREE.BufferGeometry {
  const [a, b, c] = visual.size;
  if (visual.kind === "box") return new THREE.BoxGeometry(a, b, c);
  if (visual.kind === "sphere") return new THREE.SphereGeometry(a, 40, 28);
  // A cylinder of a URDF stands along z, one of three.js along y.
  if (visual.kind === "cylinder") return new THREE.CylinderGeometry(a, a, b, 48).rotateX(Math.PI / 2);
  return surfaces[visual.surface];
}
