// The page: what is asked of smell.js and neckwear.js, and what is seen of it.
import {DataError, Listener, SCENTS, Smell, number, ranked, readRecording} from "./smell.js";
import {BAUD, Player, SerialPort, TIMING, VirtualPort, lines, render} from "./neckwear.js";

const SAMPLES = ["banana", "garlic", "strawberry", "mint"], SPEED = 25, SHOWN = 60;
const COLOURS = ["var(--kit-accent)", "#c77700", "#2a8f5b", "#c2403a", "#8a63c9", "#6b7480"];
const NO_SERIAL = "This browser has no Web Serial: use Chrome, Edge or Opera on a computer, or the panel of notebook 06.";
const here = new URL(".", import.meta.url), words = (name) => name.replaceAll("_", " ");
const percent = (share) => `${(100 * share).toFixed(0)} %`;
const page = document.getElementById("try"), $ = (name) => page.querySelector(`[data-part="${name}"]`);

page.innerHTML = `
  <div class="try-row" role="group" aria-label="A recording"><span>Smell</span>
    ${SAMPLES.map((name) => `<button data-sample="${name}">${name}</button>`).join("")}
    <label class="try-file">your own CSV<input type="file" accept=".csv,text/csv"></label>
    <button data-part="board">a live board</button>
    <label>recorded <select data-part="day"><option value="odour">on a day of your own</option>
      <option value="odour-same-session">in the session of the training recordings</option></select></label></div>
  <p data-part="says" class="try-says" role="status">Choose a sample, or drop a recording on this page.</p>
  <div data-part="curves" class="try-curves"></div>
  <p data-part="answer" class="try-answer"></p>
  <div class="try-two"><div data-part="early"></div><ol data-part="bars" class="try-bars"></ol></div>
  <div class="try-row" role="group" aria-label="Scent">
    <button data-part="play" disabled>Play the scent</button>
    <button data-part="mix" disabled>Play the mixture</button>
    <button data-part="stop" class="try-stop">Stop</button>
    <button data-part="connect">Use a real NeckWear</button>
    <span data-part="air" class="try-air" aria-live="polite">nothing is in the air</span></div>`;

const state = {busy: 0, smells: {}};
const say = (text) => { $("says").textContent = text; };
const complain = (why) => say(why.name === "NotFoundError" ? "No port was chosen." : why.hint ? `${why.message}. Try: ${why.hint}` : `${why.message ?? why}`);

// The network of these weights; "sample" is one whose last layer was fitted to the simulated samples.
async function smell(kind) {
  if (state.smells[kind]) return state.smells[kind];
  const get = async (name) => {
    const got = await fetch(new URL(name, here));
    if (!got.ok) throw new DataError(`${name} can't be read (${got.status})`, "reload the page");
    return name.endsWith("json") ? got.json() : got.arrayBuffer();
  };
  const folder = kind === "sample" ? "odour-same-session" : kind;
  const weights = await get(`${folder}.safetensors`), manifest = await get(`${folder}.json`);
  const head = kind === "sample" ? await get("sample.json") : null;
  return state.smells[kind] = new Smell(weights, manifest, head);
}

// A recording: it plays back in the page, and is recognised on the way

async function recognise(text, name, kind) {
  const mine = ++state.busy;
  disconnectBoard();
  clear();
  try {
    const encoder = await smell(kind), {rows, notes} = readRecording(text, encoder.columns);
    const answer = encoder.recording(rows), early = encoder.early(rows);
    say(`${name}: ${rows.length} rows, about ${Math.round(rows.length / 60)} minutes${notes.length ? `; ${notes.join(", ")}` : ""}`);
    const step = matchMedia("(prefers-reduced-motion: reduce)").matches ? rows.length : Math.ceil(rows.length / SHOWN);
    for (let end = step; mine === state.busy; end += step) {
      const until = early.filter((one) => one.rows <= end);
      draw(encoder, rows.slice(0, end), until, rows.length);
      if (end >= rows.length) break;
      if (until.length) show(encoder, until.at(-1), `after ${until.at(-1).rows} s`);
      await new Promise((resolve) => setTimeout(resolve, SPEED));
    }
    if (mine === state.busy) show(encoder, answer, decided(early, answer));
  } catch (why) {
    if (mine === state.busy) complain(why);
  }
}

function decided(early, answer) {
  const last = early.findLastIndex((one) => one.name !== answer.name);
  const since = early[last + 1];
  return since ? `the name did not change after ${since.rows} s` : "the whole recording";
}

