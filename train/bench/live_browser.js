// Notes when a click is taken in, heard and seen, in ms of performance.now().
(() => {
  const LEVEL = 0.25, APART_MS = 400;
  const bench = (window.bench = { taken: [], heard: [], seen: [] });
  const note = (name, time) => {
    if (time - (bench[name].at(-1) ?? -Infinity) > APART_MS) bench[name].push(time);
  };
  const find = (samples, scale) => samples.findIndex((sample) => Math.abs(sample) > LEVEL * scale);

  // No processing of the microphone: it would take clicks for noise.
  const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = () =>
    ask({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });

  // WebSocket: sound that is sent, sound that is scheduled, pictures that are drawn.
  const send = WebSocket.prototype.send;
  let context = null;
  WebSocket.prototype.send = function (data) {
    if (typeof data !== "string" && context) {
      const samples = new Int16Array(data), place = find(samples, 32768);
      if (place >= 0) note("taken", performance.now() - (1000 * (samples.length - place)) / context.sampleRate);
    }
    return send.call(this, data);
  };
  const start = AudioBufferSourceNode.prototype.start;
  AudioBufferSourceNode.prototype.start = function (when = 0) {
    const place = this.buffer ? find(this.buffer.getChannelData(0), 1) : -1;
    const latency = this.context.outputLatency || this.context.baseLatency || 0;
    if (place >= 0) {
      const heard = when + place / this.buffer.sampleRate + latency - this.context.currentTime;
      note("heard", performance.now() + 1000 * heard);
    }
    return start.call(this, when);
  };
  const create = AudioContext.prototype.createMediaStreamSource;
  AudioContext.prototype.createMediaStreamSource = function (stream) {
    context = this;
    return create.call(this, stream);
  };
  const corner = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const look = (picture, time) => {
    corner.drawImage(picture, 8, 8, 16, 16, 0, 0, 1, 1);
    if (corner.getImageData(0, 0, 1, 1).data[0] > 128) note("seen", time);
  };
  const draw = CanvasRenderingContext2D.prototype.drawImage;
  CanvasRenderingContext2D.prototype.drawImage = function (picture, ...place) {
    look(picture, performance.now() + 1000 / 60);  // it is seen at the next refresh
    return draw.call(this, picture, ...place);
  };

  // WebRTC: a meter of clicks on what goes in and what comes out, and a look at each frame that is presented.
  const METER = `registerProcessor("meter", class extends AudioWorkletProcessor {
    process([[channel]]) {
      const place = channel ? channel.findIndex((sample) => Math.abs(sample) > ${LEVEL}) : -1;
      if (place >= 0) this.port.postMessage((currentFrame + place) / sampleRate);
      return true;
    }
  })`;
  window.call = async () => {
    const audio = new AudioContext();
    await audio.audioWorklet.addModule("data:text/javascript," + encodeURIComponent(METER));
    const meter = (stream, name, later) => {
      const node = new AudioWorkletNode(audio, "meter", { numberOfOutputs: 0 });
      create.call(audio, stream).connect(node);
      node.port.onmessage = ({ data }) => note(name, performance.now() + 1000 * (data + later() - audio.currentTime));
    };
    const microphone = await navigator.mediaDevices.getUserMedia();
    meter(microphone, "taken", () => 0);
    const peer = (window.peer = new RTCPeerConnection());
    peer.addTrack(microphone.getAudioTracks()[0], microphone);
    peer.addTransceiver("video", { direction: "recvonly" });
    const video = Object.assign(document.createElement("video"), { autoplay: true, playsInline: true });
    document.body.append(video);
    const received = new MediaStream();
    peer.ontrack = ({ track }) => {
      received.addTrack(track);
      video.srcObject = received;
      if (track.kind === "audio") meter(new MediaStream([track]), "heard", () => audio.outputLatency || 0);
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
