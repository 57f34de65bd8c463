// What an instance and Claude said: texts, tools with their inputs and outputs, subagents as a tree with their tokens.

import { button, el, setText } from "./dom.js";
import { tokens } from "./format.js";

const SHORT = 1500; // characters that show at first
const MOST_ITEMS = 3000; // in the document

export class Conversation {
  constructor(place) {
    this.place = place;
    this.clear();
  }

  clear() {
    this.place.replaceChildren();
    this.live = new Map(); // pieces of texts that are being written, by their subagent
    this.tools = new Map(); // tool calls by their id
    this.usage = new Map(); // by subagent: the usage of each message
    this.count = 0;
    this.cut = null;
  }

  add(items) {
    const atEnd = this.place.scrollHeight - this.place.scrollTop - this.place.clientHeight < 60;
    for (const item of items) this.one(item);
    this.trim();
    if (atEnd) this.place.scrollTop = this.place.scrollHeight;
  }

  one(item) {
    if (item.kind === "piece") return this.piece(item);
    if (item.kind === "usage") return this.count_(item);
    if (item.kind === "agent") return this.agent(item);
    if (item.kind !== "output") this.endLive(item.parent);
    if (item.kind === "output") return this.output(item);
    const element = this.elementOf(item);
    if (element) this.put(item.parent, element);
    return undefined;
  }

  put(parent, element) {
    const tool = parent && this.tools.get(parent);
    if (tool) {
      if (!tool.inner) {
        tool.inner = el("div", { class: "inner" });
        tool.sum = el("span", { class: "num dim" });
        tool.body.insertBefore(tool.inner, tool.result || null);
        tool.head.append(" ", tool.sum);
        tool.box.classList.add("agent");
        tool.box.open = true;
      }
      tool.inner.append(element);
    } else {
      this.place.append(element);
      this.count += 1;
    }
  }

  trim() {
    while (this.count > MOST_ITEMS) {
      const first = this.cut ? this.cut.nextSibling : this.place.firstChild;
      first.remove();
      this.count -= 1;
      if (!this.cut) {
        this.cut = el("p", { class: "dim" }, "Earlier parts are in the raw log.");
        this.place.prepend(this.cut);
      }
    }
  }

  piece(item) {
    const key = `${item.parent}/${item.block}/${item.of}`;
    let found = this.live.get(key);
    if (!found) {
      const text = el("div", { class: "text" });
      found = { text, box: el("div", { class: `item ${item.of === "thinking" ? "thinking" : "said"} live` }, text), parent: item.parent };
      this.live.set(key, found);
      this.put(item.parent, found.box);
    }
    setText(found.text, (found.text.textContent + item.text).slice(-20000));
  }

  // The whole text comes after its pieces.
  endLive(parent) {
    for (const [key, found] of this.live) {
      if (found.parent !== parent) continue;
      if (found.box.parentElement === this.place) this.count -= 1;
      found.box.remove();
      this.live.delete(key);
    }
  }

  count_(item) {
    const agent = this.tools.get(item.parent);
    if (!agent) return;
    const messages = this.usage.get(item.parent) || new Map();
    this.usage.set(item.parent, messages);
    messages.set(item.message, Object.values(item.usage).reduce((sum, count) => sum + count, 0));
    this.sum(agent, [...messages.values()].reduce((sum, count) => sum + count, 0));
  }

  // The CLI's own count, which has what the stream leaves out.
  agent(item) {
    const agent = this.tools.get(item.id);
    if (agent) this.sum(agent, item.tokens);
  }

  sum(agent, count) {
    agent.tokens = Math.max(agent.tokens || 0, count);
    if (agent.sum) setText(agent.sum, `${tokens(agent.tokens)} tokens`);
  }

  output(item) {
    const tool = this.tools.get(item.of);
    const result = el("div", { class: item.error ? "output error" : "output" }, el("span", { class: "kind" }, item.error ? "error" : "output"), long(item));
    if (!tool) {
      this.put(item.parent, el("div", { class: "item" }, result));
      return;
    }
    tool.result = result;
    tool.body.append(result);
    tool.box.classList.toggle("failed", item.error);
    tool.box.classList.remove("open-call");
  }

  elementOf(item) {
    switch (item.kind) {
      case "text":
        return el("div", { class: "item said" }, long(item));
      case "prompt":
        return el("div", { class: "item prompt" }, el("span", { class: "kind" }, "prompt"), long(item));
      case "thinking":
        return item.text ? el("details", { class: "item thinking" }, el("summary", {}, "Thinking"), long(item)) : null;
      case "tool":
        return this.tool(item);
      case "result":
        return el("div", { class: item.error ? "item result error" : "item result" }, el("span", { class: "kind" }, item.error ? `ended: ${item.subtype}` : "end of turn"), long(item),
          item.denied.length ? el("p", { class: "note" }, `Denied: ${item.denied.join(", ")}`) : null);
      case "system":
      case "raw":
        return el("div", { class: "item system" }, long(item));
      default:
        return null;
    }
  }

  tool(item) {
    const head = el("summary", {}, el("strong", {}, item.tool), " ", item.text === "{}" ? null : el("code", { class: "brief" }, brief(item.text)));
    const body = el("div", { class: "body" }, el("div", { class: "input" }, el("span", { class: "kind" }, "input"), long(item)));
    const box = el("details", { class: "item tool open-call" }, head, body);
    this.tools.set(item.id, { box, head, body, result: null, inner: null });
    return box;
  }
}

// The part of a tool's input that tells most.
function brief(text) {
  try {
    const input = JSON.parse(text);
    for (const key of ["command", "file_path", "path", "pattern", "url", "query", "description", "prompt"]) {
      if (typeof input[key] === "string") return input[key].slice(0, 160).replace(/\s+/g, " ");
    }
  } catch {
    // it was cut
  }
  return text.replace(/\s+/g, " ").slice(0, 160);
}

// A long text shows its beginning, and the rest if somebody asks for it.
export function long(item) {
  const text = item.text || "";
  const shown = el("pre", {}, text.slice(0, SHORT));
  if (text.length <= SHORT && !item.cut) return shown;
  const box = el("div", {}, shown);
  const note = item.cut ? el("span", { class: "dim" }, " The rest is in the raw log.") : null;
  if (text.length > SHORT) {
    const more = button(`Show ${(text.length - SHORT).toLocaleString("en-US")} more characters`, () => { setText(shown, text); more.remove(); }, { class: "quiet" });
    box.append(more);
  }
  if (note) box.append(note);
  return box;
}
