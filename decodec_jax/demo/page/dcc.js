// The .dcc file, as docs/container.md specifies it, in blocks of one second.

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let i = 0; i < 8; i++) byte = byte & 1 ? (byte >>> 1) ^ 0xedb88320 : byte >>> 1;
  return byte >>> 0;
});

function crc32(...parts) {
  let value = 0xffffffff;
  for (const part of parts) for (const byte of part) value = (value >>> 8) ^ TABLE[(value ^ byte) & 255];
  return (value ^ 0xffffffff) >>> 0;
}

function bytes(size, write) {
  const view = new DataView(new ArrayBuffer(size));
  write(view);
  return new Uint8Array(view.buffer);
}

const number = (value) => bytes(4, (view) => view.setUint32(0, value, true));
const codeBits = (entries) => 32 - Math.clz32(entries - 1);

// coded: codes [frame * levels + level] of both streams; levels: how many of each to keep.
export async function dccFile(model, coded, levels) {
  const { sample_rate: rate, hop } = model, blockFrames = Math.max(1, Math.round(rate / hop));
  const form = bytes(40, (view) => {
    [0x89, 0x44, 0x43, 0x43, 1, 0, levels[0], levels[1]].forEach((byte, i) => view.setUint8(i, byte));
    [...model.entries, rate, hop, blockFrames].forEach((value, i) => view.setUint32(8 + 4 * i, value, true));
    for (let i = 0; i < 8; i++) view.setUint8(28 + i, parseInt(model.fingerprint.slice(2 * i, 2 * i + 2), 16));
    view.setFloat32(36, coded.gain, true);
  });
  const length = bytes(8, (view) => view.setBigUint64(0, BigInt(coded.length), true));
  const header = [form, length, number(crc32(form, length))];
  const file = [...header];
  for (let at = 0; at < coded.frames; at += blockFrames) {
    const frames = Math.min(blockFrames, coded.frames - at), begin = at * hop;
    const samples = Math.min(blockFrames * hop, coded.length - begin);
    for (const i of [0, 1]) {
      if (!levels[i]) continue;
      const packed = pack(coded.codes[i], at, frames, model.levels[i], levels[i], codeBits(model.entries[i]));
      const place = bytes(17, (view) => {
        view.setBigUint64(0, BigInt(begin), true);
        view.setBigUint64(8, BigInt(samples), true);
        view.setUint8(16, i);
      });
      file.push(packed, number(crc32(form, place, packed)));
    }
  }
  return new Blob([...file, ...header], { type: "application/octet-stream" });
}

// Frame by frame, coarse levels first, from the highest bit.
function pack(codes, at, frames, there, kept, bits) {
  const packed = new Uint8Array(Math.ceil((frames * kept * bits) / 8));
  let place = 0;
  for (let n = 0; n < frames; n++)
    for (let level = 0; level < kept; level++)
      for (let bit = bits - 1; bit >= 0; bit--, place++)
        if ((codes[(at + n) * there + level] >> bit) & 1) packed[place >> 3] |= 128 >> (place & 7);
  return packed;
}
