"use strict";

const REST = 0.5; // seconds at the last frame before it starts again
const SHOWN_AT_FIRST = 4;
const byId = (id) => document.getElementById(id);

/** An element with text; never HTML, so that captions are shown as they were written. */
function make(tag, text = "", properties = {}) {
  return Object.assign(document.createElement(tag), { textContent: text }, properties);
}

/** The page: its captions, the panels of the chosen one, and the clock that all panels share. */
class Viewer {
  constructor() {
    Object.assign(this, { rows: [], runs: [], row: null, time: 0, last: 0 });
    this.playing = !window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.chooser = new Chooser((row) => this.choose(row));
    this.listen();
    requestAnimationFrame((now) => this.tick(now));
  }

  /** Shows a page as write_page packed it. */
  show(page, base64) {
    Object.assign(this, { page, runs: page.runs, rows: unpack(page, base64) });
    if (!this.stage) this.open(page.skeleton);
    this.shown = this.runs.map((_, i) => i < SHOWN_AT_FIRST);
    this.buttons();
    this.chooser.show(page, this.rows);
  }

  open(skeleton) {
    try {
      this.stage = new Stage(byId("stage"), byId("canvas"), skeleton);
    } catch (error) {
      byId("panels").replaceChildren(make("p", `This browser cannot draw in 3-D (WebGL): ${error.message}`, { className: "message" }));
    }
  }

  choose(row) {
    this.row = row;
    this.time = 0;
    byId("caption").textContent = row ? row.caption : "";
    this.layOut();
  }

  /** The panels of the runs that are shown. */
  layOut() {
    const shown = this.row ? this.row.motions.filter((_, i) => this.shown[i]) : [];
    const names = this.runs.filter((_, i) => this.shown[i]);
    this.seconds = Math.max(...shown.map((motion) => (motion.frames - 1) / motion.fps), 0);
    byId("scrub").max = Math.round(this.seconds * this.page.fps);
    if (!this.stage) return;
    const panels = shown.map((motion, i) => panelOf(motion, names[i]));
    byId("panels").replaceChildren(...panels);
    this.arrange();
    this.stage.show(panels.map((element, i) => ({ element, motion: shown[i] })));
  }

  /** As many columns as make the smaller side of a panel largest. */
  arrange() {
    const { width, height } = byId("stage").getBoundingClientRect();
    const count = Math.max(1, byId("panels").children.length);
    const side = (columns) => Math.min(width / columns, (0.75 * height) / Math.ceil(count / columns));
    const columns = [...Array(count).keys()].map((i) => i + 1).reduce((best, n) => (side(n) > side(best) ? n : best));
    byId("panels").style.gridTemplate = `repeat(${Math.ceil(count / columns)}, 1fr) / repeat(${columns}, 1fr)`;
  }

  tick(now) {
    const passed = Math.min((now - this.last) / 1000, 0.25);
    this.last = now;
    if (this.playing && this.seconds > 0) {
      this.time += passed * Number(byId("speed").value);
      if (this.time > this.seconds + REST) this.time = 0;
    }
    this.tell();
    if (this.stage) this.stage.draw(Math.min(this.time, this.seconds ?? 0));
    requestAnimationFrame((next) => this.tick(next));
  }

  /** Counter, bar and button. */
  tell() {
    if (!this.row) return;
    const time = Math.min(this.time, this.seconds);
    const last = Number(byId("scrub").max);
    const frame = Math.min(Math.floor(time * this.page.fps + 1e-6), last);
    const text = `${time.toFixed(1)} of ${this.seconds.toFixed(1)} s · frame ${frame} of ${last}`;
    if (byId("clock").textContent !== text) byId("clock").textContent = text;
    if (document.activeElement !== byId("scrub") || this.playing) byId("scrub").value = frame;
    byId("play").textContent = this.playing ? "pause" : "play";
  }

  seek(frame) {
    if (!this.row) return;
    this.playing = false;
    this.time = Math.min(Math.max(frame, 0), Number(byId("scrub").max)) / this.page.fps;
  }

