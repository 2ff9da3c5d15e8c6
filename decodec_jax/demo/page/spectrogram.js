// Columns of a spectrogram, and how they are drawn.

const SIZE = 512, BINS = 128; // of a transform; of a column, each two bins of it
const WINDOW = Float32Array.from({ length: SIZE }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / SIZE));

// How loud each band is about a sample: 0 at -90 dB of full scale to 255 at -10.
export function column(samples, at) {
  const real = new Float32Array(SIZE), imaginary = new Float32Array(SIZE);
  for (let i = 0; i < SIZE; i++) real[i] = (samples[at + i - SIZE / 2] || 0) * WINDOW[i];
  transform(real, imaginary);
  return Uint8Array.from({ length: BINS }, (_, i) => {
    const power = (j) => real[j] ** 2 + imaginary[j] ** 2;
    const decibels = 10 * Math.log10((power(2 * i) + power(2 * i + 1)) / (SIZE / 4) ** 2 + 1e-12);
    return Math.max(0, Math.min(255, ((decibels + 90) / 80) * 255));
  });
}

// The discrete Fourier transform, in place.
function transform(real, imaginary) {
  for (let i = 1, j = 0; i < SIZE; i++) {
    let bit = SIZE >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) [real[i], real[j]] = [real[j], real[i]];
  }
  for (let span = 2; span <= SIZE; span *= 2)
    for (let at = 0; at < SIZE; at += span)
      for (let i = 0; i < span / 2; i++) {
        const angle = (-2 * Math.PI * i) / span, cosine = Math.cos(angle), sine = Math.sin(angle);
        const a = at + i, b = a + span / 2;
        const x = real[b] * cosine - imaginary[b] * sine, y = real[b] * sine + imaginary[b] * cosine;
        [real[b], imaginary[b]] = [real[a] - x, imaginary[a] - y];
        real[a] += x;
        imaginary[a] += y;
      }
}

export function draw(canvas, first, columns, count) {
  if (canvas.width !== count) [canvas.width, canvas.height] = [count, BINS];
  const context = canvas.getContext("2d"), image = context.createImageData(columns.length, BINS);
  for (const [x, values] of columns.entries())
    for (let i = 0; i < BINS; i++) {
      const v = values[i] / 255, at = 4 * ((BINS - 1 - i) * columns.length + x);
      image.data.set([255 * Math.min(1, 1.6 * v), 255 * Math.max(0, 1.7 * v - 0.6), 255 * (0.25 + 0.5 * v - v * v * 0.4), 255], at);
    }
  context.putImageData(image, first, 0);
}
