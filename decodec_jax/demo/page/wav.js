// wav files: 16-bit mono out, and the forms that recorders write in.

export function to16Bit(samples) {
  const whole = new Int16Array(samples.length);
  for (let i = 0; i < samples.length; i++) whole[i] = Math.max(-32768, Math.min(32767, Math.round(32768 * samples[i])));
  return whole;
}

// A wav file of 16-bit samples, given in Blobs.
export function wavFile(pieces, length, rate) {
  const head = new DataView(new ArrayBuffer(44));
  const text = (at, word) => [...word].forEach((letter, i) => head.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF"); head.setUint32(4, 36 + 2 * length, true); text(8, "WAVEfmt "); head.setUint32(16, 16, true);
  head.setUint16(20, 1, true); head.setUint16(22, 1, true); head.setUint32(24, rate, true);
  head.setUint32(28, 2 * rate, true); head.setUint16(32, 2, true); head.setUint16(34, 16, true);
  text(36, "data"); head.setUint32(40, 2 * length, true);
  return new Blob([head, ...pieces], { type: "audio/wav" });
}

// Where the samples of a wav file lie and in which form: null for what is no wav file of a known form.
export async function wavForm(file) {
  const text = (view, at) => String.fromCharCode(...[0, 1, 2, 3].map((i) => view.getUint8(at + i)));
  const part = async (at, size) => new DataView(await file.slice(at, at + size).arrayBuffer());
  const head = await part(0, 12);
  if (head.byteLength < 12 || text(head, 0) !== "RIFF" || text(head, 8) !== "WAVE") return null;
  let form = null;
  for (let at = 12; at + 8 <= file.size; ) {
    const chunk = await part(at, 8 + 40), name = text(chunk, 0), size = chunk.getUint32(4, true);
    if (name === "fmt ") {
      const kind = chunk.getUint16(8, true), bits = chunk.getUint16(22, true);
      const code = kind === 0xfffe ? chunk.getUint16(32, true) : kind;
      form = { float: code === 3, channels: chunk.getUint16(10, true), rate: chunk.getUint32(12, true), bytes: bits / 8 };
      if (!form.channels || !form.rate) return null;
      if (!(code === 1 && [1, 2, 3, 4].includes(form.bytes)) && !(code === 3 && form.bytes === 4)) return null;
    }
    if (name === "data" && form) {
      const width = form.channels * form.bytes;
      return { ...form, at: at + 8, length: Math.floor(Math.min(size, file.size - at - 8) / width), width };
    }
    at += 8 + size + (size % 2);
  }
  return null;
}

// Samples first to last - 1, mixed down to one channel, as -1 to 1.
export async function wavSamples(file, form, first, last) {
  const data = new DataView(await file.slice(form.at + first * form.width, form.at + last * form.width).arrayBuffer());
  const mono = new Float32Array(last - first);
  const read = [
    (at) => (data.getUint8(at) - 128) / 128,
    (at) => data.getInt16(at, true) / 32768,
    (at) => ((data.getUint16(at, true) | (data.getInt8(at + 2) << 16)) / 8388608),
    form.float ? (at) => data.getFloat32(at, true) : (at) => data.getInt32(at, true) / 2147483648,
  ][form.bytes - 1];
  for (let i = 0; i < mono.length; i++) {
    let sum = 0;
    for (let channel = 0; channel < form.channels; channel++) sum += read(i * form.width + channel * form.bytes);
    mono[i] = sum / form.channels;
    if (!Number.isFinite(sum))
      throw Object.assign(new Error(), { plain: "This recording contains samples that are not finite numbers." });
  }
  return mono;
}
