// The codec, off the page's thread: reads a recording in pieces, codes each, decodes its parts, and keeps what is asked
// for as Blobs, which the browser may put on disk. So memory does not grow with the length of the recording.

import * as ort from "./runtime/ort.wasm.min.mjs";
import { gainOf, amplitude } from "./loudness.js";
import { openSource } from "./source.js";
import { dccFile } from "./dcc.js";
import { column } from "./spectrogram.js";
import { wavFile, to16Bit } from "./wav.js";

const FRAMES = 100; // of a piece: 2 s
const LISTENED = 60; // s at a time, when the whole is measured: few reads, as each takes some milliseconds
const PARTS = ["reconstruction", "speech", "background"];
const COLUMNS = 640; // of a spectrogram
let model, coded, levels;
let wanted = 0; // counts requests: older ones stop at their next piece
let coding = 0; // the request that makes codes, which new levels do not stop

onmessage = async ({ data }) => {
  levels = data.levels ?? levels;
  if (data.kind === "decode" && coding === wanted) return;
  const request = ++wanted;
  const current = () => request === wanted;
  if (data.kind === "cancel") return postMessage({ kind: "cancelled" });
  try {
    if (data.kind === "load") await load();
    if (data.kind === "code") await code(data, current);
    if (data.kind === "decode") await decode(current);
  } catch (error) {
    coding = 0;
    if (current()) postMessage({ kind: "error", text: sentence(error) });
  }
};

// Lets messages in, such as the one that stops this; the codec itself waits for nothing.
const messages = () => new Promise((resolve) => setTimeout(resolve));

const sentence = (error) =>
  error.plain || (/memory|allocation/i.test(error.message) ? "This device has too little free memory for the codec."
    : `The codec stopped: ${error.message}`);

function plain(text) {
  return Object.assign(new Error(text), { plain: text });
}

async function load() {
  const get = async (name) => {
    const answer = await fetch(new URL(`model/${name}`, import.meta.url));
    if (!answer.ok) throw plain(`The page lacks the file model/${name}. Build it again with: decodec demo --build`);
    return new Uint8Array(await answer.arrayBuffer());
  };
  const description = JSON.parse(new TextDecoder().decode(await get("model.json")));
  const names = ["encode_step.onnx", "decode_step.onnx", "weights.bin"];
  const [encoder, decoder, weights] = await Promise.all(names.map(get));
  for (const [i, data] of [encoder, decoder, weights].entries()) {
    const size = description.files[names[i]].bytes;
    if (data.length !== size)
      throw plain(`The model file ${names[i]} is incomplete: ${data.length} of ${size} bytes. Load the page again.`);
  }
  ort.env.wasm.wasmPaths = new URL("runtime/", import.meta.url).href;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
  const session = (graph) =>
    ort.InferenceSession.create(graph, { externalData: [{ path: "weights.bin", data: weights }] });
  model = { ...description, encoder: await session(encoder), decoder: await session(decoder) };
  postMessage({ kind: "ready", description, threads: ort.env.wasm.numThreads });
}

// The zeros that begin a stream of so many recordings side by side.
function zeros(step, batch) {
  const state = {};
  for (const [name, shape] of Object.entries(model.zero_state[step])) {
    const sizes = [...shape];
    sizes[sizes.length === 4 ? 2 : 0] = batch; // an LSTM's carry has its batch third
    state[name] = new ort.Tensor("float32", new Float32Array(sizes.reduce((a, b) => a * b)), sizes);
  }
  return state;
}

const carried = (outputs, state) =>
  Object.fromEntries(Object.keys(state).map((name) => [name, outputs[name.replace("state", "next")]]));

