// What was decided about the run, by whom and why. The latest first.

import { button, el, replace } from "./dom.js";
import { clock } from "./format.js";

const SHOWN = 200;

export class Decisions {
  constructor(store, open) {
    this.store = store;
    this.open = open;
    this.place = document.getElementById("decisions");
  }

  draw() {
    const { decisions } = this.store;
    const last = decisions[decisions.length - 1];
    const key = `${decisions.length}/${last ? last.at : ""}`;
    if (key === this.key) return;
    this.key = key;
    if (!last) {
      replace(this.place, el("p", { class: "dim" }, "Nothing was decided but plain starts."));
      return;
    }
    const shown = decisions.slice(-SHOWN).reverse();
    replace(this.place, el("ol", { class: "decisions" }, shown.map((event) => this.item(event))), decisions.length > SHOWN ? el("p", { class: "dim" }, `${decisions.length - SHOWN} earlier ones are in the journal.`) : null);
  }

  item(event) {
    const [word, kind, text] = words(event);
    const by = event.by ? [event.by.user, event.by.via].filter(Boolean).join(" by ") : "";
    return el("li", {}, el("time", { class: "num dim" }, clock(event.at)), el("span", { class: `tag tag-${kind}` }, word),
      el("span", {}, event.instance ? [button(event.instance, () => this.open(event.instance), { class: "name" }), " "] : null, text, by ? el("span", { class: "dim" }, ` (${by}${event.by.why ? `: ${event.by.why}` : ""})`) : null));
  }
}

function words(event) {
  switch (event.kind) {
    case "decided": return [event.action, event.action === "block" ? "bad" : event.action === "warn" ? "warn" : "plain", event.reason];
    case "crossed": return ["limit", "bad", `The ${event.budget.label} budget has passed its limit`];
    case "stopping": return ["stop", "bad", event.reason];
    case "steered": return [event.action.replace(/_/g, " "), "done", event.text];
    case "alert_raised": return ["alert", "warn", event.text];
    case "retry_planned": return ["retry", "warn", `attempt ${event.attempt} failed: ${event.cause || "unknown"}, next in ${Math.round(event.wait_s)} s`];
    case "approval_ended": return [event.outcome, event.outcome === "allowed" ? "done" : "plain", event.text];
    case "run_stopping": return ["stop", "bad", event.reason];
    default: return [event.kind.replace(/_/g, " "), "plain", ""];
  }
}
