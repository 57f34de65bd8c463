// One instance: its figures, its conversation as it happens, its result, its changes, its attempts and its raw log.

import { ask, button, el, replace, selectTab, setText, stateMark, tabBar } from "./dom.js";
import { bytes, clock, span, tokens, usd } from "./format.js";
import { Conversation } from "./conversation.js";
import { diffView } from "./diff.js";
import { costOf, ENDED } from "./store.js";

const POLL_MS = 700;
const TABS = { conversation: "Conversation", result: "Result", changes: "Changes", figures: "Figures", log: "Raw log" };

export class Detail {
  constructor(store, source, actions, closed) {
    this.store = store;
    this.source = source;
    this.actions = actions;
    this.closed = closed;
    this.place = document.getElementById("detail");
    this.name = null;
    this.tab = "conversation";
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.name && !document.querySelector("dialog[open]")) this.close();
    });
  }

  open(name) {
    if (!this.store.rows.has(name)) return;
    const isNew = name !== this.name;
    this.name = name;
    this.place.hidden = false;
    document.body.classList.add("with-detail");
    if (isNew) {
      this.attempt = null;
      this.build();
      this.show(this.tab);
    }
    this.title.focus({ preventScroll: true });
    history.replaceState(null, "", `#instance=${encodeURIComponent(name)}`);
  }

  close() {
    this.name = null;
    this.turn = null; // answers that come later are dropped
    clearTimeout(this.polling);
    this.place.hidden = true;
    document.body.classList.remove("with-detail");
    history.replaceState(null, "", location.pathname + location.search);
    this.closed();
  }

  get row() {
    return this.store.rows.get(this.name);
  }

  build() {
    const { row } = this;
    this.title = el("h2", { tabindex: -1 }, row.name);
    this.state = el("span", {});
    this.facts = el("p", { class: "note" });
    this.reason = el("p", { class: "reason" });
    this.stopButton = this.actions.canAct ? button("Stop …", () => this.stop(), { class: "danger" }) : null;
    this.attempts = el("select", { id: "attempt", onchange: () => { this.attempt = Number(this.attempts.value); this.show(this.tab); } });
    this.attemptBox = el("span", { class: "row" }, el("label", { for: "attempt" }, "Attempt"), this.attempts);
    this.tabs = tabBar("Parts of the instance", "tab", TABS, () => "pane", (tab) => this.show(tab));
    this.pane = el("div", { id: "pane", role: "tabpanel", class: "pane", tabindex: 0 });
    replace(this.place, el("div", { class: "row" }, this.title, this.state, el("span", { class: "grow" }), this.stopButton, button("Close", () => this.close(), { "aria-label": "Close the details" })),
      el("p", { class: "command" }, el("code", {}, row.command)), this.facts, this.reason, el("div", { class: "row" }, this.tabs, el("span", { class: "grow" }), this.attemptBox), this.pane);
    this.draw();
  }

  draw() {
    const row = this.name && this.row;
    if (!row) return;
    if (this.stateNow !== row.state || !this.state.firstChild) {
      this.stateNow = row.state;
      replace(this.state, stateMark(row.state));
    }
    const doing = row.now && !ENDED.has(row.state) ? row.now.text : "";
    const facts = [span(this.store.seconds(row)), `${tokens(row.tokens)} tokens`, costOf(row) === null ? "" : usd(costOf(row)), row.models.join(", "), doing];
    setText(this.facts, facts.filter(Boolean).join(" · "));
    setText(this.reason, row.reason || "");
    this.reason.hidden = !row.reason;
    if (this.stopButton) this.stopButton.hidden = ENDED.has(row.state);
    const attempts = Math.max(1, row.attempts);
    if (this.attempts.children.length !== attempts) {
      const latest = this.attempt === null || this.attempt === this.attempts.children.length;
      replace(this.attempts, Array.from({ length: attempts }, (_, place) => el("option", { value: place + 1 }, String(place + 1))));
      this.attempts.value = String(latest ? attempts : this.attempt);
      if (latest && this.attempt !== null && this.attempt !== attempts) {
        this.attempt = attempts;
        if (this.tab === "conversation" || this.tab === "log") this.show(this.tab);
      }
      this.attempt = Number(this.attempts.value);
    }
    this.attemptBox.hidden = attempts < 2;
    if (this.tab === "figures") this.figures();
    if ((this.tab === "result" || this.tab === "changes") && this.shownFor !== this.partKey()) this.show(this.tab);
  }

  partKey() {
    const { row } = this;
    return `${row.state}${row.result_file || ""}${row.changes ? `${row.changes.insertions}/${row.changes.deletions}` : ""}`;
  }

  show(tab) {
    this.tab = tab;
    clearTimeout(this.polling);
    selectTab(this.tabs, `tab-${tab}`);
    this.pane.setAttribute("aria-labelledby", `tab-${tab}`);
    this.pane.className = `pane pane-${tab}`;
    this.pane.replaceChildren();
    this.shownFor = this.partKey();
    this.turn = {};
    this[tab](this.turn);
  }

  // -- the tabs; `turn` is new each time, so that late answers of an earlier one are dropped --

  conversation(turn) {
    const talk = new Conversation(this.pane);
    let offset = 0;
    const next = async () => {
      if (turn !== this.turn) return;
      const attempt = this.attempt || "";
      let wait = POLL_MS;
      try {
        const found = await this.source.conversation(this.name, attempt, offset);
        if (turn !== this.turn) return;
        talk.add(found.items);
        const grew = found.next > offset;
        offset = found.next;
        if (grew && found.next < found.size) wait = 0;
        if (!this.source.canFetch || (ENDED.has(this.row.state) && !grew)) {
          if (!talk.place.firstChild) replace(this.pane, el("p", { class: "dim" }, "Nothing was said."));
          return;
        }
      } catch (error) {
        if (turn !== this.turn) return;
        if (!offset && ENDED.has(this.row.state)) return void replace(this.pane, el("p", { class: "dim" }, error.message));
        wait = 2 * POLL_MS;
      }
      this.polling = setTimeout(next, wait);
    };
    next();
  }

  async part(turn, load, show, none) {
    try {
      const found = await load(this.name);
      if (turn === this.turn) replace(this.pane, show(found));
    } catch (error) {
      if (turn === this.turn) replace(this.pane, el("p", { class: "dim" }, ENDED.has(this.row.state) ? error.message : none));
    }
  }

  result(turn) {
    return this.part(turn, (name) => this.source.answer(name),
      ({ text, size }) => [el("pre", { class: "answer" }, text), size > text.length * 4 ? el("p", { class: "dim" }, `The whole answer has ${bytes(size)}.`) : null], "There is no answer yet.");
  }

  changes(turn) {
    const { row } = this;
    const about = row.changes ? el("p", { class: "note" }, `${row.changes.files} files, +${row.changes.insertions} −${row.changes.deletions}, on ${row.changes.branch}`) : null;
    return this.part(turn, (name) => this.source.patch(name), ({ text }) => [about, diffView(text)], "There are no changes yet.");
  }

  figures() {
    const { row } = this;
    const { usage } = row;
    const time = (iso) => (iso ? clock(Date.parse(iso) / 1000) : "–");
    const facts = [
      ["Description", row.description], ["Group", row.group], ["Depends on", row.depends_on.join(", ")],
      ["Started", time(row.started_at)], ["Ended", time(row.ended_at)], ["Attempts", row.attempts],
      ["Input tokens", usage.input_tokens.toLocaleString("en-US")], ["Output tokens", usage.output_tokens.toLocaleString("en-US")],
      ["Cache written", usage.cache_creation_input_tokens.toLocaleString("en-US")], ["Cache read", usage.cache_read_input_tokens.toLocaleString("en-US")],
      ["Total tokens", `${usage.total_tokens.toLocaleString("en-US")}${usage.exact ? "" : " at least"}`],
      ["Estimate", row.estimate_tokens ? tokens(row.estimate_tokens) : ""], ["Budgets", row.budgets.join(", ")],
      ["Tools", Object.entries(row.tools).map(([tool, number]) => `${tool} ${number}`).join(", ")],
      ["Denied", row.permission_denials.join(", ")],
      ["Check", row.verified === null ? "" : `${row.verified ? "passed" : "failed"} after ${row.check_rounds} rounds`],
      ["Session", row.session_id], ["Exit code", row.exit_code], ["Branch", row.branch], ["Log", row.log],
    ].filter(([, value]) => value !== null && value !== undefined && value !== "");
    replace(this.pane, el("dl", { class: "facts" }, facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])));
  }

  async log(turn) {
    const text = el("pre", { class: "raw" });
    const note = el("span", { class: "dim" });
    let from = -65536;
    let end = 0;
    const load = async (offset) => {
      const found = await this.source.log(this.name, this.attempt || "", offset);
      if (turn !== this.turn) return;
      from = found.next - new TextEncoder().encode(found.text).length;
      end = found.next;
      setText(text, found.text);
      setText(note, `${bytes(Math.max(0, from))} to ${bytes(end)} of ${bytes(found.size)}`);
    };
    replace(this.pane, el("div", { class: "row" }, button("Start", () => load(0)), button("Back", () => load(Math.max(0, from - 65536))), button("Forward", () => load(end)), button("End", () => load(-65536)), note), text);
    try {
      await load(-65536);
    } catch (error) {
      if (turn === this.turn) replace(this.pane, el("p", { class: "dim" }, error.message));
    }
  }

  async stop() {
    const name = this.name;
    const why = await ask(`Stop ${name}?`, "What it has done so far stays.", { field: "Reason, for the journal", action: "Stop", danger: true });
    if (why !== null) await this.actions.run("stop", { names: [name], why }, `${name} is being stopped`);
  }
}
