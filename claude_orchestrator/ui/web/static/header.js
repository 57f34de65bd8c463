// The head of the page: what the run is, how far it is, and what can be done with all of it.

import { ask, button, el, replace, setText, toast } from "./dom.js";
import { about, counted, span, tokens, usd } from "./format.js";
import { costOf } from "./store.js";

const STATES = { waiting: "waits for its start time", running: "running", paused: "launches paused", stopping: "stopping", ended: "ended", interrupted: "interrupted" };

export class Header {
  constructor(store, actions) {
    this.store = store;
    this.actions = actions;
    this.place = document.getElementById("head");
    this.title = el("h1", {});
    this.state = el("span", { class: "pill" });
    this.link = el("span", { class: "pill link", role: "status" });
    this.figures = el("dl", { class: "figures" });
    this.progress = el("div", { class: "progress", role: "img" });
    this.controls = el("div", { class: "row controls" });
    replace(this.place,
      el("div", { class: "row" }, this.title, this.state, this.link, el("span", { class: "grow" }), this.controls, document.getElementById("theme")), this.progress, this.figures);
  }

  connection(state) {
    const words = { live: "live", lost: "connection lost, trying again", over: "the run has left", refused: "signed out", file: "a finished run" };
    this.link.className = `pill link link-${state}`;
    setText(this.link, words[state]);
  }

  draw() {
    const { store } = this;
    const { run, totals } = store;
    setText(this.title, `${run.rehearsal ? "Rehearsal" : "Run"} ${run.id}`);
    document.title = `${this.doneText()} · ${run.id}`;
    setText(this.state, STATES[run.state] || run.state);
    this.link.hidden = store.over;
    this.state.className = `pill run-${run.state}`;
    this.drawProgress(totals);
    this.drawFigures(run, totals);
    this.drawControls(run);
  }

  counts() {
    const states = this.store.totals.states;
    const sum = (...names) => names.reduce((all, name) => all + (states[name] || 0), 0);
    const [done, failed, stopped] = [sum("completed"), sum("failed", "blocked", "timed_out"), sum("stopped", "cancelled", "interrupted")];
    return { done, failed, stopped, skipped: sum("skipped"), all: this.store.totals.instances, running: states.running || 0, waiting: states.waiting || 0 };
  }

  doneText() {
    const { done, all } = this.counts();
    return `${done}/${all} done`;
  }

  drawProgress(totals) {
    const order = ["completed", "failed", "blocked", "timed_out", "stopped", "cancelled", "skipped", "running", "waiting", "pending"];
    const parts = order.filter((state) => totals.states[state]);
    const key = parts.map((state) => `${state}${totals.states[state]}`).join();
    if (key === this.progressKey) return;
    this.progressKey = key;
    this.progress.setAttribute("aria-label", parts.map((state) => `${totals.states[state]} ${state.replace("_", " ")}`).join(", "));
    replace(this.progress, parts.map((state) => {
      const part = el("span", { class: `part fill-${state}`, title: `${totals.states[state]} ${state.replace("_", " ")}` });
      part.style.flexGrow = totals.states[state];
      return part;
    }));
  }

  drawFigures(run, totals) {
    const { store } = this;
    const { done, failed, stopped, skipped, all, running, waiting } = this.counts();
    const seconds = store.over ? run.seconds : run.seconds + store.now() - store.receivedAt;
    const rate = store.over ? (60 * totals.total_tokens) / Math.max(1, run.seconds) : totals.tokens_per_min || 60 * store.rate("tokens", 60);
    const figures = [
      ["Done", `${done} of ${all}`],
      failed ? ["Failed", String(failed), "bad"] : null,
      stopped ? ["Stopped", String(stopped)] : null,
      skipped ? ["Skipped", String(skipped)] : null,
      store.over ? null : ["Running", `${running}${waiting ? `, ${waiting} waiting` : ""}`],
      ["Tokens", tokens(totals.total_tokens) + (totals.exact ? "" : " at least")],
      costOf(totals) === null ? null : ["Cost", usd(costOf(totals))],
      ["Time", span(seconds)],
      rate > 0 ? ["Rate", `${tokens(rate)}/min`] : null,
      !store.over && totals.left_s > 0 ? ["Left", `~${about(totals.left_s)}`] : null,
      ...store.rateLimits.map((limit) => [limit.name, `${Math.round(limit.used_percent)} % used`]),
    ].filter(Boolean);
    const key = figures.map((figure) => figure[0]).join();
    if (key !== this.figuresKey) {
      this.figuresKey = key;
      replace(this.figures, figures.map(([name, , kind]) => el("div", {}, el("dt", {}, name), el("dd", { class: kind || "" }))));
    }
    figures.forEach(([, value], place) => setText(this.figures.children[place].lastChild, value));
  }

  drawControls(run) {
    const canAct = this.actions.canAct && !this.store.over;
    const key = `${canAct}${run.paused}${run.max_parallel}${run.state}`;
    if (key === this.controlsKey) return;
    this.controlsKey = key;
    if (!canAct) {
      replace(this.controls);
      return;
    }
    replace(this.controls,
      run.paused ? button("Resume launches", () => this.actions.run("resume", {}, "Launches continue"), { class: "primary" })
        : button("Pause launches", () => this.actions.run("pause", {}, "Nothing more is launched. What runs continues.")),
      button(`${run.max_parallel} at once …`, () => this.parallel(run.max_parallel), { title: "How many instances run at once" }),
      button("Stop run …", () => this.stop(), { class: "danger", disabled: run.state === "stopping" }));
  }

  async parallel(before) {
    const typed = await ask("Instances at once", "Those that run already continue.", { field: "Number", value: String(before), action: "Set" });
    if (typed === null) return;
    const number = Number(typed);
    if (!Number.isInteger(number) || number < 1) toast("Expected a whole number from 1", true);
    else await this.actions.run("set_max_parallel", { number }, `At most ${counted(number, "instance")} at once`);
  }

  async stop() {
    const why = await ask("Stop the run?", "Every instance ends. You can resume the run later.", { field: "Reason, for the journal", action: "Stop run", danger: true });
    if (why !== null) await this.actions.run("stop_run", { why }, "The run is being stopped");
  }
}
