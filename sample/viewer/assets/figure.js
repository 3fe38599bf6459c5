"use strict";

const UP = new THREE.Vector3(0, 1, 0);
const STICK = 0.022; // metres
const STICK_HEAD = 0.085;
const SIDES = 12; // of the cylinders, and of the balls that end them without a seam
const LIGHT = new THREE.Vector3(1.2, 3.2, 1.6); // from where it shines
const PLANTED_RING = [0.075, 0.1]; // metres

/** A body of capsules around the bones, its shadow, and a ring under each planted foot. */
class Figure {
  constructor(skeleton) {
    this.skeleton = skeleton;
    this.thick = true;
    this.bones = skeleton.parents.map((parent, joint) => ({ parent, joint })).slice(1);
    const count = this.bones.length;
    this.limbs = this.instances(new THREE.CylinderGeometry(1, 1, 1, SIDES, 1, true), count);
    this.balls = this.instances(new THREE.SphereGeometry(1, SIDES, 6), 2 * count + 2);
    this.shade = new THREE.MeshBasicMaterial({ depthWrite: false });
    this.rings = [0, 1].map(() => this.ring());
    this.group = new THREE.Group();
    this.group.add(this.limbs, this.balls, this.shadow(), ...this.rings);
    this.colors = {};
    this.scratch = { a: new THREE.Vector3(), b: new THREE.Vector3(), c: new THREE.Vector3() };
    this.matrix = new THREE.Matrix4();
    this.turn = new THREE.Quaternion();
    this.size = new THREE.Vector3();
  }

  instances(geometry, count) {
    const mesh = new THREE.InstancedMesh(geometry, new THREE.MeshLambertMaterial(), count);
    mesh.instanceMatrix.setUsage(THREE.DynamicDrawUsage);
    mesh.frustumCulled = false;
    for (let i = 0; i < count; i++) mesh.setColorAt(i, new THREE.Color(1, 1, 1));
    return mesh;
  }

  /** The same instances, flattened onto the floor along the light. */
  shadow() {
    const group = new THREE.Group();
    const coarse = new THREE.SphereGeometry(1, 8, 4);
    for (const [mesh, geometry] of [[this.limbs, this.limbs.geometry], [this.balls, coarse]]) {
      const flat = new THREE.InstancedMesh(geometry, this.shade, mesh.count);
      flat.instanceMatrix = mesh.instanceMatrix;
      flat.frustumCulled = false;
      flat.renderOrder = -1;
      group.add(flat);
    }
    const [x, z] = [LIGHT.x / LIGHT.y, LIGHT.z / LIGHT.y];
    group.matrix.set(1, -x, 0, 0, 0, 0, 0, 0, 0, -z, 1, 0, 0, 0, 0, 1);
    group.matrixAutoUpdate = false;
    return group;
  }

  ring() {
    const geometry = new THREE.RingGeometry(...PLANTED_RING, 28).rotateX(-Math.PI / 2);
    const ring = new THREE.Mesh(geometry, new THREE.MeshBasicMaterial({ depthWrite: false }));
    return ring;
  }

  /** colors: {left, right, middle, contact, shadow} as THREE.Color. */
  paint(colors) {
    this.colors = colors;
    this.shade.color = colors.shadow;
    for (const ring of this.rings) ring.material.color = colors.contact;
  }

  radius(joint) {
    return this.thick ? this.skeleton.radii[joint] : STICK;
  }

  /** joints [J * 3] in metres; planted [2]: left and right foot on the ground. */
  pose(joints, planted) {
    const { a, b } = this.scratch;
    this.bones.forEach(({ parent, joint }, i) => {
      a.fromArray(joints, 3 * parent);
      b.fromArray(joints, 3 * joint);
      const radius = this.radius(joint);
      const color = this.colorOf(joint, planted);
      this.capsule(i, a, b, radius, color);
    });
    this.head(joints);
    this.rings.forEach((ring, foot) => {
      const [ankle, toe] = this.skeleton.feet[foot];
      a.fromArray(joints, 3 * ankle).lerp(b.fromArray(joints, 3 * toe), 0.5);
      ring.visible = planted[foot];
      ring.position.set(a.x, 0, a.z);
    });
    for (const mesh of [this.limbs, this.balls]) {
      mesh.instanceMatrix.needsUpdate = true;
      mesh.instanceColor.needsUpdate = true;
    }
  }

