import { Player, unpack } from "./player.js";

const at = (id) => document.getElementById(id);
const token = new URLSearchParams(location.search).get("token");
const HELLO_WITHIN_MS = 60_000;  // a portrait is encoded, and its idle motion drawn, before the first frame
const RETRY_MS = 300;
let session = null;
let portrait = null;

const REASONS = {
  insecure:
    "The browser gives no microphone to a page that is not opened safely: open it as http://localhost or through https. The text box works here too.",
  NotAllowedError: "The browser may not use the microphone: allow it beside the address, then press Talk again.",
  NotFoundError: "No microphone was found: plug one in, then press Talk again. The text box works without one.",
  NotReadableError: "The microphone is used by another program: close that, then press Talk again.",
  closed:
    "The connection broke. Does the server still run? A proxy in between must let WebSockets through.",
  refused:
    "No connection could be made: the server does not run, or a proxy in between blocks WebSockets.",
};

function tell(text, isError = false) {
  at("status").textContent = isError ? "" : text;
  at("alert").textContent = isError ? text : "";
  at("alert").hidden = !isError;
}

function address(path, scheme = location.protocol) {
  const url = new URL(path, location.href);
  url.protocol = scheme;
  url.search = "";
  return url;
}

// One session: a socket, a player, and the microphone in the mode "microphone".
class Session {
  constructor(source) {
    Object.assign(this, { source, sent: 0, captured: 0, ended: 0, delays: [], hasFailed: false });
    this.context = new AudioContext({ latencyHint: "interactive" });
    if (this.context.sampleRate > 48000 || this.context.sampleRate % 25) {
      this.context.close();
      this.context = new AudioContext({ latencyHint: "interactive", sampleRate: 48000 });
    }
    this.rate = this.context.sampleRate;
  }

