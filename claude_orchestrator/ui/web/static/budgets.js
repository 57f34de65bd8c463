// Budgets as bars: what is used, what is held, what is forecast, and when a limit will be reached.

import { ask, button, el, replace, setText } from "./dom.js";
import { about, amount, clock, percent } from "./format.js";

const BARS_SHOWN = 4;

export class Budgets {
  constructor(store, actions) {
    this.store = store;
    this.actions = actions;
    this.place = document.getElementById("budgets");
    this.all = false;
    this.list = el("ul", { class: "budgets" });
    this.more = button("", () => { this.all = !this.all; this.draw(); }, { class: "quiet" });
    replace(this.place, el("h2", {}, "Budgets"), this.list, this.more);
    this.bars = new Map();
  }

  draw() {
    const sorted = [...this.store.budgets].sort((one, other) => other.percentage - one.percentage);
    const shown = this.all ? sorted : sorted.slice(0, BARS_SHOWN);
    const hidden = sorted.length - shown.length;
    this.more.hidden = sorted.length <= BARS_SHOWN;
    if (!this.more.hidden) setText(this.more, this.all ? "Show fewer" : `and ${hidden} more, at most ${percent(sorted[shown.length].percentage)}`);
    const keys = shown.map((budget) => `${budget.unit}:${budget.label}`);
    if (keys.join() !== this.keys) {
      this.keys = keys.join();
      this.bars = new Map(keys.map((key, place) => [key, this.bar(shown[place])]));
      replace(this.list, [...this.bars.values()].map((bar) => bar.item));
      if (!sorted.length) replace(this.list, el("li", { class: "dim" }, this.store.source === "past" ? "This run has no budgets, or its journal does not list them." : "This run has no budgets."));
    }
    shown.forEach((budget, place) => this.update(this.bars.get(keys[place]), budget));
  }

  bar(budget) {
    const parts = { used: el("span", { class: "used" }), held: el("span", { class: "held" }), mark: el("span", { class: "mark", title: "Forecast" }) };
    parts.bar = el("div", { class: "bar", role: "img" }, parts.used, parts.held, parts.mark);
    parts.figures = el("span", { class: "num" });
    parts.note = el("p", { class: "note" });
    parts.edit = this.actions.canAct ? button("Set limit …", () => this.edit(budget.label, budget.unit), { class: "quiet", "aria-label": `Set limit … of the ${budget.label} budget` }) : null;
    parts.item = el("li", {}, el("div", { class: "row" }, el("strong", {}, budget.label), el("span", { class: "grow" }), parts.figures, parts.edit), parts.bar, parts.note);
    return parts;
  }

  update(parts, budget) {
    const { store } = this;
    const { used, limit, unit } = budget;
    const held = budget.held + budget.held_elsewhere;
    const share = (value) => `${Math.min(100, limit > 0 ? (100 * value) / limit : 100)}%`;
    parts.used.style.width = share(used);
    parts.held.style.width = limit > 0 ? `${Math.max(0, Math.min(100 - (100 * used) / limit, (100 * held) / limit))}%` : "0";
    parts.item.className = budget.exceeded ? "over" : budget.percentage >= 80 ? "near" : "";
    const expected = unit === "USD" || store.over ? 0 : store.expected(budget.label);
    parts.mark.hidden = !expected;
    parts.mark.style.left = share(used + expected);
    setText(parts.figures, `${percent(budget.percentage)} · ${amount(used, unit)} of ${amount(limit, unit)}`);
    const notes = [];
    if (held > 0) notes.push(`${amount(held, unit)} held`);
    if (expected) notes.push(`forecast ${amount(used + expected, unit)}${used + expected > limit ? ", which is over the limit" : ""}`);
    if (budget.exceeded) notes.push("limit passed");
    else if (!store.over) notes.push(...this.exhaustion(budget));
    setText(parts.note, notes.join(" · "));
    parts.note.hidden = !notes.length;
    parts.bar.setAttribute("aria-label", `${budget.label}: ${percent(budget.percentage)} of ${amount(limit, unit)} used`);
    if (parts.edit) parts.edit.hidden = store.over;
  }

  exhaustion(budget) {
    const rate = this.store.rate(`${budget.unit}:${budget.label}`);
    if (rate <= 0 || !this.store.isDrawnOn(budget.label)) return [];
    const seconds = (budget.limit - budget.used) / rate;
    return seconds > 86400 ? [] : [`at this rate full in ${about(seconds)}, at ${clock(this.store.clock() + seconds, false)}`];
  }

  async edit(label, unit) {
    const budget = this.store.budgets.find((one) => one.label === label && one.unit === unit);
    const value = unit === "USD" ? String(budget.limit) : String(budget.limit);
    const typed = await ask(`Limit of the ${label} budget`, `${amount(budget.used, unit)} are used. More room lets instances start that wait or were blocked. Less than what is used acts at once.`,
      { field: unit === "USD" ? "US dollars, such as 2.50" : "Tokens, such as 200k", value, action: "Set limit" });
    if (typed !== null) await this.actions.run("set_limit", { budget: label, limit: typed }, `The limit of the ${label} budget is now ${typed}`);
  }
}