function clear() {
  for (const part of ["curves", "answer", "early", "bars"]) $(part).textContent = "";
  state.answer = null;
  for (const part of ["play", "mix"]) $(part).disabled = true;
}

function show(encoder, answer, when) {
  state.answer = answer;
  const set = answer.set.length && !answer.reason.startsWith("not sure:") ? ` One of: ${answer.set.map(words).join(", ")} (90 %).` : "";
  const strong = document.createElement("strong"), rest = document.createElement("span");
  const kind = answer.category ? ` (${answer.category}, ${percent(answer.categoryConfidence)})` : "";
  strong.textContent = answer.name ? `${words(answer.name)}, ${percent(answer.confidence)}${kind}` : "no answer";
  rest.textContent = ` (${when}).${set}${answer.reason ? ` Nothing is played: ${words(answer.reason)}.` : ""}`;
  $("answer").replaceChildren(strong, rest);
  $("play").disabled = Boolean(answer.reason);
  $("mix").disabled = Boolean(answer.mixtureReason);
  $("bars").replaceChildren(...answer.beta.map((share, n) => {
    const bar = document.createElement("li");
    bar.style.setProperty("--share", `${100 * share}%`);
    bar.innerHTML = `<span>${words(SCENTS[n])}</span><i></i><b>${percent(share)}</b>`;
    return bar;
  }));
}

// Curves as SVG: rises of the six sensors, and the likeliest substances on the way

function draw(encoder, rows, early, total) {
  const series = encoder.columns.map((name, c) => {
    const all = rows.map((row) => row[c]), low = Math.min(...all), high = Math.max(...all);
    return {name: words(name), points: all.map((v, i) => [i, high > low ? (v - low) / (high - low) : 0.5]), note: `${low} to ${high}`};
  });
  $("curves").innerHTML = series.map((one, n) => `<figure>${chart([{...one, colour: COLOURS[n]}], total)}<figcaption>${one.name} <small>${one.note}</small></figcaption></figure>`).join("");
  if (!early.length) return;
  const last = early.at(-1).probabilities, best = ranked(last).slice(0, 3);
  const likely = best.map((c, n) => ({name: words(encoder.classes[c]), colour: COLOURS[n], points: early.map((one) => [one.rows, one.probabilities[c] ?? 0])}));
  $("early").innerHTML = `<figure class="try-axes"><b>1</b><b>0</b>${chart(likely, total, 120)}<b>0 s</b><b>${total} s</b><figcaption>Probability on the way: ${likely.map((one) => `<span style="color:${one.colour}">■</span> ${one.name}`).join(" ")}</figcaption></figure>`;
}

function chart(series, total, height = 46) {
  const line = ({points, colour}) => `<polyline stroke="${colour}" points="${points.map(([x, y]) => `${(300 * x / total).toFixed(1)},${((height - 4) * (1 - y) + 2).toFixed(1)}`).join(" ")}"/>`;
  return `<svg viewBox="0 0 300 ${height}" preserveAspectRatio="none" role="img" aria-label="${series.map((one) => one.name).join(", ")} over time">${series.map(line).join("")}</svg>`;
}

// The player

function inTheAir(scent) {
  $("air").textContent = scent ? `in the air: ${words(SCENTS[scent - 1])}` : "nothing is in the air";
  [...$("bars").children].forEach((bar, n) => bar.classList.toggle("on", n + 1 === scent));
}

function usePort(port, real) {
  state.port = port;
  state.player = new Player(port, {
    timing: real ? undefined : {...TIMING, gap: 0, stops: 1, idle: Infinity},
    tell: (text, scent) => { if (text) say(text); else if (real) inTheAir(scent); },
  });
  $("connect").textContent = real ? "Disconnect the NeckWear" : "Use a real NeckWear";
}

const useOwn = () => usePort(new VirtualPort(inTheAir), false);

async function connect() {
  if (state.port instanceof SerialPort) {
    await halt();
    await state.port.close();
    return useOwn();
  }
  if (!navigator.serial) return say(NO_SERIAL);
  try {
    const port = await navigator.serial.requestPort();
    await halt();
    usePort(await new SerialPort(port, lost).open(), true);
    say("Connected. Play wakes the player first, which takes 3 s. This link confirms nothing: look at the device.");
  } catch (why) {
    complain(why);
  }
}

