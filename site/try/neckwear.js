// The NeckWear player in plain JavaScript: frames, the slots of a mixture, and a player over Web Serial or drawn here.
//
//   short frame F5 command data sum16 55; forwarded F5 51 channel length payload sum16 55 (see smellkit/device/frames.py)

import {ranked, sum as total} from "./smell.js";

const EVERYONE = [0xff, 0xff], HANDSET = [1, 0, 1], NECKWEAR = 2;
export const BAUD = 115200;
export const TIMING = {gap: 200, stops: 3, stopGap: 50, wakes: 3, wakeGap: 1000, idle: 240000, frame: 10000, renew: 1000, asleep: 3000};

const bytes = (value, size) => Array.from({length: size}, (_, i) => Math.floor(value / 256 ** (size - 1 - i)) & 255);
const outer = (body) => [0xf5, ...body, ...bytes(total(body) & 0xffff, 2), 0x55];
const inner = (code, data) => outer([...HANDSET, NECKWEAR, ...EVERYONE, code, ...data]);
const forward = (payload) => Uint8Array.from(outer([0x51, 0, payload.length, ...payload]));

export const wake = () => forward([0xf5, 0x71, 0x55]);
export const stop = () => forward(inner(2, []));
export function play(scent, milliseconds) {
  for (const [value, high] of [[scent, 12], [milliseconds, 65000]]) {
    if (!Number.isInteger(value) || value < 1 || value > high) throw new RangeError(`${value}: a whole number from 1 to ${high}`);
  }
  return forward(inner(1, [0, 0, 0, scent, ...bytes(milliseconds, 4)]));
}

// A mixture as slots of one scent each: [{start, scent, seconds}], `end`; the arithmetic of smellkit.device.playlist.
export function render(beta, {seconds = 60, slot = 2, gap = 0.2, keep = 4} = {}) {
  const kept = ranked(beta).slice(0, keep);
  const mass = total(kept.map((s) => beta[s]));
  const planned = beta.map((share, s) => kept.includes(s) ? share / mass : 0);
  const count = Math.floor(seconds / (slot + gap) + 1e-9);
  const turns = order(planned, apportion(planned, count));
  return {slots: turns.map((scent, turn) => ({start: turn * (slot + gap), scent: scent + 1, seconds: slot})), end: count * (slot + gap)};
}

// Largest remainder; ties go to the lowest scent.
export function apportion(shares, number) {
  const exact = shares.map((share) => Math.round(share * number * 1e9) / 1e9), counts = exact.map(Math.floor);
  const remainders = exact.map((share, s) => Math.round((share - counts[s]) * 1e9) / 1e9);
  for (const s of ranked(remainders).slice(0, number - total(counts))) counts[s]++;
  return counts;
}

// Earliest deadline first, so that each scent is within one slot of its share all along (Tijdeman 1980).
export function order(shares, counts) {
  const number = total(counts), waiting = [], turns = [];
  counts.forEach((count, scent) => {
    const rates = [shares[scent], count / number].filter((rate) => rate > 0);
    for (let n = 1; n <= count; n++) waiting.push({
      scent, release: Math.max(...rates.map((rate) => Math.floor((n - 1) / rate + 1e-9) + 1)),
      deadline: Math.min(number, ...rates.map((rate) => Math.ceil(n / rate - 1e-9))),
    });
  });
  for (let turn = 1; turn <= number; turn++) {
    const due = waiting.filter((job) => job.release <= turn);
    const job = [...(due.length ? due : waiting)].sort((a, b) => a.deadline - b.deadline || a.scent - b.scent)[0];
    waiting.splice(waiting.indexOf(job), 1);
    turns.push(job.scent);
  }
  return turns;
}

const clock = () => performance.now();  // it may stand still while the machine sleeps
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// A player on a port with `write(bytes)`. One thing plays at a time; a stop ends it and is sent three times.
export class Player {
  constructor(port, {timing = TIMING, tell = () => {}} = {}) {
    Object.assign(this, {port, timing, tell, turn: 0, last: -Infinity, awake: -Infinity});
  }

