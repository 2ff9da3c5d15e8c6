"use strict";
// Only one player plays at a time. The players of a row are versions of one recording and share their position.

const players = [...document.querySelectorAll(".player")].map((element) => ({
  element,
  row: element.closest(".row"),
  audio: element.querySelector("audio"),
  button: element.querySelector("button"),
  position: element.querySelector("input"),
  name: element.querySelector("audio").getAttribute("aria-label"),
  source: element.querySelector("audio").src,
  local: null, // object URL of the recording once it is in memory
}));
let current = null;
let frame = 0; // id of the pending animation frame, which moves the playhead

const rowOf = (player) => players.filter((other) => other.row === player.row);
const playing = () => current !== null && !current.audio.paused;

function choose(player, seconds) {
  if (current === player) {
    if (seconds !== undefined) seek(player, seconds);
    return;
  }
  const before = current;
  current = player; // set before pausing the other player, whose pause event reads it
  if (before) {
    const alike = before.row === player.row && Math.abs(before.position.max - player.position.max) < 0.1;
    if (seconds === undefined && alike && !before.audio.ended) seconds = before.audio.currentTime;
    before.audio.pause();
    before.element.classList.remove("current");
    show(before); // no pause event comes once the recording is released
  }
  if (before?.row !== player.row) {
    if (before) rowOf(before).forEach(release);
    rowOf(player).forEach(load); // so that switching is instant
  }
  player.element.classList.add("current");
  seek(player, seconds ?? 0);
}

function seek({ audio, local }, seconds) {
  if (local && audio.src !== local) audio.src = local;
  audio.currentTime = seconds;
}

// Some servers, such as `python -m http.server`, do not support range requests, so seeking needs the file in memory.
async function load(player) {
  if (!location.protocol.startsWith("http")) {
    player.audio.preload = "auto"; // local files allow seeking, but cannot be fetched
    return;
  }
  const recording = await (await fetch(player.source)).blob();
  if (current?.row === player.row) player.local ??= URL.createObjectURL(recording);
}

// Browsers limit how many players can be loaded on a page; on phones the limit is about forty.
function release(player) {
  const { audio, local, position, source } = player;
  if (local) URL.revokeObjectURL(local);
  player.local = null;
  audio.preload = "none";
  audio.src = source;
  position.value = 0;
}

function play(player, seconds) {
  choose(player, seconds);
  player.audio.play().catch((error) => {
    if (error.name !== "AbortError") player.element.classList.add("failed"); // AbortError: paused before it started
  });
}

function toggle(player) {
  if (player === current && playing()) player.audio.pause();
  else play(player);
}

function show(player) {
  const on = player === current && playing();
  player.element.classList.toggle("playing", on);
  player.button.setAttribute("aria-label", `${on ? "Pause" : "Play"} ${player.name}`);
  if (on) follow();
}

function follow() {
  if (!current) return;
  cancelAnimationFrame(frame);
  current.position.value = current.audio.currentTime;
  if (playing()) frame = requestAnimationFrame(follow);
}

for (const player of players) {
  const { audio, button, position } = player;
  audio.controls = false;
  audio.hidden = true;
  button.hidden = position.hidden = false;
  button.addEventListener("click", () => toggle(player));
  position.addEventListener("input", () => choose(player, Number(position.value)));
  position.addEventListener("change", () => play(player, Number(position.value)));
  audio.addEventListener("play", () => choose(player)); // media keys can start it too
  for (const event of ["playing", "pause", "ended"]) audio.addEventListener(event, () => show(player));
  audio.addEventListener("error", () => player.element.classList.add("failed"));
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, a, .table")) return;
  const focused = players.find(({ button }) => button === event.target);
  const here = focused ?? current;
  if (!here) return;
  const row = rowOf(here);
  const column = row.indexOf(here);
  let next = null;
  if (event.key === " " && !focused) {
    toggle(here);
    event.preventDefault();
  } else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    next = row[(column + (event.key === "ArrowLeft" ? row.length - 1 : 1)) % row.length];
  } else if (focused && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
    const rows = [...new Set(players.map((player) => player.row))];
    const other = rows[rows.indexOf(here.row) + (event.key === "ArrowUp" ? -1 : 1)];
    const there = players.filter((player) => player.row === other);
    next = there[Math.min(column, there.length - 1)] ?? null;
  }
  if (!next) return;
  event.preventDefault();
  next.button.focus();
  next.element.scrollIntoView({ block: "nearest" });
  if (playing()) play(next);
});
