// The microphone's end of the live page, in the audio thread: what is heard, as mono at 16 kHz.
// Posts {start_s, samples}: the first sample's time on the context's clock, 50 ms of Float32.
"use strict";

const RATE_HZ = 16000;
const PIECE = 800; // samples
const LOBES = 8; // of the filter, to either side

class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.ratio = sampleRate / RATE_HZ;
    this.half = this.ratio === 1 ? 0 : Math.ceil(LOBES * Math.max(1, this.ratio));
    this.first = null; // frame of the context's at which input 0 was heard
    this.held = new Float32Array(0);
    this.forgotten = 0; // inputs before those held
    this.made = 0; // samples so far
    this.filled = 0;
    this.piece = new Float32Array(PIECE);
  }

  process(inputs) {
    const channels = inputs[0];
    if (!channels.length) return true; // nothing is connected yet
    if (this.first === null) this.first = currentFrame;
    const mono = channels[0].map((_, i) => {
      return channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length;
    });
    this.hold(mono);
    while (this.made * this.ratio + this.half < this.forgotten + this.held.length) {
      this.add(this.sample(this.made * this.ratio));
      this.made += 1;
    }
    return true;
  }

  // Forget what no sample to come depends on, and join the new inputs.
  hold(mono) {
    const needed = Math.floor(this.made * this.ratio) - this.half;
    const drop = Math.min(this.held.length, Math.max(0, needed - this.forgotten));
    const joined = new Float32Array(this.held.length - drop + mono.length);
    joined.set(this.held.subarray(drop));
    joined.set(mono, this.held.length - drop);
    this.held = joined;
    this.forgotten += drop;
  }

  // The sound between inputs: a sinc under a Hann window, which keeps what 16 kHz can carry.
  sample(position) {
    if (!this.half) return this.held[position - this.forgotten];
    const pass = Math.min(1, 0.95 / this.ratio);
    let sum = 0;
    let weights = 0;
    for (let i = Math.ceil(position - this.half); i <= position + this.half; i += 1) {
      const away = i - position;
      const turn = Math.PI * away * pass;
      const sinc = turn ? Math.sin(turn) / turn : 1;
      const weight = sinc * (0.5 + 0.5 * Math.cos((Math.PI * away) / this.half));
      sum += weight * (this.held[i - this.forgotten] || 0);
      weights += weight;
    }
    return sum / weights;
  }

  add(sample) {
    this.piece[this.filled] = sample;
    this.filled += 1;
    if (this.filled < PIECE) return;
    const start_s = this.first / sampleRate + (this.made + 1 - PIECE) / RATE_HZ;
    this.port.postMessage({ start_s, samples: this.piece }, [this.piece.buffer]);
    this.piece = new Float32Array(PIECE);
    this.filled = 0;
  }
}

registerProcessor("microphone", Microphone);
