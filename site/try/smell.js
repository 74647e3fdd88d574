// The odour encoder in plain JavaScript: the weights, the steps and the answers of smellkit.
//
//   CSV text -> rows (n, 6) -> windows of 125 rows -> log-conductance -> summary features -> z (50) -> logits
//   and, for a day of one's own, the rise of each channel beside its log-conductance
//
// Single precision where Python has it (Math.fround): a feature at the edge of a knot falls on the same side.

const FULL = 1023, TINY = 1e-6, OVERFLOW = 2 ** 32 - 1;
const QUANTILES = [0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1], LAGS = [1, 5, 10, 20], BANDS = 6, SEGMENTS = 8;
export const SCENTS = ["banana", "mandarin_orange", "pear", "apple", "mango", "peach",
  "strawberry", "cloves", "coriander", "cumin", "garlic", "almond"];
export const EVERY = 5, MEMORY = 0.6;  // rows between two answers; the answer so far against the newest window
const GROVE = ["NO2", "C2H5OH", "VOC", "CO"], MARGIN = 0.05, OUTSIDE = 0.5, FEW = 4;
const SLACK = 1, STILL = 2.5, LEAST = 250;
const VIEWS = {  // what a network sees of the rows of a window: channels of as many steps
  conductance: (rows, columns) => conductance(rows, columns),
  "curve-and-level": (rows, columns) => [...columns.map((_, c) => rows.map((row) => Math.fround(row[c] - rows[0][c]))), ...conductance(rows, columns)],
};
const LAYERS = {"summary-mlp": 2, linear: 0};

export class DataError extends Error {
  constructor(what, hint) { super(what); this.hint = hint; }
}

// Weights

// A safetensors file: 8 bytes of header length, a JSON header, then the tensors one after the other.
export function readTensors(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const tensors = {};
  for (const [name, {dtype, shape, data_offsets: [from, to]}] of Object.entries(header)) {
    if (dtype === "F32") tensors[name] = {shape, data: new Float32Array(buffer.slice(8 + length + from, 8 + length + to))};
  }
  return tensors;
}

export class Smell {
  // `head`, where given, is a read-out of the same 50 channels for other substances: {classes, weight, bias, temperature}
  constructor(buffer, manifest, head = null) {
    const tensors = readTensors(buffer), pick = (name) => tensors[name] ?? tensors[name.replace("backbone", "body")];
    this.view = VIEWS[manifest.protocol.representation];
    if (!this.view || !(manifest.model in LAYERS))
      throw new DataError(`This page has no ${manifest.model} on ${manifest.protocol.representation}`, "use `smellkit predict`");
    this.columns = manifest.protocol.columns;
    this.span = manifest.protocol.length + manifest.protocol.lag;
    this.stride = manifest.protocol.stride;
    this.knots = pick("backbone.normalizer.knots");
    this.least = manifest.options.least ?? TINY;
    this.dense = Array.from({length: LAYERS[manifest.model]}, (_, n) => ({
      ...linear(pick, `backbone.dense.${n}.0`), gain: pick(`backbone.dense.${n}.1.weight`).data,
      offset: pick(`backbone.dense.${n}.1.bias`).data, mean: pick(`backbone.dense.${n}.1.running_mean`).data,
      variance: pick(`backbone.dense.${n}.1.running_var`).data,
    }));
    this.embed = linear(pick, "embed");
    this.head = head ?? linear(pick, "head");
    this.classes = head?.classes ?? manifest.classes;
    this.temperature = head?.temperature ?? manifest.calibration.temperature;
    this.pooling = head ? 0 : manifest.calibration.pooling ?? 0;
    this.thresholds = head ? {margin: 0, entropy: 1} : manifest.calibration.thresholds;
    this.quantile = head ? null : manifest.calibration.quantile;  // of conformal sets; a read-out has none
    this.ranges = head?.ranges ?? manifest.ranges;
    const {category_temperature: temperature = 1, category_least: least = 1} = head ? {} : manifest.calibration;
    this.kinds = {names: this.classes.map((name) => manifest.categories[name]), temperature, least};
  }

