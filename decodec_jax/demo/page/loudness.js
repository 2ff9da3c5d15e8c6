// The gain that brings a recording to the level at which it is coded, as decodec_jax/inference/loudness.py measures it.

const BLOCK = 0.4; // s
const SILENCE = 1e-7; // power
const PAUSE = 0.1; // of the mean power of blocks that are not silent
const GAINS = [-20, 40]; // dB

export const amplitude = (decibels) => 10 ** (decibels / 20);

// Of pieces of any lengths, dB in single precision. `current` says whether anybody still waits for it.
export async function gainOf(pieces, rate, level, current) {
  const size = Math.round(BLOCK * rate), blocks = [];
  let sum = 0, count = 0;
  for await (const piece of pieces) {
    if (!current()) return 0;
    for (const sample of piece) {
      sum += sample * sample;
      if (++count === size) {
        blocks.push([sum / count, count]);
        sum = count = 0;
      }
    }
  }
  if (count) blocks.push([sum / count, count]);
  const heard = blocks.filter(([power]) => power > SILENCE);
  if (!heard.length) return 0;
  const mean = (some) =>
    some.reduce((total, [power, n]) => total + power * n, 0) / some.reduce((total, [, n]) => total + n, 0);
  const loud = mean(heard.filter(([power]) => power > PAUSE * mean(heard)));
  return Math.fround(Math.min(GAINS[1], Math.max(GAINS[0], level - 10 * Math.log10(loud))));
}
