// Puts the page together. It asks the server again while somebody looks.

import { button, el, replace, setText } from "./dom.js";
import { signIn, theme } from "./entry.js";
import { clock, tokens, usd } from "./format.js";
import { Chart } from "./chart.js";
import { Limits } from "./limits.js";
import { Tables } from "./tables.js";

const AGAIN_MS = 15000;
const SPANS = { 7: "7 days", 30: "30 days", 90: "90 days", 365: "One year", 0: "All" };

class Page {
  constructor() {
    this.span = el("select", { id: "span", onchange: () => this.load() }, Object.entries(SPANS).sort((a, b) => (Number(a[0]) || 1e9) - (Number(b[0]) || 1e9)).map(([days, text]) => el("option", { value: days, selected: days === "30" }, text)));
    this.figures = el("dl", { class: "figures" });
    this.state = el("span", { class: "note", role: "status" });
    replace(document.getElementById("head"),
      el("div", { class: "row" }, el("h1", {}, "Use"), this.state, el("span", { class: "grow" }), el("label", { for: "span", class: "hidden" }, "Span"), this.span,
        button("Refresh", () => this.load()), document.getElementById("theme")),
      this.figures);
    this.chart = new Chart();
    this.limits = new Limits();
    this.tables = new Tables();
    this.fault = document.getElementById("fault");
    setInterval(() => { if (!document.hidden) this.load(); }, AGAIN_MS);
  }

  async load() {
    const asked = this.span.value;
    try {
      const answer = await fetch(`/api/history?days=${asked}`);
      if (answer.status === 401) {
        signIn(await (await fetch("/api/about")).json(), "For a new one, run: token-budget serve");
        return;
      }
      const data = await answer.json();
      if (!answer.ok) throw new Error(data.error);
      if (asked !== this.span.value) return;
      this.fault.hidden = true;
      const text = JSON.stringify({ ...data, at: 0 });
      setText(this.state, `as of ${clock(data.at)}`);
      if (text !== this.text) this.draw(data);
      this.text = text;
    } catch (error) {
      this.fault.hidden = false;
      setText(this.fault, error instanceof TypeError ? "The server does not answer. Run token-budget serve again." : error.message);
    }
  }

  draw(data) {
    const { totals } = data;
    const figures = [
      ["Tokens", tokens(totals.total_tokens)],
      ["Cost", `${usd(totals.cost_usd)}${totals.unpriced_tokens ? " at least" : ""}`],
      ["Instances done", `${totals.completed} of ${totals.instances}`],
      totals.verified ? ["Verified", String(totals.verified)] : null,
      totals.cost_per_verified_usd === null ? null : ["Cost per verified success", usd(totals.cost_per_verified_usd)],
    ].filter(Boolean);
    replace(this.figures, figures.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
    this.chart.draw(data);
    this.limits.draw(data);
    this.tables.draw(data);
    document.body.classList.add("ready");
  }
}

const page = new Page();
theme(() => page.chart.draw());
page.load();