  // Log-probabilities of one window of `rows` (125 arrays of six numbers).
  scores(rows) {
    let x = this.normalise(summarise(this.view(rows, this.columns)));
    for (const layer of this.dense) {
      x = affine(layer, x).map((v, i) => gelu((v - layer.mean[i]) / Math.sqrt(layer.variance[i] + 1e-5) * layer.gain[i] + layer.offset[i]));
    }
    return logSoftmax(affine(this.head, affine(this.embed, x)));
  }

  // Each feature onto a normal distribution by its quantiles in training, clipped at +-3.
  normalise(features) {
    const [count, width] = this.knots.shape, knots = this.knots.data, f = Math.fround;
    return Float64Array.from(features, (value, feature) => {
      let passed = 0;
      for (let k = 0; k + 1 < count; k++) {
        const left = knots[k * width + feature], step = f(knots[(k + 1) * width + feature] - left);
        const least = f(this.least * Math.max(Math.abs(left), 1)), tie = step < least;
        passed += Math.min(1, Math.max(0, f(f(value) - left) / (tie ? least : step) + (tie ? 0.5 : 0)));
      }
      return 3 * (2 * passed / (count - 1) - 1);
    });
  }

  // Probabilities of log-probabilities, each the mean over so many `windows`.
  calibrated(scores, windows = 1) {
    return logSoftmax(scores.map((v) => v * windows ** this.pooling / this.temperature)).map(Math.exp);
  }

  windows(rows) {
    const cut = [];
    for (let start = 0; start + this.span <= rows.length; start += this.stride) cut.push(rows.slice(start, start + this.span));
    return cut;
  }

  // What a whole recording smells of: probabilities from the mean over its windows.
  recording(rows) {
    this.fits(rows);
    const scores = this.windows(rows).map((window) => this.scores(window));
    return this.judge(this.calibrated(scores[0].map((_, c) => mean(scores.map((s) => s[c]))), scores.length));
  }

  // The same while it is recorded: [{rows, ...answer}], every few rows.
  early(rows) {
    const listener = new Listener(this);
    return rows.map((row, n) => ({rows: n + 1, ...listener.add(row)})).filter((answer) => answer.beta);
  }

  fits(rows) {
    if (rows.length < this.span)
      throw new DataError(`${rows.length} rows are fewer than the ${this.span} of one window`, "record longer");
    const why = outside(rows, this.ranges);
    if (why) throw new DataError(why, "bring the columns to the unit and the sensors of the training recordings");
  }

  // A name, the conformal set, the twelve shares, and the reason to abstain.
  judge(p) {
    const order = ranked(p), best = order[0];
    const shares = SCENTS.map((name) => this.classes.includes(name) ? p[this.classes.indexOf(name)] : 0);
    const inside = sum(shares), beta = shares.map((share) => inside > 0 ? share / inside : 1 / SCENTS.length);
    const entropy = -sum(p.map((v) => v * Math.log(Math.max(v, 1e-300)))) / Math.log(Math.max(p.length, 2));
    const name = this.classes[best];
    const flat = p[best] - (p[order[1]] ?? 0) < this.thresholds.margin || entropy > this.thresholds.entropy + 1e-12;
    let reason = "", mixtureReason = "";
    const [kind, sure] = this.category(p), set = this.set(p, order);
    if (flat) reason = mixtureReason = doubt(set, sure > this.kinds.least ? kind : "");
    else if (inside < 1 - OUTSIDE) reason = mixtureReason = SCENTS.includes(name) ? "not sure" : `${name} is not one of the player's scents`;
    else {
      const [first, second] = ranked(beta);
      if (beta[first] - beta[second] < MARGIN) reason = doubt([SCENTS[first], SCENTS[second]]);
      if (beta[first] - 1 / SCENTS.length < MARGIN) mixtureReason = reason;
    }
    return {probabilities: p, name, confidence: p[best], set, beta, reason, mixtureReason,
      category: kind, categoryConfidence: sure};
  }

