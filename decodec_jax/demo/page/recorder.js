// The microphone, through an AudioWorklet: at the rate of the device; the codec's worker resamples.

export async function record() {
  if (!navigator.mediaDevices?.getUserMedia)
    throw new Error("This page cannot use a microphone: browsers allow that on https addresses and on localhost only.");
  let stream;
  try {
    const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, ...plain } });
  } catch (error) {
    throw new Error(error.name === "NotAllowedError"
      ? "This page may not use the microphone. Allow it in the settings of the browser, and press Record again."
      : "No microphone was found. Connect one, and press Record again.");
  }
  const context = new AudioContext(), pieces = [];
  const release = async () => {
    for (const track of stream.getTracks()) track.stop();
    await context.close();
  };
  try {
    await context.audioWorklet.addModule("microphone.js");
  } catch {
    await release();
    throw new Error("The microphone could not be started. Load the page again, and press Record again.");
  }
  const node = new AudioWorkletNode(context, "microphone", { numberOfOutputs: 1 });
  node.port.onmessage = ({ data }) => pieces.push(data);
  context.createMediaStreamSource(stream).connect(node).connect(context.destination);
  return async () => {
    await release();
    const samples = new Float32Array(pieces.reduce((total, piece) => total + piece.length, 0));
    let at = 0;
    for (const piece of pieces) {
      samples.set(piece, at);
      at += piece.length;
    }
    return { samples, rate: context.sampleRate };
  };
}
