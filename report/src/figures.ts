// Which figure stands for which head.
import { Colors, Figure, MeshFace, Robot, Track, faceOf } from "./heads";
import { Block, HeadSpec } from "./payload";
import { UrdfRobot } from "./robot";

/** Makes the figure that a head of a report asks for. */
export function makeFigure(spec: HeadSpec, block: Block, track: Track, colors: Colors): Figure {
  if (spec.kind === "mesh" && spec.mesh) return new MeshFace(block, spec.mesh, track, colors);
  if (spec.body) return new UrdfRobot(block, spec.body.shape);
  if (spec.kind === "robot") return new Robot(colors);
  return faceOf(spec.role, colors);
}