  // The likeliest category and its probability; "" where no class has one.
  category(p) {
    const {names: kinds, temperature} = this.kinds, names = [...new Set(kinds)].sort();
    if (names.join() === "other") return ["", 0];
    const sums = names.map((name) => sum(p.filter((_, c) => kinds[c] === name)));
    const each = logSoftmax(sums.map((v) => Math.log(Math.max(v, 1e-12)) / temperature)).map(Math.exp);
    const [best] = ranked(each);
    return [names[best], each[best]];
  }

  set(p, order) {
    if (this.quantile === null) return [];
    let before = 0;
    return order.filter((c, rank) => { const middle = before + p[c] / 2; before += p[c]; return rank === 0 || middle <= this.quantile; })
      .map((c) => this.classes[c]);
  }
}

// Why nothing is named: a few classes are as likely, or only the category is sure, or neither.
function doubt(set, kind) {
  if (set.length > 1 && set.length <= FEW) return `not sure: ${set.slice(0, -1).join(", ")} or ${set.at(-1)}`;
  return kind ? `not sure which of the ${kind}` : "not sure";
}

// Rows one by one, as from a board: an answer every few rows from the first window on.
export class Listener {
  constructor(smell) { this.smell = smell; this.restart(); }
  restart() { this.kept = []; this.count = 0; this.mean = null; }

  add(row) {
    this.kept.push(row);
    if (this.kept.length > this.smell.span) this.kept.shift();
    const late = ++this.count - this.smell.span;
    if (late < 0 || late % EVERY) return null;
    const why = outside(this.kept, this.smell.ranges);
    if (why) return {name: "", confidence: 0, set: [], beta: SCENTS.map(() => 1 / 12), probabilities: [], reason: why, mixtureReason: why};
    const newest = this.smell.calibrated(this.smell.scores(this.kept));
    this.mean = this.mean ? this.mean.map((v, c) => MEMORY * v + (1 - MEMORY) * newest[c]) : newest;
    return this.smell.judge(this.mean);
  }
}

// Places from the largest value to the smallest.
export const ranked = (x) => [...x.keys()].sort((a, b) => x[b] - x[a] || a - b);
export const sum = (x) => x.reduce((a, b) => a + b, 0);
const mean = (x) => sum(x) / x.length;

function linear(pick, name) {
  const weight = pick(`${name}.weight`);
  return {weight: weight.data, bias: pick(`${name}.bias`).data, inside: weight.shape[1]};
}

function affine({weight, bias, inside}, x) {
  return Float64Array.from(bias, (start, row) => start + dot(weight.slice(row * inside, (row + 1) * inside), x));
}

function logSoftmax(x) {
  const top = Math.max(...x), total = Math.log(sum(Array.from(x, (v) => Math.exp(v - top))));
  return Array.from(x, (v) => v - top - total);
}

const gelu = (x) => x * 0.5 * erfc(-x / Math.SQRT2);

// Complementary error function, relative error below 1.2e-7. Source: Numerical Recipes, section 6.2.
function erfc(x) {
  const t = 1 / (1 + 0.5 * Math.abs(x));
  const c = [1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587, -0.82215223, 0.17087277];
  const tail = t * Math.exp(-x * x - 1.26551223 + t * c.reduceRight((total, next) => next + t * total, 0));
  return x >= 0 ? tail : 2 - tail;
}

// Features

// Hundredths of log-conductance of the Grove channels, and of log(1 + reading) of others less their first row.
export function conductance(rows, columns) {
  const f = Math.fround, log = (v) => f(Math.log(v));
  return columns.map((name, c) => {
    const x = rows.map((row) => f(row[c]));
    if (GROVE.includes(name)) {
      return x.map((v) => { const i = Math.min(FULL, Math.max(0, v)); return f(100 * log(f(f(i + 0.5) / f(FULL - i + 0.5)))); });
    }
    const logs = x.map((v) => f(Math.log1p(Math.max(0, v))));
    return logs.map((v) => f(100 * f(v - logs[0])));
  });
}

// The summary features of one window (channels, steps), in the order of smellkit.odour.features.summarise.
export function summarise(x) {
  const steps = x[0].length, change = x.map((c) => c.slice(1).map((v, i) => v - c[i]));
  const parts = x.map((c, n) => channel(c, change[n], tables(steps)));
  const together = [...correlations(parts.map((p) => p.centred)), ...correlations(change)];
  for (const pick of [(p) => p.linear[0], (p) => p.linear[1], (p) => p.deviation]) together.push(...direction(parts.map(pick)));
  return [...parts.flatMap((p) => p.features), ...together];
}