// A recording to codes: of itself and, beside it, of silence, which takes the place of a part that is left out. What is
// coded is decoded at once, so that it can be heard while the rest is coded.
async function code({ file, samples }, current) {
  coding = wanted;
  coded = null;
  const source = await openSource(file, samples, model.sample_rate);
  const { hop, lookahead } = model, frames = Math.ceil(source.length / hop);
  const pass = source.pieces(LISTENED * model.sample_rate);
  const gain = await gainOf(pass, model.sample_rate, model.coded_at_db, current);
  if (!current()) return;
  const codes = PARTS.slice(1).map((_, i) => new Uint16Array(frames * model.levels[i]));
  const blank = codes.map((own) => new Uint16Array(own.length));
  const original = [];
  let state = zeros("encode_step", 2), given = 0, sound;
  const louder = amplitude(gain);
  const recording = { codes, blank, gain, frames, length: source.length };
  postMessage({ kind: "started", seconds: source.length / model.sample_rate });
  for (let at = 0; given < frames; at += FRAMES) {
    await messages();
    if (!current()) return;
    const count = Math.min(FRAMES, frames + lookahead - at);
    const wave = await source.read(at * hop, count * hop);
    const kept = wave.subarray(0, Math.max(0, Math.min(wave.length, source.length - at * hop)));
    original.push(new Blob([to16Bit(kept)]));
    show("original", kept, at * hop, source.length);
    const both = new Float32Array(2 * wave.length);
    for (let i = 0; i < wave.length; i++) both[i] = wave[i] * louder;
    const outputs = await model.encoder.run({ wave: new ort.Tensor("float32", both, [2, wave.length]), ...state });
    state = carried(outputs, state);
    const early = Math.max(0, lookahead - at); // codes of no frame
    for (const [i, part] of PARTS.slice(1).entries()) {
      const made = outputs[part].data, k = model.levels[i];
      for (let level = 0; level < k; level++)
        for (let n = early; n < count; n++) {
          codes[i][(given + n - early) * k + level] = Number(made[level * count + n]);
          blank[i][(given + n - early) * k + level] = Number(made[(k + level) * count + n]);
        }
    }
    given += count - early;
    sound = await decoded(recording, given, current, sound);
    if (!current()) return;
  }
  coded = recording;
  postMessage({ kind: "part", name: "original", file: wavFile(original, source.length, model.sample_rate) });
  coding = 0;
  await decode(current, sound);
}

// All of the codes to sound, or what is missing of it, and to a file.
async function decode(current, begun) {
  if (!coded) return postMessage({ kind: "cancelled" });
  const { kept, pieces } = await decoded(coded, coded.frames, current, begun);
  if (!current()) return;
  for (const [row, name] of PARTS.entries())
    postMessage({ kind: "part", name, file: wavFile(pieces[row], coded.length, model.sample_rate) });
  const file = await dccFile(model, coded, kept);
  postMessage({ kind: "done", tokens: file, levels: kept, length: coded.length });
}

// The sound of the first so many frames, whole and in parts: what an earlier call began, or anew for other levels. Fewer
// levels give a lower bitrate; -1 leaves a level out.
async function decoded(recording, frames, current, sound) {
  if (sound?.kept !== levels)
    sound = { kept: levels, at: 0, pieces: PARTS.map(() => []), state: zeros("decode_step", PARTS.length) };
  const { kept, pieces } = sound, { hop } = model, { length } = recording, quieter = amplitude(-recording.gain);
  while (sound.at < frames) {
    await messages();
    if (!current()) break;
    const at = sound.at, count = Math.min(FRAMES, frames - at), inputs = {};
    for (const [i, part] of PARTS.slice(1).entries()) {
      const k = model.levels[i], values = new BigInt64Array(PARTS.length * k * count);
      for (let row = 0; row < PARTS.length; row++) {
        const silent = row > 0 && row !== i + 1, from = silent ? recording.blank[i] : recording.codes[i];
        for (let level = 0; level < k; level++)
          for (let n = 0; n < count; n++)
            values[(row * k + level) * count + n] =
              silent || level < kept[i] ? BigInt(from[(at + n) * k + level]) : -1n;
      }
      inputs[part] = new ort.Tensor("int64", values, [PARTS.length, k, count]);
    }
    const outputs = await model.decoder.run({ ...inputs, ...sound.state });
    sound.state = carried(outputs, sound.state);
    const wave = outputs.wave.data, size = count * hop, there = Math.min(size, length - at * hop);
    for (const [row, part] of PARTS.entries()) {
      const samples = wave.slice(row * size, row * size + there).map((x) => x * quieter);
      pieces[row].push(new Blob([to16Bit(samples)]));
      show(part, samples, at * hop, length);
    }
    postMessage({ kind: "piece", first: at === 0, halves: pieces.slice(1).map((own) => own.at(-1)) });
    sound.at += count;
    postMessage({ kind: "progress", done: sound.at / recording.frames });
  }
  return sound;
}

// The columns of a picture of the whole recording that lie within a piece of it.
function show(part, samples, at, length) {
  const first = Math.ceil((at / length) * COLUMNS), last = Math.ceil(((at + samples.length) / length) * COLUMNS);
  const columns = [];
  for (let i = first; i < Math.min(last, COLUMNS); i++)
    columns.push(column(samples, Math.round((i * length) / COLUMNS) - at));
  if (columns.length) postMessage({ kind: "columns", part, first, columns, count: COLUMNS });
}
