// Tokens and dollars over time, against a limit. `uPlot` comes from vendor/uplot.js.

import { axisStyle, color, el, replace, setText } from "./dom.js";
import { amount, clock } from "./format.js";

const PLOT_HEIGHT = 170;

export class Chart {
  constructor(store) {
    this.store = store;
    this.place = document.getElementById("chart");
    this.select = el("select", { id: "series", onchange: () => this.draw(true) });
    this.box = el("div", { class: "plot" });
    this.summary = el("p", { class: "note" });
    replace(this.place, el("div", { class: "row" }, el("h2", {}, "Over time"), el("span", { class: "grow" }), el("label", { for: "series" }, "Series"), this.select), this.box, this.summary);
    new ResizeObserver(() => this.resize()).observe(this.box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw(true));
  }

  options() {
    const budgets = this.store.budgets.map((budget) => [`${budget.unit}:${budget.label}`, `${budget.label} budget${budget.unit === "USD" ? " ($)" : ""}`]);
    return [["tokens", "Tokens"], ["usd", "Dollars"], ...budgets];
  }

  draw(again = false) {
    const options = this.options();
    const key = options.map((option) => option[0]).join();
    if (key !== this.key) {
      const first = this.key === undefined;
      this.key = key;
      const before = this.select.value;
      replace(this.select, options.map(([value, text]) => el("option", { value }, text)));
      const overall = this.store.budgets.find((budget) => budget.scope === "overall" && budget.unit === "tokens");
      this.select.value = !first && options.some(([value]) => value === before) ? before : overall ? `tokens:${overall.label}` : "tokens";
      again = true;
    }
    const name = this.select.value;
    const budget = this.store.budgets.find((one) => `${one.unit}:${one.label}` === name);
    const unit = budget ? budget.unit : name === "usd" ? "USD" : "tokens";
    const { at, series } = this.store.timeline;
    const used = series[name] || at.map(() => null);
    const data = budget ? [at, used, at.map(() => budget.limit)] : [at, used];
    if (again || !this.plot) this.make(unit, Boolean(budget));
    this.plot.setData(data);
    this.shown = { unit, at, used };
    const last = used.length ? used[used.length - 1] || 0 : 0;
    this.text = (budget ? `${amount(last, unit)} of ${amount(budget.limit, unit)} used by ${clock(this.store.clock())}` : `${amount(last, unit)} by ${clock(this.store.clock())}`);
    setText(this.summary, this.text);
    this.box.setAttribute("aria-label", this.text);
  }

  make(unit, withLimit) {
    if (this.plot) this.plot.destroy();
    const axis = axisStyle();
    const show = (_, value) => (value === null ? "–" : amount(value, unit));
    const lines = [{ label: "Used", stroke: color("--accent"), fill: color("--accent-soft"), width: 2, value: show, points: { show: false } }];
    if (withLimit) lines.push({ label: "Limit", stroke: color("--bad"), dash: [6, 4], width: 1.5, value: show, points: { show: false } });
    this.box.setAttribute("role", "img");
    this.plot = new uPlot({
      width: Math.max(200, this.box.clientWidth), height: PLOT_HEIGHT, cursor: { y: false }, legend: { show: false },
      hooks: { setCursor: [(plot) => this.point(plot.cursor.idx)] },
      scales: { x: { time: true }, y: { range: (_, min, max) => [0, max > 0 ? max * 1.08 : 1] } },
      axes: [{ ...axis, values: (_, ticks) => ticks.map((tick) => clock(tick, true)), space: 80 }, { ...axis, size: 62, values: (_, ticks) => ticks.map((tick) => amount(tick, unit)) }],
      series: [{ label: "Time", value: (_, value) => (value === null ? "–" : clock(value)) }, ...lines],
    }, [[], ...lines.map(() => [])], this.box);
  }

  // What the mouse points at.
  point(place) {
    const { unit, at, used } = this.shown || {};
    if (place === null || place === undefined || !used || used[place] === null || used[place] === undefined) setText(this.summary, this.text || "");
    else setText(this.summary, `${amount(used[place], unit)} at ${clock(at[place])}`);
  }

  resize() {
    if (this.plot && this.box.clientWidth > 0) this.plot.setSize({ width: this.box.clientWidth, height: PLOT_HEIGHT });
  }
}
