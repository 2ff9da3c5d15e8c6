// The page: what people choose, hear and see. The codec runs in worker.js.

import { draw } from "./spectrogram.js";
import { record } from "./recorder.js";
import { play } from "./player.js";
import { wavForm } from "./wav.js";

// of a file that the browser has to decode as a whole; wav files have no limit
const MOST_DECODED = 200e6; // bytes
const LONGEST_DECODED = 3600; // s
const find = (selector) => document.querySelector(selector);
const of = (kind, part) => find(`${kind}[data-part="${part}"]`);
const size = (bytes) => (bytes < 1e6 ? `${(bytes / 1000).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(2)} MB`);
const HALVES = ["speech", "background"];

let worker, model, stopRecording;
let choices = 0; // of recordings, made so far: what is read for an earlier one comes too late
let begun; // when people chose what is coded, as performance.now() says
let sound; // speech and background, as far as they are coded
const urls = {};
const page = { results: null, milliseconds: {} }; // what tests look at
window.page = page;

// --- what the page says ---

function say(text) {
  find("#status").textContent = text;
}

function complain(text) {
  find("#error").textContent = text;
  if (text) say("");
}

function busy(coding) {
  if (sound && !coding) sound.whole = true;
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
  worker.onerror = () =>
    answers.error({ text: "The codec could not be started. Load the page again; if that does not help, update the browser." });
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
    for (const audio of document.querySelectorAll("audio")) {
      audio.removeAttribute("src");
      audio.load();
    }
    for (const link of document.querySelectorAll("#results a")) link.removeAttribute("href");
    find("#sizes").replaceChildren();
  },
  progress({ done }) {
    find("#progress").value = done;
  },
  piece({ first, halves }) {
    if (first) {
      sound = { pieces: [], whole: false };
      page.milliseconds.first = performance.now() - begun;
      find("#mix").disabled = false;
      say("Coding the rest… You can already play the mix.");
    }
    sound.pieces.push(halves);
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
  done({ tokens, levels, length }) {
    replaceUrl("dcc", tokens);
    find("#dcc").href = urls.dcc;
    page.dcc = tokens;
    page.milliseconds.all = performance.now() - begun;
    page.results = levels.join();
    showSizes(tokens.size, length);
    busy(false);
    say(`Done in ${(page.milliseconds.all / 1000).toFixed(1)} s.`);
  },
  cancelled() {
    busy(false);
    say("Stopped.");
  },
  error({ text }) {
    busy(false);
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
  stopMix();
  find("#mix").disabled = true;
  find("#progress").removeAttribute("value"); // nobody knows how long it takes to read the recording
  busy(true);
  say("Measuring how loud the recording is…");
  worker.postMessage({ kind: "code", levels: levels(), ...what });
}

// --- recordings ---

async function take(chosen) {
  if (!worker || !chosen) return;
  const choice = ++choices, replaced = () => choice !== choices;
  complain("");
  if (!model) return complain("The model is not loaded yet. Wait a moment and choose the recording again.");
  begun = performance.now();
  if (!chosen.size) return complain(`${chosen.name} is empty.`);
  if (chosen.type.startsWith("video/")) return complain(`${chosen.name} is a video. Save its sound as wav, flac or mp3 first.`);
  say(`Reading ${chosen.name}…`);
  try {
    const isWav = await wavForm(chosen);
    if (replaced()) return;
    if (isWav) return code({ file: chosen });
    const tooLong = (await secondsOf(chosen)) > LONGEST_DECODED;
    if (replaced()) return;
    if (tooLong || chosen.size > MOST_DECODED)
      return complain(`${chosen.name} is ${tooLong ? "longer than an hour" : `larger than ${size(MOST_DECODED)}`}. `
        + "Save it as wav: wav files may have any length.");
    const context = new OfflineAudioContext(1, 1, model.sample_rate); // which resamples too
    const read = await context.decodeAudioData(await chosen.arrayBuffer());
    if (replaced()) return;
    const samples = new Float32Array(read.length);
    for (let channel = 0; channel < read.numberOfChannels; channel++) {
      const own = read.getChannelData(channel);
      for (let i = 0; i < own.length; i++) samples[i] += own[i] / read.numberOfChannels;
    }
    code({ samples: { samples, rate: read.sampleRate } });
  } catch {
    if (!replaced()) complain(`${chosen.name} holds no sound that this browser can read. wav, flac and mp3 work everywhere.`);
  }
}

// How long a recording is, if the browser can tell from its beginning, else 0.
async function secondsOf(chosen) {
  const audio = new Audio(), url = URL.createObjectURL(chosen);
  const known = new Promise((resolve) => {
    audio.onloadedmetadata = () => resolve(audio.duration);
    audio.onerror = () => resolve(0);
    setTimeout(resolve, 2000, 0); // some browsers read nothing before somebody presses play
  });
  audio.src = url;
  const seconds = await known;
  URL.revokeObjectURL(url);
  return Number.isFinite(seconds) ? seconds : 0;
}

async function toggleRecording() {
  const button = find("#record");
  choices++;
  button.disabled = true; // a second press before the browser has answered would open a second microphone
  try {
    if (stopRecording) {
      begun = performance.now();
      const samples = await stopRecording();
      stopRecording = null;
      button.textContent = "Record";
      if (samples.samples.length) code({ samples });
      else complain("The microphone gave no sound.");
    } else {
      complain("");
      stopRecording = await record();
      button.textContent = "Stop recording";
      say("Recording…");
    }
  } catch (error) {
    complain(error.message);
  } finally {
    button.disabled = false;
  }
}

// --- the mix: speech and background at once, each as loud as its slider says ---

let mixer;

function startMix() {
  page.mixer = mixer = play(sound, HALVES.length, model.sample_rate, stopMix);
  applyGains();
  showMix();
}

function stopMix() {
  mixer?.context.close();
  mixer = null;
  showMix();
}

function showMix() {
  find("#mix").textContent = mixer ? "Stop the mix" : "Play the mix";
  find("#mix").setAttribute("aria-pressed", String(Boolean(mixer)));
}

function applyGains() {
  for (const [i, { gain }] of mixer?.gains.entries() ?? []) gain.value = Number(find(`#gain_${HALVES[i]}`).value);
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
    stopMix();
    begun = performance.now();
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
if (navigator.serviceWorker?.controller) // it has just shown the version that it kept
  navigator.serviceWorker.addEventListener("controllerchange", () => say("There is a new version of this page. Load it again to use it."));
navigator.serviceWorker?.register("offline.js").catch(() => {}); // without it the page works, but not offline
