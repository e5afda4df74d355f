// AudioWorklet: hands on the microphone's sound as pieces of 20 ms, 16 bits a sample.
const PIECE_S = 0.02;

class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.piece = new Int16Array(Math.round(sampleRate * PIECE_S));
    this.filled = 0;
  }

  process([[channel]]) {
    for (let i = 0; channel && i < channel.length; i++) {
      this.piece[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(channel[i] * 32768)));
      if (this.filled === this.piece.length) {
        // `ends` is the context's time of the sample after the last one
        this.port.postMessage({ sound: this.piece, ends: (currentFrame + i + 1) / sampleRate });
        this.piece = new Int16Array(this.piece.length);
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("microphone", Microphone);
