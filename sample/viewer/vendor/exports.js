// What the viewer uses of three.js; update.sh bundles these and leaves the rest out.
export {
  BufferAttribute, BufferGeometry, CircleGeometry, Color, CylinderGeometry, DirectionalLight,
  DoubleSide, DynamicDrawUsage, Fog, Group, HemisphereLight, InstancedMesh, Matrix4,
  Mesh, MeshBasicMaterial, MeshLambertMaterial, PerspectiveCamera, Quaternion, RingGeometry, Scene,
  SphereGeometry, Vector3, WebGLRenderer,
} from "three";
export { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