  step(frames) {
    if (this.row) this.seek(Math.round(Math.min(this.time, this.seconds) * this.page.fps) + frames);
  }

  toggleRun(i) {
    const left = this.shown.filter(Boolean).length;
    if (i >= this.runs.length || (this.shown[i] && left === 1)) return;
    this.shown[i] = !this.shown[i];
    this.buttons();
    this.layOut();
  }

  buttons() {
    const chips = this.runs.map((name, i) => {
      const chip = make("button", name, { type: "button", onclick: () => this.toggleRun(i) });
      chip.setAttribute("aria-pressed", this.shown[i]);
      return chip;
    });
    byId("runs").replaceChildren(...(this.runs.length > 1 ? chips : []));
  }

  toggle(id) {
    if (!this.stage) return;
    const on = byId(id).getAttribute("aria-pressed") !== "true";
    byId(id).setAttribute("aria-pressed", on);
    if (id === "body") this.stage.figure.thick = on;
    if (id === "follow") this.stage.follow = on;
    if (id === "path") this.stage.showPath = on;
    this.stage.stale = true;
  }

  changeTheme() {
    const root = document.documentElement;
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    this.stage?.paint();
  }

  changeSpeed(by) {
    const speed = byId("speed");
    speed.selectedIndex = Math.min(Math.max(speed.selectedIndex + by, 0), speed.length - 1);
  }

  listen() {
    byId("play").onclick = () => { this.playing = !this.playing; };
    byId("scrub").oninput = (event) => this.seek(Number(event.target.value));
    for (const id of ["body", "follow", "path"]) byId(id).onclick = () => this.toggle(id);
    byId("reset").onclick = () => this.stage?.reset();
    byId("theme").onclick = () => this.changeTheme();
    byId("help-open").onclick = () => byId("help").showModal();
    window.addEventListener("resize", () => this.arrange());
    document.addEventListener("keydown", (event) => this.press(event));
  }

  press(event) {
    const typing = event.target.matches("input:not([type=range]), textarea, select");
    if (typing && event.key === "Escape") event.target.blur();
    if (typing || event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
    const action = this.keys(event)[event.key] ?? (/^[1-9]$/.test(event.key) && (() => this.toggleRun(Number(event.key) - 1)));
    if (!action) return;
    event.preventDefault();
    action();
  }

  keys(event) {
    const frames = event.shiftKey ? Math.round((this.page?.fps ?? 0) / 2) : 1;
    return {
      " ": () => { this.playing = !this.playing; },
      ArrowLeft: () => this.step(-frames),
      ArrowRight: () => this.step(frames),
      Home: () => this.seek(0),
      End: () => this.seek(Infinity),
      ArrowUp: () => this.chooser.move(-1),
      ArrowDown: () => this.chooser.move(1),
      ",": () => this.changeSpeed(-1),
      ".": () => this.changeSpeed(1),
      "/": () => byId("search").focus(),
      "?": () => byId("help").showModal(),
      b: () => this.toggle("body"),
      f: () => this.toggle("follow"),
      t: () => this.toggle("path"),
      r: () => this.stage?.reset(),
      d: () => this.changeTheme(),
    };
  }
}

/** The frame of one view: the name of the run above, what is known of the motion, its facts below. */
function panelOf(motion, name) {
  const { seed, figures, facts } = motion.about;
  const known = Object.entries(figures).map(([key, value]) => `${key} ${value.toFixed(3)}`);
  if (seed !== null) known.push(`seed ${seed}`);
  known.push(`${motion.seconds.toFixed(1)} s`);
  const header = make("header");
  header.append(make("b", name), make("div", known.join(" · ")));
  const list = make("ul");
  for (const { text, holds } of facts) {
    list.append(make("li", `${holds ? "✓" : "✗"} ${text}`, { className: holds ? "holds" : "fails" }));
  }
  const panel = make("div", "", { className: "panel" });
  panel.append(header, list);
  return panel;
}
