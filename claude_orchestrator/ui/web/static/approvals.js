// Tools that wait until somebody approves them.

import { ask, button, el, replace } from "./dom.js";
import { about } from "./format.js";
import { long } from "./conversation.js";

export class Approvals {
  constructor(store, source, actions, open) {
    this.store = store;
    this.source = source;
    this.actions = actions;
    this.open = open;
    this.place = document.getElementById("approvals");
  }

  draw() {
    const { approvals } = this.store;
    this.place.hidden = !approvals.length;
    if (!approvals.length) {
      this.key = "";
      return;
    }
    if (approvals.some((one) => one.input === null)) this.complete();
    const key = approvals.map((one) => `${one.id}${one.input !== null}`).join();
    if (key !== this.key) {
      this.key = key;
      const all = this.actions.canAct && approvals.length > 1 ? button("Approve all", () => this.actions.run("approve", { ids: ["all"] }, "All approved")) : null;
      this.lefts = new Map();
      replace(this.place, el("div", { class: "row" }, el("h2", {}, `${approvals.length} waiting for your approval`), el("span", { class: "grow" }), all), el("ul", { class: "asks" }, approvals.map((one) => this.item(one))));
    }
    for (const one of approvals) {
      const left = this.lefts.get(one.id);
      if (left && one.until) left.textContent = `denied in ${about(Math.max(0, one.until - this.store.clock()))}`;
    }
  }

  item(one) {
    const left = el("span", { class: "dim" });
    this.lefts.set(one.id, left);
    return el("li", {}, el("div", { class: "row" }, button(one.instance, () => this.open(one.instance), { class: "name" }), el("strong", {}, one.text || one.tool), el("span", { class: "grow" }), left,
      this.actions.canAct ? [button("Approve", () => this.actions.run("approve", { ids: [one.id] }, `Approved: ${one.text || one.tool}`), { class: "primary" }), button("Always", () => this.actions.run("approve", { ids: [one.id], always: true }, `Approved for the rest of the run: ${one.text || one.tool}`), { title: "Approve this, and such calls for the rest of the run" }), button("Deny …", () => this.deny(one), { class: "danger" })] : null),
      one.description ? el("p", { class: "note" }, one.description) : null,
      one.input ? el("details", {}, el("summary", {}, "Input"), long({ text: JSON.stringify(one.input, null, 1), cut: false })) : null);
  }

  // Events name the tool only; what it gets comes from the list.
  async complete() {
    if (this.completing || !this.source.canFetch) return;
    this.completing = true;
    try {
      this.store.approvals = await this.source.approvals();
      this.draw();
    } catch {
      // the next event tries again
    } finally {
      this.completing = false;
    }
  }

  async deny(one) {
    const message = await ask(`Deny ${one.text || one.tool}?`, "Claude gets your message and continues without it.", { field: "Message for Claude", action: "Deny", danger: true });
    if (message !== null) await this.actions.run("deny", { ids: [one.id], message }, `Denied: ${one.text || one.tool}`);
  }
}
