// The page: what people choose, hear and see. The codec runs in worker.js.

import { draw } from "./spectrogram.js";
import { record } from "./recorder.js";

const MOST_DECODED = 200e6; // bytes of a file that the browser has to decode as a whole; wav files have no limit
const find = (selector) => document.querySelector(selector);
const of = (kind, part) => find(`${kind}[data-part="${part}"]`);
const size = (bytes) => (bytes < 1e6 ? `${(bytes / 1000).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(2)} MB`);
const HALVES = ["speech", "background"];

let worker, model, file, stopRecording;
const urls = {};
const page = { results: null, milliseconds: {} }; // what tests look at
window.page = page;

// --- what the page says ---

function say(text) {
  find("#status").textContent = text;
}

function complain(text) {
  find("#error").textContent = text;
  busy(false);
  if (text) say("");
}

function busy(coding) {
  find("#progress").hidden = find("#cancel").hidden = !coding;
}

// --- the codec ---

// Whether the browser has WebAssembly with SIMD: the smallest module with an instruction of it.
function hasSimd() {
  const code = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
  return typeof WebAssembly === "object" && WebAssembly.validate(new Uint8Array(code));
}

function start() {
  if (!hasSimd()) return complain("This browser is too old for the codec: it lacks WebAssembly with SIMD. Please update it.");
  worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }) => answers[data.kind](data);
  worker.onerror = () => complain("The codec could not be started. Load the page again; if that does not help, update the browser.");
  worker.postMessage({ kind: "load" });
}

const answers = {
  ready({ description, threads }) {
    model = description;
    page.threads = threads;
    HALVES.forEach((half, i) => {
      const slider = find(`#levels_${half}`);
      slider.max = slider.value = model.levels[i];
    });
    showRates();
    find("#record").disabled = false;
    say("Ready.");
  },
  started({ seconds }) {
    say(`Coding ${seconds.toFixed(1)} s of sound…`);
    find("#results").hidden = false;
    for (const canvas of document.querySelectorAll("canvas")) canvas.width = 0;
  },
  progress({ done }) {
    find("#progress").value = done;
  },
  first({ milliseconds }) {
    page.milliseconds.first = milliseconds;
  },
  columns({ part, first, columns, count }) {
    draw(of("canvas", part), first, columns, count);
  },
  part({ name, file }) {
    const audio = of("audio", name), link = of("a", name), at = audio.currentTime;
    replaceUrl(name, file);
    audio.src = urls[name];
    if (at) audio.currentTime = at;
    if (link) link.href = urls[name];
    page[name] = file;
  },
  done({ tokens, levels, milliseconds, length }) {
    replaceUrl("dcc", tokens);
    find("#dcc").href = urls.dcc;
    page.dcc = tokens;
    page.milliseconds.all = milliseconds;
    page.results = levels.join();
    showSizes(tokens.size, length);
    busy(false);
    say(`Done in ${(milliseconds / 1000).toFixed(1)} s.`);
  },
  cancelled() {
    busy(false);
    say("Stopped.");
  },
  error({ text }) {
    complain(text);
  },
};

function replaceUrl(name, file) {
  if (urls[name]) URL.revokeObjectURL(urls[name]);
  urls[name] = URL.createObjectURL(file);
}

const levels = () => HALVES.map((half) => Number(find(`#levels_${half}`).value));

function showRates() {
  HALVES.forEach((half, i) => {
    const bits = Math.ceil(Math.log2(model.entries[i])) * (model.sample_rate / model.hop);
    find(`#rate_${half}`).textContent = `${((levels()[i] * bits) / 1000).toFixed(1)} kbit/s`;
  });
}

function showSizes(tokens, length) {
  const seconds = length / model.sample_rate;
  const rows = [
    ["Tokens (.dcc)", tokens], ["mp3 at 64 kbit/s, about", 8000 * seconds], ["wav at 16 kHz", 44 + 2 * length],
    ["wav at 44.1 kHz, two channels", 44 + 176400 * seconds],
  ];
  find("#sizes").replaceChildren(...rows.map(([name, bytes]) => {
    const row = document.createElement("tr"), head = document.createElement("th"), cell = document.createElement("td");
    [head.scope, head.textContent, cell.textContent] = ["row", name, size(bytes)];
    row.append(head, cell);
    return row;
  }));
}

