// The groups of use and the forecasts as tables that can be sorted and filtered.

import { button, el, replace, selectTab, tabBar } from "./dom.js";
import { counted, percent, tokens, usd } from "./format.js";

const dash = (value, show) => (value === null || value === undefined ? "–" : show(value));
const share = (value) => dash(value, (known) => percent(100 * known));

function drift(value) {
  if (value === null || value === undefined) return "–";
  const change = Math.round((value - 1) * 100);
  return el("span", { class: change > 10 ? "more" : change < -10 ? "less" : "" }, `${change > 0 ? "+" : ""}${change} %`);
}

// key, title, how a value is shown, whether narrow screens leave it out
const USE = [
  ["total_tokens", "Tokens", tokens],
  ["cost_usd", "Cost", usd],
  ["completed", "Done", (value, row) => (row.instances ? `${value}/${row.instances}` : "–"), true],
  ["cost_per_completed_usd", "Cost per done", usd, true],
  ["verified", "Verified", (value) => value || "–", true],
  ["cost_per_verified_usd", "Cost per verified", usd],
  ["p50_tokens", "Half under", tokens, true],
  ["p90_tokens", "90 % under", tokens, true],
  ["cache_share", "Cached", share, true],
];
const DRIFT = ["drift", "Drift", drift];
const FORECAST = [
  ["p50_tokens", "Half under", tokens],
  ["p90_tokens", "90 % under", tokens],
  ["p50_usd", "Half under", usd, true],
  ["p90_usd", "90 % under", usd, true],
  ["instances", "Instances", String],
  ["stopped_early", "Stopped early", String, true],
];
const NOTES = {
  command: "Drift compares the median use of the latest third of the instances with that of the earliest third, with at least six instances.",
  forecast: "What the next run will use, from the latest runs. A forecast needs five runs that were not stopped early.",
};
export const VIEWS = { command: "Commands", model: "Models", instance: "Instances", workspace: "Workspaces", run: "Runs", day: "Days", forecast: "Forecasts" };

export class Tables {
  constructor() {
    this.place = document.getElementById("table");
    this.view = "command";
    this.sorts = {};
    this.filter = el("input", { type: "search", id: "filter", placeholder: "Filter", oninput: () => this.drawRows() });
    this.count = el("span", { class: "dim num", role: "status" });
    this.box = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table" });
    this.note = el("p", { class: "note" });
    this.tabs = tabBar("Views", "view", VIEWS, () => "table", (view) => this.show(view));
    replace(document.getElementById("views"), this.tabs);
    replace(this.place, el("div", { class: "row tools" }, el("label", { for: "filter", class: "hidden" }, "Filter"), this.filter, this.count), this.box, this.note);
    this.mark();
  }

  show(view) {
    this.view = view;
    this.filter.value = "";
    this.mark();
    this.drawRows();
  }

  mark() {
    selectTab(this.tabs, `view-${this.view}`);
    this.place.setAttribute("aria-labelledby", `view-${this.view}`);
  }

  draw(data) {
    this.data = data;
    this.drawRows();
  }

  found() {
    if (this.view === "forecast") return { rows: this.data.forecasts, left_out: 0, name: "subject", columns: FORECAST };
    const columns = this.view === "command" ? [...USE, DRIFT] : USE;
    const { rows } = this.data.tables[this.view];
    const used = columns.filter(([key]) => !["verified", "cost_per_verified_usd"].includes(key) || rows.some((row) => row.verified));
    return { ...this.data.tables[this.view], name: "group", columns: used };
  }

  drawRows() {
    if (!this.data) return;
    const { rows, left_out, name, columns } = this.found();
    const wanted = this.filter.value.trim().toLowerCase();
    const kept = rows.filter((row) => row[name].toLowerCase().includes(wanted));
    const byTime = this.view === "day" || this.view === "run";
    const [key, up] = this.sorts[this.view] || [byTime ? name : columns[0][0], false];
    const value = (row) => (row[key] === null || row[key] === undefined ? -Infinity : row[key]);
    kept.sort((a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0) * (up ? 1 : -1));
    const heads = [[name, VIEWS[this.view].replace(/s$/, "")], ...columns].map(([one, title, , isExtra], place) =>
      el("th", { scope: "col", class: isExtra ? "extra" : "", "aria-sort": one === key ? (up ? "ascending" : "descending") : "none" },
        button(title, () => { this.sorts[this.view] = [one, one === key ? !up : place === 0]; this.drawRows(); document.querySelectorAll("#table th button")[place].focus(); })));
    replace(this.box, el("table", {}, el("thead", {}, el("tr", {}, heads)),
      el("tbody", {}, kept.map((row) => el("tr", {}, el("td", {}, row[name]), columns.map(([one, , show, isExtra]) => el("td", { class: isExtra ? "extra" : "" }, show(row[one], row))))))));
    replace(this.count, counted(kept.length, "row"), left_out ? `, ${left_out.toLocaleString("en-US")} with less use or older are left out` : "");
    replace(this.note, NOTES[this.view] || "");
  }
}
