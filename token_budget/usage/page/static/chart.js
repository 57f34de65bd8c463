// The use of each day as stacked bars. `uPlot` comes from vendor/uplot.js.

import { axisStyle, color, el, replace, setText } from "./dom.js";
import { amount, day } from "./format.js";

const HEIGHT = 260;
const DAY_S = 86400;

export class Chart {
  constructor() {
    this.place = document.getElementById("chart");
    this.by = el("select", { id: "by", onchange: () => this.draw() }, el("option", { value: "command" }, "By command"), el("option", { value: "model" }, "By model"));
    this.unit = el("select", { id: "unit", onchange: () => this.draw() }, el("option", { value: "tokens" }, "Tokens"), el("option", { value: "usd" }, "Dollars"));
    this.box = el("div", { class: "plot", role: "img" });
    this.names = el("ul", { class: "names" });
    this.summary = el("p", { class: "note" });
    replace(this.place,
      el("div", { class: "row" }, el("h2", {}, "Use by day"), el("span", { class: "grow" }),
        el("label", { for: "by", class: "hidden" }, "Group"), this.by, el("label", { for: "unit", class: "hidden" }, "Unit"), this.unit),
      this.box, this.summary, this.names);
    new ResizeObserver(() => { if (this.plot && this.box.clientWidth > 0) this.plot.setSize({ width: this.box.clientWidth, height: HEIGHT }); }).observe(this.box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  get money() {
    return this.unit.value === "usd" ? "USD" : "tokens";
  }

  draw(data = this.data) {
    if (!data) return;
    this.data = data;
    const found = data.charts[`${this.unit.value}/${this.by.value}`];
    if (this.plot) this.plot.destroy();
    this.plot = null;
    this.box.replaceChildren();
    const names = found.names.map((name) => (name === null ? "all others" : name));
    const sums = found.values.map((values) => values.reduce((sum, value) => sum + value, 0));
    replace(this.names, names.map((name, place) => el("li", {}, this.swatch(found, place), name, el("span", { class: "dim num" }, amount(sums[place], this.money)))));
    const all = sums.reduce((sum, value) => sum + value, 0);
    this.text = found.at.length ? `${amount(all, this.money)} from ${day(found.at[0])} to ${day(found.at[found.at.length - 1])}` : "Nothing was used in this time.";
    setText(this.summary, this.text);
    this.box.setAttribute("aria-label", `Use by day: ${this.text}`);
    if (found.at.length) this.make(found, names);
  }

  color(found, place) {
    const name = found.names[place] === null ? "--c8" : `--c${place % 8}`;
    return color(name);
  }

  swatch(found, place) {
    const mark = el("span", { class: "swatch", "aria-hidden": "true" });
    mark.style.background = this.color(found, place);
    return mark;
  }

  // The tallest stack is drawn first, and shorter ones over it.
  make(found, names) {
    const axis = axisStyle();
    const below = found.at.map(() => 0);
    const stacks = found.values.map((values) => values.map((value, place) => { below[place] += value; return below[place]; }));
    const bars = uPlot.paths.bars({ size: [0.8, 60], align: 1 });
    const order = names.map((_, place) => place).reverse();
    const [first, last] = [found.at[0], found.at[found.at.length - 1] + DAY_S];
    this.plot = new uPlot({
      width: Math.max(200, this.box.clientWidth), height: HEIGHT, cursor: { y: false, points: { show: false } }, legend: { show: false },
      hooks: { setCursor: [(plot) => this.point(found, names, plot)] },
      scales: { x: { time: true, range: () => [first, last] }, y: { range: (_, min, max) => [0, max > 0 ? max * 1.08 : 1] } },
      axes: [{ ...axis, values: (_, ticks) => ticks.map((tick) => day(tick)), incrs: [DAY_S, 2 * DAY_S, 7 * DAY_S, 14 * DAY_S, 28 * DAY_S, 91 * DAY_S], space: 70 },
        { ...axis, size: 62, values: (_, ticks) => ticks.map((tick) => amount(tick, this.money)) }],
      series: [{}, ...order.map((place) => ({ label: names[place], fill: this.color(found, place), width: 0, paths: bars, points: { show: false } }))],
    }, [found.at, ...order.map((place) => stacks[place])], this.box);
  }

  // The day that the mouse points at.
  point(found, names, plot) {
    const { left } = plot.cursor;
    const at = left === undefined || left < 0 ? -1 : plot.posToVal(left, "x");
    const place = found.at.findIndex((begin, one) => at >= begin && at < (found.at[one + 1] || begin + DAY_S));
    if (place < 0) {
      setText(this.summary, this.text);
      return;
    }
    const parts = found.values.map((values, one) => [values[place], names[one]]).filter(([value]) => value > 0);
    const sum = parts.reduce((total, [value]) => total + value, 0);
    setText(this.summary, `${day(found.at[place])}: ${amount(sum, this.money)}${parts.length ? ` (${parts.slice(0, 4).map(([value, name]) => `${name} ${amount(value, this.money)}`).join(", ")})` : ""}`);
  }
}
