// Plays two sounds or more together, each as loud as its gain says, while their pieces are still on their way.

const AHEAD = 3; // s that the browser is given before they are heard
const LEAD = 0.1; // s from giving to hearing, at the beginning and after a piece that came late

// sound.pieces: of each piece a Blob of 16-bit samples for each sound; more may come until sound.whole is true.
export function play(sound, count, rate, ended) {
  const context = new AudioContext({ sampleRate: rate }); // that of the pieces: resampled alone, they would not join
  const gains = Array.from({ length: count }, () => new GainNode(context));
  for (const gain of gains) gain.connect(context.destination);
  let next = 0, given = 0;

  async function give(blobs) {
    const pieces = await Promise.all(blobs.map(samplesOf));
    if (context.state === "closed") return;
    next = Math.max(next, context.currentTime + LEAD);
    for (const [i, samples] of pieces.entries()) {
      const buffer = new AudioBuffer({ length: samples.length, sampleRate: rate });
      buffer.copyToChannel(samples, 0);
      const source = new AudioBufferSourceNode(context, { buffer });
      source.connect(gains[i]);
      source.start(next);
    }
    next += pieces[0].length / rate;
  }

  async function feed() {
    while (context.state !== "closed") {
      const heard = context.currentTime;
      if (given < sound.pieces.length && next < heard + AHEAD) await give(sound.pieces[given++]);
      else if (given === sound.pieces.length && sound.whole && next < heard) return ended();
      else await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  feed();
  return { context, gains };
}

async function samplesOf(blob) {
  return Float32Array.from(new Int16Array(await blob.arrayBuffer()), (sample) => sample / 32768);
}
