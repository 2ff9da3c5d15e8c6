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
  const read = (at, count) => (own === rate ? raw(at, at + count) : resampled(raw, own / rate, at, count));
  async function* pieces(size) {
    for (let at = 0; at < length; at += size) yield read(at, Math.min(size, length - at));
  }
  return { length, read, pieces };
}

// Samples at `step` times the distance of those that `raw` gives, by a windowed sinc.
async function resampled(raw, step, at, count) {
  const wide = Math.max(1, step), reach = Math.ceil(ZEROS * wide);
  const first = Math.floor(at * step) - reach, last = Math.ceil((at + count) * step) + reach + 1;
  const from = await raw(first, last), out = new Float32Array(count), cut = 0.95 / wide;
  for (let i = 0; i < count; i++) {
    const place = (at + i) * step - first, low = Math.max(0, Math.ceil(place - reach));
    let sum = 0;
    for (let j = low; j <= Math.min(from.length - 1, place + reach); j++) {
      const x = place - j, angle = Math.PI * cut * x;
      const window = 0.5 + 0.5 * Math.cos((Math.PI * x) / reach);
      sum += from[j] * window * cut * (Math.abs(angle) < 1e-9 ? 1 : Math.sin(angle) / angle);
    }
    out[i] = sum;
  }
  return out;
}
