// A recording, one channel at the model's rate, from which pieces are read: a wav file straight from the disk, whatever
// its length, or samples that the browser has decoded.

import { wavForm, wavSamples } from "./wav.js";

const ZEROS = 24; // zero crossings of the resampling filter on either side

export async function openSource(file, decoded, rate) {
  const form = file && !decoded ? await wavForm(file) : null;
  const own = form ? form.rate : decoded.rate, there = form ? form.length : decoded.samples.length;
  const length = Math.ceil((there * rate) / own);
  if (!length) throw Object.assign(new Error(), { plain: "This recording is empty: it has no samples." });
  // samples first to last - 1 at the recording's own rate; silence where there are none
  const raw = async (first, last) => {
    const from = Math.max(0, first), to = Math.min(there, last), all = new Float32Array(last - first);
    if (to > from)
      all.set(form ? await wavSamples(file, form, from, to) : decoded.samples.subarray(from, to), from - first);
    return all;
  };
  const read = own === rate ? (at, count) => raw(at, at + count) : resampler(raw, own, rate);
  async function* pieces(size) {
    for (let at = 0; at < length; at += size) yield read(at, Math.min(size, length - at));
  }
  return { length, read, pieces };
}

// Samples at another rate, by a windowed sinc. Between the samples of the one rate, those of the other take only so many
// places, and the weights of each are computed once.
function resampler(raw, own, rate) {
  const common = divisor(own, rate), down = own / common, up = rate / common; // sample n is at n * down / up
  const wide = Math.max(1, down / up), reach = Math.ceil(ZEROS * wide), cut = 0.95 / wide;
  const weight = (x) => {
    const angle = Math.PI * cut * x, window = 0.5 + 0.5 * Math.cos((Math.PI * x) / reach);
    return window * cut * (Math.abs(angle) < 1e-9 ? 1 : Math.sin(angle) / angle);
  };
  const weights = Array.from({ length: up }, (_, place) =>
    Float32Array.from({ length: 2 * reach }, (_, i) => weight(place / up + reach - 1 - i)));
  return async (at, count) => {
    const first = Math.floor((at * down) / up) - reach + 1, last = Math.floor(((at + count) * down) / up) + reach + 1;
    const from = await raw(first, last), out = new Float32Array(count);
    for (let i = 0; i < count; i++) {
      const place = (at + i) * down, begin = Math.floor(place / up) - reach + 1 - first, its = weights[place % up];
      let sum = 0;
      for (let j = 0; j < its.length; j++) sum += from[begin + j] * its[j];
      out[i] = sum;
    }
    return out;
  };
}

const divisor = (a, b) => (b ? divisor(b, a % b) : a);