function channel(x, change, {basis, cubic, quarters, cosines, sines, bands}) {
  const steps = x.length, sorted = [...x].sort((a, b) => a - b), average = mean(x);
  const centred = x.map((v) => v - average), deviation = Math.sqrt(mean(centred.map((v) => v * v)));
  const linear = basis.map((row) => dot(row, x));
  const weights = cubic.map((row) => dot(row, x));
  const noise = Math.sqrt(mean(x.map((v, i) => (v - sum(weights.map((w, k) => w * cubic[k][i]))) ** 2)));
  const size = change.map(Math.abs);
  const variance = deviation ** 2 + TINY;
  const power = cosines.map((row, k) => dot(row, x) ** 2 + dot(sines[k], x) ** 2);
  const features = [
    ...QUANTILES.map((q) => sorted[Math.round(q * (steps - 1))]), ...linear, deviation, noise,
    mean(size), Math.sqrt(mean(change.map((v) => v * v))), Math.max(...size), mean(size.map((v) => v < 1e-4 ? 1 : 0)),
    ...quarters.map((row) => dot(row, size)),
    ...LAGS.map((lag) => mean(centred.slice(lag).map((v, i) => v * centred[i])) / variance),
    ...bands.map((row) => Math.log(dot(row, power) + TINY)),
  ];
  return {features, linear, deviation, centred};
}

const dot = (a, b) => { let total = 0; for (let i = 0; i < a.length; i++) total += a[i] * b[i]; return total; };
const direction = (x) => { const length = Math.sqrt(sum(x.map((v) => v * v)) + TINY); return x.map((v) => v / length); };

function correlations(x) {
  const unit = x.map(direction);
  return unit.flatMap((u, n) => unit.slice(n + 1).map((v) => dot(u, v)));
}

const linspace = (from, to, count) => Array.from({length: count}, (_, i) => from + (to - from) * i / (count - 1));

function segments(steps, count) {
  const long = steps % count, short = Math.floor(steps / count);
  let from = 0;
  return Array.from({length: count}, (_, n) => {
    const size = short + (n < long ? 1 : 0), row = new Array(steps).fill(0).fill(1 / size, from, from + size);
    from += size;
    return row;
  });
}

const kept = new Map();
function tables(steps) {
  if (kept.has(steps)) return kept.get(steps);
  const time = linspace(-1, 1, steps);
  const trends = [time, time.map((t) => (3 * t * t - 1) / 2), time.map((t) => (5 * t ** 3 - 3 * t) / 2)];
  const edge = (from) => new Array(steps).fill(0).fill(1 / 5, from, from + 5);
  const basis = [new Array(steps).fill(1 / steps), ...trends.map((row, i) => row.map((v) => v * Math.sqrt(2 * i + 3) / steps)),
    ...segments(steps, SEGMENTS), edge(0), edge(steps - 5)];
  const cubic = [];  // orthonormal polynomials up to the third degree
  for (const row of [time.map(() => 1), ...trends]) {
    let rest = row;
    for (const q of cubic) { const along = dot(q, rest); rest = rest.map((v, i) => v - along * q[i]); }
    const length = Math.sqrt(dot(rest, rest));
    cubic.push(rest.map((v) => v / length));
  }
  const frequency = Array.from({length: Math.floor(steps / 2)}, (_, k) => k + 1);
  const taper = time.map((_, i) => (0.5 - 0.5 * Math.cos(2 * Math.PI * i / (steps - 1))) / Math.sqrt(steps));
  const waves = (wave) => frequency.map((k) => taper.map((v, i) => v * wave(2 * Math.PI * k * i / steps)));
  const edges = Array.from({length: BANDS + 1}, (_, i) => (Math.floor(steps / 2) + 1) ** (i / BANDS));
  const bands = edges.slice(1).map((high, n) => {
    const inside = frequency.map((k) => k >= edges[n] - 1e-9 && k < high - 1e-9 ? 1 : 0);
    return inside.map((v) => v / Math.max(1, sum(inside)));
  });
  const made = {basis, cubic, quarters: segments(steps - 1, 4), cosines: waves(Math.cos), sines: waves(Math.sin), bands};
  kept.set(steps, made);
  return made;
}

