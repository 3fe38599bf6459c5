"use strict";

const FIELD_OF_VIEW = 34; // degrees from top to bottom
const NARROWEST = 0.6; // of width over height: narrower panels show more above and below
const FIRST_VIEW = new THREE.Vector3(2.3, 1.9, 3.9); // metres from the figure
const TARGET = new THREE.Vector3(0, 0.88, 0);
const FLOOR = 24; // metres to its edge, which the fog hides
const LINE = 0.014; // metres

/** The scene, drawn once for every panel: each motion in its own view, one camera for all. */
class Stage {
  constructor(element, canvas, skeleton) {
    this.element = element;
    this.renderer = new THREE.WebGLRenderer({ canvas, antialias: true });
    this.renderer.setScissorTest(true);
    this.scene = new THREE.Scene();
    this.world = new THREE.Group(); // moved against the figure, so that the view follows it
    this.figure = new Figure(skeleton);
    this.trailMaterials = { path: Stage.flat(), ahead: Stage.flat() };
    this.scene.add(this.world, ...Stage.lights());
    this.world.add(this.figure.group);
    this.camera = new THREE.PerspectiveCamera(FIELD_OF_VIEW, 1, 0.1, 120);
    this.controls = new THREE.OrbitControls(this.camera, element);
    Object.assign(this.controls, { enableDamping: true, dampingFactor: 0.15, minDistance: 1, maxDistance: 25 });
    this.controls.maxPolarAngle = 0.49 * Math.PI; // never from below the floor
    this.panels = [];
    this.follow = true;
    this.showPath = true;
    this.drawn = 0;
    this.joints = new Float32Array(3 * skeleton.parents.length);
    this.controls.addEventListener("change", () => { this.stale = true; });
    new ResizeObserver(() => this.resize()).observe(element);
    this.paint();
    this.reset();
    this.resize();
  }

  static flat() {
    return new THREE.MeshBasicMaterial({ side: THREE.DoubleSide, depthWrite: false });
  }

  static lights() {
    const sun = new THREE.DirectionalLight(0xffffff, 2.1);
    sun.position.copy(LIGHT);
    return [sun, new THREE.HemisphereLight(0xffffff, 0xb8c0cc, 1.7)];
  }

  /** Takes the colours of the page, which follow light and dark. */
  paint() {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => new THREE.Color(style.getPropertyValue(`--${name}`).trim());
    this.scene.background = color("sky");
    this.scene.fog = new THREE.Fog(color("sky"), 7, FLOOR);
    this.lay(color("floor"), color("grid"));
    for (const [name, material] of Object.entries(this.trailMaterials)) material.color = color(name);
    const names = ["left", "right", "middle", "contact", "shadow"];
    this.figure.paint(Object.fromEntries(names.map((name) => [name, color(name)])));
    this.stale = true;
  }

  /** A floor of one colour with a line every metre. */
  lay(floor, lines) {
    if (this.floor) this.world.remove(this.floor);
    const disc = new THREE.CircleGeometry(FLOOR, 48).rotateX(-Math.PI / 2);
    const ground = new THREE.Mesh(disc, new THREE.MeshBasicMaterial({ color: floor, depthWrite: false }));
    const grid = new THREE.Mesh(Stage.grid(), Object.assign(Stage.flat(), { color: lines }));
    [ground.renderOrder, grid.renderOrder] = [-4, -3]; // what lies on the floor is drawn in this order
    this.floor = new THREE.Group();
    this.floor.add(ground, grid);
    this.world.add(this.floor);
  }

  /** Lines as narrow bands, which every renderer cuts off rightly at the camera. */
  static grid() {
    const corners = [];
    const band = (x0, z0, x1, z1) => corners.push(x0, 0, z0, x0, 0, z1, x1, 0, z0, x1, 0, z0, x0, 0, z1, x1, 0, z1);
    for (let at = -FLOOR; at <= FLOOR; at++) {
      band(at - LINE / 2, -FLOOR, at + LINE / 2, FLOOR);
      band(-FLOOR, at - LINE / 2, FLOOR, at + LINE / 2);
    }
    const geometry = new THREE.BufferGeometry();
    return geometry.setAttribute("position", new THREE.BufferAttribute(new Float32Array(corners), 3));
  }

  reset() {
    this.controls.enableDamping = false; // so that no swing goes on after it
    this.controls.update();
    this.controls.enableDamping = true;
    this.controls.target.copy(TARGET);
    this.camera.position.copy(FIRST_VIEW).add(TARGET);
    this.controls.update();
    this.stale = true;
  }

  resize() {
    const { width, height } = this.element.getBoundingClientRect();
    this.renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
    this.renderer.setSize(width, height, false);
    this.stale = true;
  }

  /** views: [{element, motion}], the places on the page and what each of them shows. */
  show(views) {
    for (const { trail } of this.panels) {
      this.world.remove(trail.group);
      trail.dispose();
    }
    const { path, ahead } = this.trailMaterials;
    this.panels = views.map((view) => ({ ...view, trail: new Trail(view.motion, path, ahead) }));
    for (const { trail } of this.panels) this.world.add(trail.group);
    this.stale = true;
  }

  /** Draws all panels at `time` if anything moved since the last call. */
  draw(time) {
    this.controls.update();
    if (!this.stale && time === this.time) return;
    Object.assign(this, { time, stale: false });
    const outer = this.element.getBoundingClientRect();
    for (const panel of this.panels) this.drawPanel(panel, time, outer);
    this.drawn += 1;
  }

  drawPanel({ element, motion, trail }, time, outer) {
    const { left, bottom, width, height } = element.getBoundingClientRect();
    if (width < 2 || height < 2) return;
    this.figure.pose(motion.pose(time, this.joints), [0, 1].map((foot) => motion.planted(time, foot)));
    for (const other of this.panels) other.trail.group.visible = this.showPath && other.trail === trail;
    trail.at(motion.frameAt(time));
    const [x, z] = motion.anchor(time, this.follow);
    this.world.position.set(-x, 0, -z);
    const half = Math.tan((FIELD_OF_VIEW * Math.PI) / 360) * Math.max(1, (NARROWEST * height) / width);
    this.camera.fov = (Math.atan(half) * 360) / Math.PI;
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
    const place = [left - outer.left, outer.bottom - bottom, width, height];
    this.renderer.setViewport(...place);
    this.renderer.setScissor(...place);
    this.renderer.render(this.scene, this.camera);
  }
}
