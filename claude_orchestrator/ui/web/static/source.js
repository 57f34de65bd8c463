// Where the page's data comes from: the server of a run, or the file itself.

import { post } from "./entry.js";

const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 5000;
const DEAD_MS = 40000; // the server says something at least every 15 s

export class ServerSource {
  constructor(store, onState) {
    this.store = store;
    this.onState = onState; // live, lost, over, refused
    this.lastId = "";
    this.retryMs = FIRST_RETRY_MS;
    this.canFetch = true;
  }

  async about() {
    return (await fetch("/api/about")).json();
  }

  connect() {
    clearTimeout(this.retrying);
    const stream = new EventSource(`/api/events?last=${encodeURIComponent(this.lastId)}`);
    this.stream = stream;
    const take = (event, apply) => {
      this.lastId = event.lastEventId;
      this.retryMs = FIRST_RETRY_MS;
      this.alive();
      apply(JSON.parse(event.data));
      this.onState("live");
    };
    stream.addEventListener("snapshot", (event) => take(event, (data) => this.store.snapshot(data)));
    stream.addEventListener("frame", (event) => take(event, (data) => this.store.frame(data)));
    stream.addEventListener("bye", () => {
      stream.close();
      clearTimeout(this.watchdog);
      this.onState("over");
    });
    stream.onopen = () => this.alive();
    stream.onerror = () => this.lose();
  }

  alive() {
    clearTimeout(this.watchdog);
    this.watchdog = setTimeout(() => this.lose(), DEAD_MS);
  }

  async lose() {
    clearTimeout(this.watchdog);
    this.stream.close();
    if (this.store.over) {
      this.onState("over");
      return;
    }
    try {
      const answer = await fetch("/api/snapshot", { method: "HEAD" }).catch(() => fetch("/api/about"));
      if (answer.status === 401) {
        this.onState("refused");
        return;
      }
    } catch {
      // the server is away
    }
    this.onState("lost");
    this.retrying = setTimeout(() => this.connect(), this.retryMs);
    this.retryMs = Math.min(LAST_RETRY_MS, this.retryMs * 1.6);
  }

  async act(method, params) {
    return (await post("/api/act", { method, params })).result;
  }

  async get(path, query) {
    const answer = await fetch(`${path}?${new URLSearchParams(query)}`);
    if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error || `the server answered ${answer.status}`);
    return answer;
  }

  async conversation(instance, attempt, from) {
    return (await this.get("/api/conversation", { instance, attempt, from })).json();
  }

  async log(instance, attempt, from) {
    const answer = await this.get("/api/log", { instance, attempt, from });
    return { text: await answer.text(), next: Number(answer.headers.get("X-Next")), size: Number(answer.headers.get("X-Size")) };
  }

  async answer(instance) {
    const answer = await this.get("/api/answer", { instance });
    return { text: await answer.text(), size: Number(answer.headers.get("X-Size")) };
  }

  async patch(instance) {
    const answer = await this.get("/api/patch", { instance });
    return { text: await answer.text(), size: Number(answer.headers.get("X-Size")) };
  }

  async approvals() {
    return (await this.get("/api/approvals", {})).json();
  }
}

// A finished run in one file: nothing is asked of any server.
export class FileSource {
  constructor(data) {
    this.data = data;
    this.canFetch = false;
  }

  part(kind, instance) {
    const found = (this.data.parts[instance] || {})[kind];
    if (found === undefined) throw new Error("this file does not contain it");
    return found;
  }

  async conversation(instance) {
    return { items: this.part("conversation", instance), next: 0, size: 0, attempt: 1, attempts: 1 };
  }

  async log() {
    throw new Error("this file does not contain the raw log: it is in the run's directory");
  }

  async answer(instance) {
    const text = this.part("answer", instance);
    return { text, size: text.length };
  }

  async patch(instance) {
    const text = this.part("patch", instance);
    return { text, size: text.length };
  }
}