  // Play [{start, scent, seconds}] for `end` seconds; resolves then, or when a stop comes.
  async run({slots, end}) {
    const turn = ++this.turn, gone = () => turn !== this.turn;
    try {
      if (clock() - this.awake > this.timing.idle) {
        this.tell("waking the player");
        for (let n = 0; n < this.timing.wakes; n++) { await this.send(wake(), gone); await this.until(clock() + this.timing.wakeGap, gone); }
        if (!gone()) this.awake = clock();  // through fewer of them it may have slept
      }
      const began = clock();
      for (const {start, scent, seconds} of slots) {
        await this.until(began + 1000 * start, gone);
        const over = began + 1000 * (start + seconds);
        while (!gone()) {  // longer than one frame: renewed before it ends
          const left = Math.round(over - clock()), now = Math.min(left, this.timing.frame);
          if (now < 1) break;
          this.tell("", scent);
          await this.send(play(scent, now), gone);
          if (now === left) break;
          await this.until(clock() + now - this.timing.renew, gone);
        }
      }
      await this.until(began + 1000 * end, gone);
      if (!gone()) await this.stop();
    } catch (why) {
      if (!gone()) await this.stop().catch(() => {});
      throw why;
    }
  }

  // Not across a sleep of the machine: what was asked for before it is not played after it.
  async until(when, gone) {
    while (!gone() && clock() < when) {
      const before = Date.now();
      await sleep(Math.min(50, when - clock()));
      if (!gone() && Date.now() - before > this.timing.asleep) throw new Error("Interrupted: the machine slept. Play it again");
    }
  }

  async send(frame, gone) {
    await this.until(this.last + this.timing.gap, gone);
    if (!gone()) await this.write(frame);
  }

  async write(frame) {
    this.last = clock();
    if (this.last - this.awake < this.timing.idle) this.awake = this.last;  // asleep it hears nothing but a wake
    await this.port.write(frame);
  }

  async stop() {
    this.turn++;
    for (let n = 0; n < this.timing.stops; n++) {
      if (n) await sleep(this.timing.stopGap);
      await this.write(stop());
      this.tell("", 0);
    }
  }
}

// A port of Web Serial; `lost` is called when it goes away.
export class SerialPort {
  constructor(port, lost) {
    this.port = port;
    port.addEventListener?.("disconnect", () => lost());
  }
  async open(baudRate = BAUD) { await this.port.open({baudRate}); this.writer = this.port.writable.getWriter(); return this; }
  write(frame) { return this.writer.write(frame); }
  async close() { this.writer?.releaseLock(); await this.port.close().catch(() => {}); }
}

// The lines of a sensor board, as arrays of texts; ends when `signal` aborts or the board goes away.
export async function* lines(port, signal) {
  const reader = port.readable.getReader(), text = new TextDecoder();
  signal.addEventListener("abort", () => reader.cancel().catch(() => {}));
  let rest = "", first = true;
  try {
    for (;;) {
      const {value, done} = await reader.read();
      if (done) return;
      const parts = (rest + text.decode(value, {stream: true})).split("\n");
      rest = parts.pop().slice(-512);
      for (const part of parts) {
        if (!first) yield part.trim().split(",").map((cell) => cell.trim());
        first = false;  // nobody knows how much of it is missing
      }
    }
  } finally {
    reader.releaseLock();
  }
}

// A player drawn on the page: it reads frames as a real one does.
export class VirtualPort {
  constructor(show) { this.show = show; }
  write(frame) {
    const code = frame[3] === 3 ? 0x71 : frame[11];
    if (code === 1) this.emit(frame[15], new DataView(frame.buffer).getUint32(16));
    if (code === 2) this.emit(0, 0);
  }
  emit(scent, milliseconds) {
    clearTimeout(this.timer);
    this.show(scent);
    if (scent) this.timer = setTimeout(() => this.show(0), milliseconds);
  }
}
