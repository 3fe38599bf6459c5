"use strict";

const SMOOTHING = 0.4; // seconds on either side, of the way that the view follows

/** One motion: joints as 16-bit integers, and which feet are planted in each frame. */
class Motion {
  /** about: its entry of the page; joints [frames * joints * 3]; contacts [frames], a bit per foot. */
  constructor(about, joints, contacts, fps) {
    Object.assign(this, { about, joints, contacts, fps, frames: about.frames });
    this.width = joints.length / this.frames;
  }

  get seconds() {
    return this.frames / this.fps;
  }

  frameAt(time) {
    return Math.min(Math.max(time * this.fps, 0), this.frames - 1);
  }

  /** Writes the pose at `time` into `out`, in metres, between two frames a straight mixture. */
  pose(time, out) {
    const frame = this.frameAt(time);
    const first = Math.floor(frame) * this.width;
    const second = Math.min(Math.floor(frame) + 1, this.frames - 1) * this.width;
    const share = frame % 1;
    for (let i = 0; i < this.width; i++) {
      out[i] = ((1 - share) * this.joints[first + i] + share * this.joints[second + i]) * this.about.scale;
    }
    return out;
  }

  /** Is the foot (0 left, 1 right) on the ground? */
  planted(time, foot) {
    return (this.contacts[Math.round(this.frameAt(time))] >> foot) % 2 === 1;
  }

  /** The root above the floor, [x, z] of every frame. */
  get way() {
    this.storedWay ??= Array.from({ length: this.frames }, (_, frame) =>
      [0, 2].map((axis) => this.joints[frame * this.width + axis] * this.about.scale));
    return this.storedWay;
  }

  /** Where the view looks at `time`: the smoothed way, or its middle where the view stands. */
  anchor(time, follow) {
    if (!follow) {
      return [0, 1].map((axis) => {
        const values = this.way.map((point) => point[axis]);
        return (Math.min(...values) + Math.max(...values)) / 2;
      });
    }
    this.smoothWay ??= this.smooth();
    const frame = this.frameAt(time);
    const first = this.smoothWay[Math.floor(frame)];
    const second = this.smoothWay[Math.min(Math.floor(frame) + 1, this.frames - 1)];
    return first.map((value, axis) => value + (frame % 1) * (second[axis] - value));
  }

  smooth() {
    const radius = Math.round(SMOOTHING * this.fps);
    return this.way.map((_, frame) => {
      const near = this.way.slice(Math.max(0, frame - radius), frame + radius + 1);
      return [0, 1].map((axis) => near.reduce((sum, point) => sum + point[axis], 0) / near.length);
    });
  }
}

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** The rows of a page with their motions: the joints of all come first, then all contacts. */
function unpack(page, base64) {
  const { buffer } = bytesOf(base64);
  const width = 3 * page.skeleton.parents.length;
  const frames = page.rows.flatMap((row) => row.motions).reduce((sum, m) => sum + m.frames, 0);
  let start = 0;
  const take = (about) => {
    const joints = new Int16Array(buffer, 2 * width * start, width * about.frames);
    const contacts = new Uint8Array(buffer, 2 * width * frames + start, about.frames);
    start += about.frames;
    return new Motion(about, joints, contacts, page.fps);
  };
  return page.rows.map(({ caption, motions }) => ({ caption, motions: motions.map(take) }));
}