  /** That of its side; the bone of a planted foot has the colour of contact. */
  colorOf(joint, planted) {
    const foot = this.skeleton.feet.findIndex(([, toe]) => toe === joint);
    return foot >= 0 && planted[foot] ? this.colors.contact : this.colors[this.skeleton.sides[joint]];
  }

  capsule(i, start, end, radius, color) {
    const along = this.scratch.c.subVectors(end, start);
    const length = along.length();
    this.turn.setFromUnitVectors(UP, length > 0 ? along.divideScalar(length) : UP);
    const middle = along.addVectors(start, end).multiplyScalar(0.5);
    this.limbs.setMatrixAt(i, this.matrix.compose(middle, this.turn, this.size.set(radius, length, radius)));
    this.limbs.setColorAt(i, color);
    this.ball(2 * i, start, radius, color);
    this.ball(2 * i + 1, end, radius, color);
  }

  /** Turned as the last capsule is, so that their edges meet. */
  ball(i, place, radius, color) {
    this.matrix.compose(place, this.turn, this.size.setScalar(radius));
    this.balls.setMatrixAt(i, this.matrix);
    this.balls.setColorAt(i, color);
  }

  /** A ball beyond the end of the neck, and a nose towards where hips and shoulders face. */
  head(joints) {
    const { a, b, c } = this.scratch;
    const { head, face, parents, headRadius } = this.skeleton;
    const radius = this.thick ? headRadius : STICK_HEAD;
    b.fromArray(joints, 3 * parents[head]);
    a.fromArray(joints, 3 * head);
    const centre = c.subVectors(a, b).normalize().multiplyScalar(0.35 * radius).add(a);
    const last = 2 * this.bones.length;
    this.ball(last, centre, radius, this.colors.middle);
    const [rightHip, leftHip, rightShoulder, leftShoulder] = face.map((joint) => 3 * joint);
    const across = (axis) =>
      joints[leftHip + axis] - joints[rightHip + axis] + joints[leftShoulder + axis] - joints[rightShoulder + axis];
    b.set(-across(2), 0, across(0)).normalize().multiplyScalar(radius).add(centre);
    this.ball(last + 1, b, 0.24 * radius, this.colors.middle);
  }
}

/** The way of the root as a band on the floor, behind in full and ahead faintly. */
class Trail {
  constructor(motion, behind, ahead) {
    this.frames = motion.frames;
    const geometry = Trail.band(motion.way);
    const mesh = (material) => {
      const part = new THREE.Mesh(geometry.clone(), material);
      part.renderOrder = -2;
      part.frustumCulled = false;
      return part;
    };
    this.behind = mesh(behind);
    this.ahead = mesh(ahead);
    this.group = new THREE.Group();
    this.group.add(this.ahead, this.behind);
  }

  static band(way, width = 0.03) {
    const geometry = new THREE.BufferGeometry();
    const [corners, faces] = [[], []];
    let side = [width / 2, 0];
    way.forEach(([x, z], i) => {
      const before = way[Math.max(0, i - 1)];
      const after = way[Math.min(way.length - 1, i + 1)];
      const [dx, dz] = [after[0] - before[0], after[1] - before[1]];
      const length = Math.hypot(dx, dz);
      if (length > 1e-3) side = [(-dz / length) * (width / 2), (dx / length) * (width / 2)];
      corners.push(x + side[0], 0, z + side[1], x - side[0], 0, z - side[1]);
      const k = 2 * i;
      if (i > 0) faces.push(k - 2, k - 1, k, k, k - 1, k + 1);
    });
    geometry.setAttribute("position", new THREE.BufferAttribute(new Float32Array(corners), 3));
    geometry.setIndex(faces);
    return geometry;
  }

  at(frame) {
    const passed = 6 * Math.round(frame);
    this.behind.geometry.setDrawRange(0, passed);
    this.ahead.geometry.setDrawRange(passed, 6 * (this.frames - 1) - passed);
  }

  dispose() {
    this.behind.geometry.dispose();
    this.ahead.geometry.dispose();
  }
}
