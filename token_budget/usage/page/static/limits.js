// The limits of day, week and month: what is used, and where the pace of the latest time leads.

import { el, replace } from "./dom.js";
import { amount, moment, percent } from "./format.js";

const PACE = { daily: "24 hours", weekly: "7 days", monthly: "30 days" };

export class Limits {
  constructor() {
    this.place = document.getElementById("limits");
  }

  draw(data) {
    const body = data.limits.length
      ? el("ul", { class: "budgets" }, data.limits.map((limit) => this.line(limit, data.at)))
      : el("p", { class: "dim" }, "No limit of a day, a week or a month. A run sets one with --daily-token-budget 5M, for example.");
    replace(this.place, el("h2", {}, "Limits"), body);
  }

  line(limit, now) {
    const { unit } = limit;
    const share = (value) => `${Math.min(100, (100 * value) / limit.limit)}%`;
    const kind = limit.used >= limit.limit ? "over" : limit.reached_at !== null ? "near" : "";
    const used = el("div", { class: "used" });
    used.style.width = share(limit.used);
    const held = el("div", { class: "held" });
    held.style.width = share(Math.min(limit.held, Math.max(0, limit.limit - limit.used)));
    const mark = el("div", { class: "mark" });
    mark.style.left = share(limit.projected);
    const figures = `${amount(limit.used, unit)} of ${amount(limit.limit, unit)}, ${percent((100 * limit.used) / limit.limit)}`;
    const text = this.forecast(limit, now);
    const bar = el("div", { class: "bar", role: "img", "aria-label": `${limit.name}: ${figures}. ${text}` }, used, held, mark);
    return el("li", { class: kind },
      el("div", { class: "row" }, el("strong", {}, limit.name), el("span", { class: "grow" }), el("span", { class: "num" }, figures)),
      bar, el("p", { class: "note" }, text));
  }

  forecast(limit, now) {
    const held = limit.held > 0 ? ` Runs hold ${amount(limit.held, limit.unit)} more.` : "";
    if (limit.used >= limit.limit) return `The limit is reached until ${moment(limit.ends_at)}.${held}`;
    const pace = `at the pace of the latest ${PACE[limit.window]}`;
    if (limit.reached_at !== null) return `Reached on ${moment(limit.reached_at)} ${pace}. By ${moment(limit.ends_at)}: ${amount(limit.projected, limit.unit)}.${held}`;
    return `${amount(limit.projected, limit.unit)} by ${moment(limit.ends_at)} ${pace}.${held}`;
  }
}
