// The one material of the stage. All heads share one small program, so that a page opens without a wait for
// shaders: the standard material of three.js took four programs of 84 kB each.
import * as THREE from "three";

const VERTEX = /* glsl */ `
precision highp float;
in vec3 position;
in vec3 normal;
in vec3 color;
uniform mat4 modelMatrix;
uniform mat4 viewMatrix;
uniform mat4 projectionMatrix;
uniform vec3 cameraPosition;
centroid out vec3 vNormal;
centroid out vec3 vView;
centroid out vec3 vColor;
void main() {
  vec4 world = modelMatrix * vec4(position, 1.0);
  // Nothing on the stage is scaled more one way than another, so that normals turn as points do.
  vNormal = mat3(modelMatrix) * normal;
  vView = cameraPosition - world.xyz;
  vColor = color;
  gl_Position = projectionMatrix * viewMatrix * world;
}`;

// Three lamps and the sky over a Lambert and GGX surface; tones by ACES as Stephen Hill fitted it; sRGB out.
const FRAGMENT = /* glsl */ `
precision highp float;
centroid in vec3 vNormal;
centroid in vec3 vView;
centroid in vec3 vColor;
uniform vec3 base;
uniform vec3 glow;
uniform vec2 finish;
out vec4 pixel;

vec3 albedo, mirror, view, n;
float a2, nv;

vec3 lamp(vec3 from, vec3 light) {
  vec3 l = normalize(from);
  vec3 h = normalize(l + view);
  float nl = max(dot(n, l), 0.0);
  float nh = max(dot(n, h), 0.0);
  float d = nh * nh * (a2 - 1.0) + 1.0;
  float shade = 0.5 / max(mix(2.0 * nl * nv, nl + nv, sqrt(a2)), 1e-4);
  float edge = pow(1.0 - max(dot(view, h), 0.0), 5.0);
  vec3 gloss = (mirror + (1.0 - mirror) * edge) * (shade * a2 / (3.14159 * d * d));
  return light * nl * (albedo * 0.31831 + gloss);
}

void main() {
  n = normalize(gl_FrontFacing ? vNormal : -vNormal);
  view = normalize(vView);
  nv = max(dot(n, view), 0.0);
  vec3 tint = base * vColor;
  albedo = tint * (1.0 - finish.y);
  mirror = mix(vec3(0.04), tint, finish.y);
  float a = finish.x * finish.x;
  a2 = a * a;
  vec3 sky = mix(vec3(0.29, 0.25, 0.22), vec3(1.04, 1.07, 1.15), 0.5 + 0.5 * n.y);
  vec3 light = glow + albedo * sky * 0.31831
    + lamp(vec3(2.2, 2.6, 3.4), vec3(2.30, 2.09, 1.86))
    + lamp(vec3(-3.0, 1.6, -2.5), vec3(0.76, 1.00, 1.50))
    + lamp(vec3(-2.6, -0.2, 2.5), vec3(0.43, 0.46, 0.55));
  light *= 1.05 / 0.6;
  light = mat3(0.59719, 0.07600, 0.02840, 0.35458, 0.90834, 0.13383, 0.04823, 0.01566, 0.83777) * light;
  light = (light * (light + 0.0245786) - 0.000090537) / (light * (0.983729 * light + 0.4329510) + 0.238081);
  light = mat3(1.60475, -0.10208, -0.00327, -0.53108, 1.10813, -0.07276, -0.07367, -0.00605, 1.07602) * light;
  light = clamp(light, 0.0, 1.0);
  pixel = vec4(mix(1.055 * pow(light, vec3(1.0 / 2.4)) - 0.055, light * 12.92, lessThanEqual(light, vec3(0.0031308))), 1.0);
}`;

/** How something on the stage looks: its colour (times the vertices' colours where there are any), finish and glow. */
export class Surface extends THREE.RawShaderMaterial {
  readonly color: THREE.Color;
  /** Light that it gives off by itself. */
  readonly glow = new THREE.Color(0);

  constructor(color: THREE.ColorRepresentation, roughness = 0.6, metalness = 0) {
    super({ vertexShader: VERTEX, fragmentShader: FRAGMENT, glslVersion: THREE.GLSL3 });
    this.color = new THREE.Color(color);
    this.uniforms = {
      base: { value: this.color },
      glow: { value: this.glow },
      finish: { value: new THREE.Vector2(roughness, metalness) },
    };
    Object.assign(this, { defaultAttributeValues: { color: [1, 1, 1] } });
  }
}