function lost() {
  state.player.turn++;
  useOwn();
  inTheAir(0);
  say("The player is gone. A scent ends by itself within 10 s. Plug it in and connect again.");
}

const start = (plan) => state.player.run(plan).catch(complain);
const halt = () => state.player.stop().catch((why) => complain(why));

// A live board

function disconnectBoard() {
  state.board?.abort();
  state.board = null;
  $("board").textContent = "a live board";
}

async function sniff() {
  if (state.board) return disconnectBoard();
  if (!navigator.serial) return say(NO_SERIAL);
  let port;
  try {
    port = await navigator.serial.requestPort();
    await port.open({baudRate: BAUD});
    clear();
    state.busy++;
    state.board = new AbortController();
    $("board").textContent = "disconnect the board";
    await listen(port, state.board.signal);
    say("The board fell silent or was unplugged.");
  } catch (why) {
    complain(why);
  }
  disconnectBoard();
  await port?.close().catch(() => {});
}

async function listen(port, signal) {
  const encoder = await smell($("day").value), listener = new Listener(encoder), rows = [], early = [];
  const all = ["NO2", "C2H5OH", "VOC", "CO", "Alcohol", "LPG", "Benzene", "Temperature", "Pressure", "Humidity", "Gas_Resistance", "Altitude"];
  const placed = (header) => encoder.columns.map((name) => header.indexOf(name));
  let places = placed(all), width = all.length, dropped = 0, wrong = 0, outside = "", began = performance.now();
  for await (const cells of lines(port, signal)) {
    if (encoder.columns.every((name) => cells.includes(name))) {
      [places, width] = [placed(cells), cells.length];
      continue;
    }
    let row = null;
    try {
      if (cells.length === width) row = places.map((place, c) => number(cells[place], encoder.columns[c], listener.count + 1));
    } catch (why) {
      if (!(why instanceof DataError)) throw why;
      outside = `, the last one: ${why.message.replace(/^Line \d+, /, "")} (${why.hint})`;
      if (++wrong > 4) throw new DataError(`The board says what this nose can't${outside}`, "another board, converter or unit? `smellkit nose` describes yours");
    }
    if (!row) { dropped++; continue; }
    wrong = 0;
    rows.push(row);
    if (rows.length > 600) rows.shift();
    const answer = listener.add(row);
    if (answer) early.push({...answer, rows: listener.count});
    if (listener.count === 1) began = performance.now();
    const rate = 1000 * (listener.count - 1) / (performance.now() - began);
    const pace = listener.count > 20 && (rate < 0.7 || rate > 1.4) ? `; ${rate.toPrecision(2)} rows come a second where the weights know 1: their answers hold for a replay alone` : "";
    say(`${listener.count} rows${dropped ? `, ${dropped} lines dropped${outside}` : ""}${pace}${listener.count < encoder.span ? `: the first answer comes after ${encoder.span}` : ""}`);
    const before = listener.count - rows.length, recent = early.filter((one) => one.rows > before && one.probabilities.length);
    draw(encoder, rows, recent.map((one) => ({...one, rows: one.rows - before})), Math.max(rows.length, encoder.span));
    if (answer) show(encoder, answer, "now");
  }
}

// What the reader does

const on = (name, act) => $(name).addEventListener("click", act);
useOwn();
page.querySelectorAll("[data-sample]").forEach((button) => button.addEventListener("click", async () => {
  state.file = null;
  const got = await fetch(new URL(`${button.dataset.sample}.csv`, here));
  recognise(await got.text(), `A simulated recording of ${button.dataset.sample}`, "sample");
}));
const take = async (file) => {
  if (file) recognise(await file.text(), file.name, $("day").value);
  state.file = file ?? state.file;
};
page.querySelector("input").addEventListener("change", (event) => take(event.target.files[0]));
$("day").addEventListener("change", () => take(state.board ? null : state.file));  // a live board goes on with its own
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => { event.preventDefault(); take(event.dataTransfer.files[0]); });
on("play", () => start({slots: [{start: 0, scent: ranked(state.answer.beta)[0] + 1, seconds: 8}], end: 8}));
on("mix", () => start(render(state.answer.beta)));
on("stop", halt);
on("connect", connect);
on("board", sniff);
addEventListener("keydown", (event) => event.key === "Escape" && halt());
addEventListener("pagehide", halt);
document.addEventListener("visibilitychange", () => document.hidden && halt());
page.dataset.ready = "yes";
Object.assign(page, {recognise, smell});  // for tests