  async open() {
    if (this.source === "microphone") await this.openMicrophone();
    for (let tries = 0; ; tries++) {
      try {
        await this.connect();
        break;
      } catch (error) {
        if (error.code !== "busy" || tries === 10 || !Session.closedAt || performance.now() - Session.closedAt > 5000)
          throw error;
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));  // our own session is being closed there
      }
    }
    await this.context.resume();
    this.node?.port.start();
    if (this.node) this.node.port.onmessage = ({ data }) => this.hear(data);
  }

  async openMicrophone() {
    if (!window.isSecureContext || !navigator.mediaDevices) throw { message: REASONS.insecure };
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: true } });
    } catch (error) {
      throw { message: REASONS[error.name] ?? `The microphone cannot be used (${error.name}).` };
    }
    await this.context.audioWorklet.addModule("live/microphone.js");
    this.node = new AudioWorkletNode(this.context, "microphone", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
    this.context.createMediaStreamSource(this.stream).connect(this.node);
  }

  connect() {
    return new Promise((resolve, reject) => {
      const socket = (this.socket = new WebSocket(address("v1/live", location.protocol === "https:" ? "wss:" : "ws:")));
      const fail = (message, code) => reject({ message, code });
      const timer = setTimeout(() => { fail(REASONS.closed); socket.close(); }, HELLO_WITHIN_MS);
      let isOpen = false, isReady = false, told = null;
      socket.binaryType = "arraybuffer";
      socket.onopen = () => {
        isOpen = true;
        const hello = { type: "hello", version: 1, rate: this.rate, channels: 1, source: this.source };
        socket.send(JSON.stringify({ ...hello, ...(portrait && { portrait }), ...(token && { token }) }));
      };
      socket.onmessage = ({ data }) => {
        if (typeof data !== "string") return this.show(unpack(data));
        const event = JSON.parse(data);
        if (event.type === "ready") {
          isReady = true;
          clearTimeout(timer);
          this.player = new Player(this.context, this.rate, at("face"));
          resolve();
        } else if (event.type === "error") {
          if (event.fatal) told = event;
          else tell(event.message, true);
        } else if (event.type === "ended") {
          this.ended += event.samples;
          if (this.source === "agent") tell(event.interrupted ? `Interrupted after ${event.seconds.toFixed(1)} s.` : "Type another sentence.");
        } else if (event.type === "cleared") this.player?.clear(event.generation);
        else if (event.type === "stats") this.report(event);
      };
      socket.onclose = () => {
        clearTimeout(timer);
        const message = told?.message ?? (isOpen ? REASONS.closed : REASONS.refused);
        if (!isReady) fail(message, told?.code);
        else if (session === this) stop().then(() => tell(message, true));
      };
    });
  }

  hear({ sound, ends }) {
    if (this.socket.readyState !== WebSocket.OPEN) return;
    this.socket.send(sound.buffer);
    this.sent += sound.length;
    this.captured = ends;
  }

  show(frame) {
    const heard = this.player.play(frame);
    if (this.node && frame.activity === "speech" && heard !== null) {
      // the sample at the frame's beginning was taken in so many samples before the last that was sent
      const taken = this.captured - (this.sent - this.ended - frame.position) / this.rate;
      this.delays.push(heard - taken);
    }
  }

  report(stats) {
    const delays = this.delays.sort((a, b) => a - b);
    const delay = delays.length ? 1000 * delays[delays.length >> 1] : stats.first_frame_ms;
    this.delays = [];
    const what = this.node ? "from your mouth to its mouth" : "from the text's first sound to the first frame";
    at("latency").textContent = delay == null ? "" : `${Math.round(delay)} ms ${what}`;
    at("latency").dataset.ms = delay == null ? "" : Math.round(delay);
    const late = stats.repeated + stats.dropped + stats.pictures_dropped;
    const { dropped, shifts } = this.player;
    at("counts").textContent = `${stats.new} pictures, ${stats.degraded} plainer, ${late} late, ${dropped} not shown here, sound waited ${shifts} times`;
  }

  // The server confirms with `cleared`; what waits here, and what it sent before it knew, is heard and shown no more.
  interrupt() {
    this.player?.clear(this.player.generation + 1);
    this.send({ type: "clear" });
  }

  send(message) {
    this.socket.send(JSON.stringify(message));
  }

  async close() {
    Session.closedAt = performance.now();
    if (this.socket) this.socket.onclose = null;
    this.socket?.close();
    this.stream?.getTracks().forEach((track) => track.stop());
    this.player?.close();
    await this.context.close();
  }
}

async function start(source, telling) {
  await stop();
  tell("Connecting …");
  const opened = new Session(source);
  session = opened;
  showState();
  try {
    await opened.open();
    tell(telling);
  } catch (error) {
    if (session === opened) await stop();
    tell(error.message ?? String(error), true);
    return null;
  }
  return opened;
}

async function stop() {
  const closing = session;
  session = null;
  showState();
  await closing?.close();
}

function showState() {
  at("talk").textContent = session ? "Stop" : "Talk";
  at("talk").setAttribute("aria-pressed", String(!!session));
  at("interrupt").disabled = !session;
}

at("talk").onclick = async () => {
  if (!session) return start("microphone", "Talk: the face answers in your voice. Use headphones.");
  await stop();
  tell("Stopped.");
};

at("say").onsubmit = async (event) => {
  event.preventDefault();
  const text = at("text").value;
  const speaking = session?.source === "agent" ? session : await start("agent", "Speaking …");
  speaking?.send({ type: "say", text, voice: at("voice").value || undefined });
};

at("interrupt").onclick = () => session?.interrupt();

at("picture").onchange = async () => {
  const [file] = at("picture").files;
  if (!file) return;
  tell("Finding the face …");
  const url = address("v1/portraits");
  if (token) url.searchParams.set("token", token);
  try {
    const response = await fetch(url, { method: "POST", body: file });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.message);
    portrait = answer.portrait;
    await stop();
    tell("This face is next: talk, or type a sentence.");
  } catch (error) {
    tell(error instanceof TypeError ? REASONS.refused : error.message, true);
  }
};

if (!window.isSecureContext) tell(REASONS.insecure, true);
showState();
