// In the audio thread: hands what the microphone hears to the page, and notices nothing else.

class Microphone extends AudioWorkletProcessor {
  process([input]) {
    if (input[0]) this.port.postMessage(input[0].slice());
    return true;
  }
}

registerProcessor("microphone", Microphone);