function code(what) {
  page.results = null;
  find("#progress").value = 0;
  busy(true);
  say("Measuring how loud the recording is…");
  worker.postMessage({ kind: "code", levels: levels(), ...what });
}

// --- recordings ---

async function take(chosen) {
  complain("");
  if (!model) return complain("The model is not loaded yet. Wait a moment and choose the recording again.");
  if (!chosen) return;
  if (!chosen.size) return complain(`${chosen.name} is empty.`);
  if (chosen.type.startsWith("video/")) return complain(`${chosen.name} is a video. Save its sound as wav, flac or mp3 first.`);
  file = chosen;
  const head = new TextDecoder("latin1").decode(await chosen.slice(0, 12).arrayBuffer());
  if (head.startsWith("RIFF") && head.endsWith("WAVE")) {
    const { wavForm } = await import("./wav.js");
    if (await wavForm(chosen)) return code({ file });
  }
  if (chosen.size > MOST_DECODED)
    return complain(`${chosen.name} is larger than ${size(MOST_DECODED)}. Save it as wav: wav files may have any length.`);
  say(`Reading ${chosen.name}…`);
  try {
    const context = new OfflineAudioContext(1, 1, model.sample_rate); // which resamples too
    const sound = await context.decodeAudioData(await chosen.arrayBuffer());
    const samples = new Float32Array(sound.length);
    for (let channel = 0; channel < sound.numberOfChannels; channel++) {
      const own = sound.getChannelData(channel);
      for (let i = 0; i < own.length; i++) samples[i] += own[i] / sound.numberOfChannels;
    }
    code({ samples: { samples, rate: sound.sampleRate } });
  } catch {
    complain(`${chosen.name} holds no sound that this browser can read. wav, flac and mp3 work everywhere.`);
  }
}

async function toggleRecording() {
  const button = find("#record");
  if (stopRecording) {
    const samples = await stopRecording();
    stopRecording = null;
    button.textContent = "Record";
    return samples.samples.length ? code({ samples }) : complain("The microphone gave no sound.");
  }
  complain("");
  try {
    stopRecording = await record();
    button.textContent = "Stop recording";
    say("Recording…");
  } catch (error) {
    complain(error.message);
  }
}

// --- the mix: speech and background at once, each as loud as its slider says ---

let mixer;

function startMix() {
  const context = new AudioContext();
  const players = HALVES.map((half) => {
    const audio = new Audio(urls[half]), gain = context.createGain();
    context.createMediaElementSource(audio).connect(gain).connect(context.destination);
    return { audio, gain, half };
  });
  mixer = { context, players };
  applyGains();
  players[0].audio.onended = stopMix;
  for (const { audio } of players) audio.play();
  showMix();
}

function stopMix() {
  for (const { audio } of mixer?.players ?? []) audio.pause();
  mixer?.context.close();
  mixer = null;
  showMix();
}

function showMix() {
  find("#mix").textContent = mixer ? "Stop the mix" : "Play the mix";
  find("#mix").setAttribute("aria-pressed", String(Boolean(mixer)));
}

function applyGains() {
  for (const { gain, half } of mixer?.players ?? []) gain.gain.value = Number(find(`#gain_${half}`).value);
}

// --- what people do ---

find("#file").addEventListener("change", ({ target }) => {
  take(target.files[0]);
  target.value = ""; // so that the same file may be chosen again
});
find("#record").addEventListener("click", toggleRecording);
find("#cancel").addEventListener("click", () => worker.postMessage({ kind: "cancel" }));
find("#mix").addEventListener("click", () => (mixer ? stopMix() : startMix()));
for (const half of HALVES) {
  find(`#gain_${half}`).addEventListener("input", applyGains);
  find(`#levels_${half}`).addEventListener("input", showRates);
  find(`#levels_${half}`).addEventListener("change", () => {
    if (mixer) stopMix();
    page.results = null;
    busy(true);
    worker.postMessage({ kind: "decode", levels: levels() });
  });
}
const target = find("#drop");
for (const name of ["dragover", "dragleave", "drop"])
  target.addEventListener(name, (event) => {
    event.preventDefault();
    target.classList.toggle("over", name === "dragover");
    if (name === "drop") take(event.dataTransfer.files[0]);
  });
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());

start();
navigator.serviceWorker?.register("offline.js").catch(() => {}); // without it the page works, but not offline
