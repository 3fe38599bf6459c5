"use strict";

const AS_GIVEN = "as given";
const BY_CAPTION = "caption, A to Z";

/** The list of captions with search and order. */
class Chooser {
  /** choose(row): called with the row that is picked, or null where none is left. */
  constructor(choose) {
    Object.assign(this, { choose, rows: [], visible: [], current: null });
    byId("search").oninput = () => this.refresh();
    byId("sort").onchange = () => this.refresh();
    byId("search").onkeydown = (event) => {
      if (event.key === "ArrowDown" || event.key === "Enter") byId("list").querySelector("button")?.focus();
    };
  }

  show(page, rows) {
    Object.assign(this, { page, rows, current: null });
    this.names = [...new Set(rows.flatMap((row) => row.motions.flatMap((m) => Object.keys(m.about.figures))))];
    const orders = this.names.flatMap((name) => [`${name}, highest first`, `${name}, lowest first`]);
    byId("sort").replaceChildren(...[AS_GIVEN, BY_CAPTION, ...orders].map((text) => make("option", text)));
    this.buttons = new Map(rows.map((row) => [row, this.entry(row)]));
    this.refresh();
  }

  /** A button for a row: its caption, and the first figure of every run, or its length. */
  entry(row) {
    const name = this.names[0];
    const known = row.motions.flatMap(({ about }, i) => {
      const value = about.figures[name];
      const run = row.motions.length > 1 ? `${this.page.runs[i]} ` : "";
      return value === undefined ? [] : [run + value.toFixed(3)];
    });
    const seconds = Math.max(...row.motions.map((motion) => motion.seconds));
    const button = make("button", row.caption, { type: "button", onclick: () => this.pick(row) });
    const told = known.length ? `${name}: ${known.join(" · ")}` : `${seconds.toFixed(1)} s`;
    button.append(make("small", told));
    return button;
  }

  /** The value that a row is ordered by: that of the last run that has it. */
  static figure(row, name) {
    return row.motions.map((motion) => motion.about.figures[name]).filter((v) => v !== undefined).at(-1) ?? -Infinity;
  }

  ordered() {
    const order = byId("sort").value;
    const rows = [...this.rows];
    if (order === BY_CAPTION) return rows.sort((a, b) => a.caption.localeCompare(b.caption));
    for (const name of this.names) {
      const sign = { [`${name}, highest first`]: -1, [`${name}, lowest first`]: 1 }[order];
      if (sign) return rows.sort((a, b) => sign * (Chooser.figure(a, name) - Chooser.figure(b, name)));
    }
    return rows;
  }

  refresh() {
    const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    this.visible = this.ordered().filter(({ caption }) => words.every((word) => caption.toLowerCase().includes(word)));
    byId("list").replaceChildren(...this.visible.map((row) => {
      const item = make("li");
      item.append(this.buttons.get(row));
      return item;
    }));
    const motions = this.visible.reduce((sum, row) => sum + row.motions.length, 0);
    byId("count").textContent = `${this.visible.length} of ${this.rows.length} captions, ${motions} motions`;
    if (!this.visible.includes(this.current)) this.pick(this.visible[0] ?? null);
  }

  pick(row) {
    this.buttons.get(this.current)?.removeAttribute("aria-current");
    this.current = row;
    this.buttons.get(row)?.setAttribute("aria-current", "true");
    this.choose(row);
  }

  move(by) {
    const next = this.visible[this.visible.indexOf(this.current) + by];
    if (!next) return;
    this.pick(next);
    this.buttons.get(next).scrollIntoView({ block: "nearest" });
  }
}
