// Client of the WebSocket /v1/live (docs/live-protocol.md), and a player that keeps picture and sound together.
const HEADER_BYTES = 44;
const ACTIVITIES = ["speech", "pause", "idle"];

export function unpack(buffer) {
  const view = new DataView(buffer);
  if (view.getUint32(0) !== 0x4b444c46) throw new Error("this is no frame");
  const jpegBytes = view.getUint32(36, true);
  const soundBytes = view.getUint32(40, true);
  return {
    activity: ACTIVITIES[view.getUint8(5)],
    isRepeated: view.getUint8(6) === 1,
    index: view.getUint32(8, true),
    timestamp: Number(view.getBigUint64(12, true)),
    position: Number(view.getBigUint64(20, true)),
    segment: view.getInt32(28, true),
    generation: view.getUint32(32, true),
    jpeg: jpegBytes ? new Blob([new Uint8Array(buffer, HEADER_BYTES, jpegBytes)], { type: "image/jpeg" }) : null,
    sound: new Int16Array(buffer.slice(HEADER_BYTES + jpegBytes, HEADER_BYTES + jpegBytes + soundBytes)),
  };
}

// Plays sound at `base` + timestamp of the audio clock; each picture is drawn when its own sound is heard.
export class Player {
  static LEAD_S = 0.06;  // sound that waits here, against jitter
  static PICTURES_WAITING = 25;
  static QUIET = 300;  // of 32768

  constructor(context, rate, canvas) {
    Object.assign(this, { context, rate, canvas, base: null, shifts: 0, dropped: 0, generation: 0, shown: -1 });
    this.pictures = [];
    this.sources = new Set();
    this.slack = Infinity;  // the least time that frames came before their turn
    this.drawing = requestAnimationFrame(() => this.draw());
  }

  // Returns the time of the audio clock at which the frame's sound is heard; null for a frame that was interrupted.
  play(frame) {
    if (frame.generation < this.generation) return null;
    this.clear(frame.generation);
    const now = this.context.currentTime;
    const time = frame.timestamp / this.rate;
    this.base ??= now + Player.LEAD_S - time;
    const slack = this.base + time - now;
    this.slack = Math.min(this.slack, slack);
    if (slack < 0) {  // it came too late: wait longer from now on
      this.base += Player.LEAD_S - slack;
      this.shifts++;
    } else if (frame.index % 25 === 0) {  // it came early all the time: wait less again, where it is least heard
      const spare = this.slack - Player.LEAD_S;
      const isQuiet = frame.sound.every((sample) => Math.abs(sample) < Player.QUIET);
      if (spare > 0.5) this.silence();
      if (spare > 0.5 || (spare > 0.04 && isQuiet)) this.base -= spare;
      this.slack = Infinity;
    }
    const when = this.base + time;
    if (frame.sound.some((sample) => sample)) this.schedule(frame.sound, when);
    if (frame.jpeg) this.decode(frame, when);
    return when + this.latency();
  }

  schedule(sound, when) {
    const buffer = this.context.createBuffer(1, sound.length, this.rate);
    buffer.getChannelData(0).set(Float32Array.from(sound, (sample) => sample / 32768));
    const source = new AudioBufferSourceNode(this.context, { buffer });
    source.connect(this.context.destination);
    source.onended = () => this.sources.delete(source);
    this.sources.add(source);
    source.start(when);
  }

  async decode(frame, when) {
    const bitmap = await createImageBitmap(frame.jpeg);
    if (frame.generation < this.generation) return bitmap.close();
    this.pictures.push({ when, bitmap, index: frame.index, isRepeated: frame.isRepeated });
    if (this.pictures.length > Player.PICTURES_WAITING) this.drop(this.pictures.shift());
  }

  // Counts a picture that is not shown; one that repeats another is none.
  drop({ bitmap, isRepeated }) {
    bitmap.close();
    this.dropped += !isRepeated;
  }

  latency() {
    return this.context.outputLatency || this.context.baseLatency || 0;
  }

  draw() {
    this.drawing = requestAnimationFrame(() => this.draw());
    const due = this.context.currentTime - this.latency() + 1 / 60;  // what is drawn now is seen at the next refresh
    let latest = null;
    this.pictures = this.pictures.filter((picture) => {
      if (picture.when > due) return true;
      if (picture.index > (latest?.index ?? this.shown)) {
        if (latest) this.drop(latest);
        latest = picture;
      } else this.drop(picture);
      return false;
    });
    if (!latest) return;
    const { width, height } = latest.bitmap;
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    this.canvas.getContext("2d").drawImage(latest.bitmap, 0, 0);
    latest.bitmap.close();
    this.shown = latest.index;
  }

  // Drops all that waits of the generations before this one.
  clear(generation) {
    if (generation <= this.generation) return;
    this.generation = generation;
    this.silence();
    for (const picture of this.pictures.splice(0)) picture.bitmap.close();
  }

  silence() {
    for (const source of this.sources) source.stop();
    this.sources.clear();
  }

  close() {
    cancelAnimationFrame(this.drawing);
    this.silence();
    for (const picture of this.pictures) picture.bitmap.close();
    this.pictures = [];
  }
}