// Recordings

const SPAN = {Alcohol: 65535, LPG: 65535}, MISSING = ["", "nan", "na", "n/a", "null", "none", "-"];

// The rows of a CSV text in the order of `columns`; DataError with the line where it can't be one.
export function readRecording(text, columns) {
  const lines = text.replace(/^\uFEFF/, "").split(/\r\n|\r|\n/);
  while (lines.length && !lines.at(-1).trim()) lines.pop();
  if (!lines.length) throw new DataError("The file is empty", "record again");
  const header = lines[0].split(",").map((name) => name.trim().replace(/^"|"$/g, ""));
  const lost = columns.filter((name) => !header.includes(name));
  if (lost.length) throw new DataError(`Line 1: no column ${lost.join(", ")}`, `a header with ${columns.join(", ")}, separated by commas`);
  const clock = header.find((name) => /time|date|clock|millis|seconds|^t$/i.test(name));
  if (clock) throw new DataError(`The column ${clock} looks like a clock, which this page does not read`,
    "`smellkit predict` does; if the rows come once a second, delete the column");
  const places = columns.map((name) => header.indexOf(name)), rows = [], notes = [];
  for (const [n, line] of lines.slice(1).entries()) {
    const cells = line.split(",").map((cell) => cell.trim());
    if (n === 0 && (cells.length < header.length || places.some((p) => MISSING.includes(cells[p].toLowerCase())))) {
      notes.push("truncated first row dropped");
      continue;
    }
    if (cells.length !== header.length) throw new DataError(`Line ${n + 2}: ${cells.length} fields where the header has ${header.length}`, "delete or correct the line");
    rows.push(places.map((place, c) => number(cells[place], columns[c], n + 2)));
  }
  if (!rows.length) throw new DataError("The file has a header only", "record again");
  return {rows, notes};
}

// The number in a cell, an overflow taken as the top of its span; DataError where the sensor can't say it.
export function number(cell, name, line) {
  const high = SPAN[name] ?? FULL, value = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(cell) ? Number(cell) : NaN;
  if (value === OVERFLOW && SPAN[name]) return high;
  if (!(value >= 0 && value <= high)) throw new DataError(`Line ${line}, column ${name}: ${JSON.stringify(cell)}`, `a number from 0 to ${high}`);
  return value;
}

// Why `rows` are nothing that the weights can know, or "".
export function outside(rows, ranges) {
  if (!ranges) return "";
  const names = Object.keys(ranges.channels);
  const found = names.map((name, c) => {
    const {unit, low, high, still} = ranges.channels[name], column = rows.map((row) => row[c]);
    const sorted = [...column].sort((a, b) => a - b), half = sorted.length >> 1;
    const middle = sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
    const scale = SLACK * Math.max(high - low, 0.1 * Math.abs(high));
    const far = middle > high + scale || middle < low - scale || (low > 0 && middle < low / 2)
      || (unit === "counts" && (middle > FULL || (middle >= FULL && high < FULL)));
    let run = 1, longest = 1;
    for (let i = 1; i < column.length; i++) longest = Math.max(longest, run = column[i] === column[i - 1] ? run + 1 : 1);
    return {name, middle, low, high, far, dead: longest >= Math.max(LEAST, STILL * still)};
  });
  const off = found.filter((one) => one.far || one.dead), first = found.find((one) => one.far) ?? off[0];
  if (!first) return "";
  const more = off.length > 1 ? `, and ${off.length - 1} more` : "";
  return first.far
    ? `outside what these weights know: ${first.name} is about ${round(first.middle)} (${round(first.low)} to ${round(first.high)} in training)${more}`
    : `outside what these weights know: ${first.name} stands still at ${round(first.middle)}${more}: a dead channel? Check its wire`;
}

const round = (value) => String(Number(value.toPrecision(4)));
