// Notes when a click is taken in and heard, and when which picture is seen, in ms of performance.now().
(() => {
  const LEVEL = 0.25, APART_MS = 400;
  const CELL_PX = 16, COLUMNS = 8, BITS = 16;  // of the numbers in pictures, see marks.py
  const WIDTH = COLUMNS * CELL_PX, HEIGHT = ((2 * BITS) / COLUMNS) * CELL_PX;
  const bench = (window.bench = { origin: performance.timeOrigin, taken: [], heard: [], seen: [] });
  const note = (name, time) => {
    if (time - (bench[name].at(-1) ?? -Infinity) > APART_MS) bench[name].push(time);
  };

  // No processing of the microphone: it would take clicks for noise.
  const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = () =>
    ask({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });

  // A meter of clicks in a stream, for both transports.
  const METER = `registerProcessor("meter", class extends AudioWorkletProcessor {
    process([[channel]]) {
      const place = channel ? channel.findIndex((sample) => Math.abs(sample) > ${LEVEL}) : -1;
      if (place >= 0) this.port.postMessage((currentFrame + place) / sampleRate);
      return true;
    }
  })`;
  const create = AudioContext.prototype.createMediaStreamSource;
  const meter = async (audio, stream, name, later) => {
    await audio.audioWorklet.addModule("data:text/javascript," + encodeURIComponent(METER));
    const node = new AudioWorkletNode(audio, "meter", { numberOfOutputs: 0 });
    create.call(audio, stream).connect(node);
    node.port.onmessage = ({ data }) => note(name, performance.now() + 1000 * (data + later() - audio.currentTime));
  };

  let last = null;
  const corner = new OffscreenCanvas(WIDTH, HEIGHT).getContext("2d", { willReadFrequently: true });
  const read = (picture) => {
    corner.drawImage(picture, 0, 0, WIDTH, HEIGHT, 0, 0, WIDTH, HEIGHT);
    const { data } = corner.getImageData(0, 0, WIDTH, HEIGHT);
    const cell = (n) => {
      const x = ((n % COLUMNS) + 0.5) * CELL_PX, y = (Math.floor(n / COLUMNS) + 0.5) * CELL_PX;
      return data[4 * (y * WIDTH + x) + 1] > 127;
    };
    let number = 0;
    for (let bit = 0; bit < BITS; bit++) {
      if (cell(bit) === cell(bit + BITS)) return null;
      number += cell(bit) << bit;
    }
    return number;
  };
  const look = (picture, time) => {
    const number = read(picture);
    if (number !== null && number !== last) bench.seen.push([(last = number), time]);
  };

  // WebSocket: sound that is scheduled, pictures that are drawn.
  AudioContext.prototype.createMediaStreamSource = function (stream) {
    meter(this, stream, "taken", () => 0);
    return create.call(this, stream);
  };
  const start = AudioBufferSourceNode.prototype.start;
  AudioBufferSourceNode.prototype.start = function (when = 0) {
    const place = this.buffer ? this.buffer.getChannelData(0).findIndex((sample) => Math.abs(sample) > LEVEL) : -1;
    const latency = this.context.outputLatency || this.context.baseLatency || 0;
    if (place >= 0) {
      const heard = when + place / this.buffer.sampleRate + latency - this.context.currentTime;
      note("heard", performance.now() + 1000 * heard);
    }
    return start.call(this, when);
  };
  const draw = CanvasRenderingContext2D.prototype.drawImage;
  CanvasRenderingContext2D.prototype.drawImage = function (picture, ...place) {
    look(picture, performance.now() + 1000 / 60);  // it is seen at the next refresh
    return draw.call(this, picture, ...place);
  };

  // WebRTC: sound that comes in, each picture that is presented.
  window.call = async () => {
    const audio = new AudioContext();
    const microphone = await navigator.mediaDevices.getUserMedia();
    await meter(audio, microphone, "taken", () => 0);
    const peer = (window.peer = new RTCPeerConnection());
    peer.addTrack(microphone.getAudioTracks()[0], microphone);
    peer.addTransceiver("video", { direction: "recvonly" });
    const video = Object.assign(document.createElement("video"), { autoplay: true, playsInline: true });
    document.body.append(video);
    const received = new MediaStream();
    peer.ontrack = ({ track }) => {
      received.addTrack(track);
      video.srcObject = received;
      if (track.kind === "audio") meter(audio, new MediaStream([track]), "heard", () => audio.outputLatency || 0);
    };
    const each = (now, { expectedDisplayTime }) => {
      look(video, expectedDisplayTime);
      video.requestVideoFrameCallback(each);
    };
    video.requestVideoFrameCallback(each);
    await peer.setLocalDescription(await peer.createOffer());
    while (peer.iceGatheringState !== "complete") await new Promise((resolve) => setTimeout(resolve, 50));
    const answer = await fetch("v1/whep", { method: "POST", body: peer.localDescription.sdp });
    await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
    await audio.resume();
  };
})();
