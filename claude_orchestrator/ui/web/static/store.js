// The run as the page knows it: a snapshot, and every event after it. Pure.

const NOTABLE = new Set(["alert_raised", "approval_ended", "crossed", "decided", "retry_planned", "run_stopping", "steered", "stopping"]);
const MOST_DECISIONS = 1000;
const MOST_POINTS = 1200;
// The cost in dollars, of the run or of an instance: Claude's figure, or prices where it has none yet.
export function costOf(figures) {
  if (figures.cost_nano_usd === null || figures.cost_nano_usd === undefined) return figures.cost_usd;
  return figures.cost_nano_usd / 1e9;
}

export const ENDED = new Set(["completed", "failed", "blocked", "skipped", "stopped", "timed_out", "cancelled", "interrupted"]);

// A run that is over is known from its journal, which has less.
const BLANK = {
  group: null, index: 0, state: "pending", reason: "", description: null, command: "", depends_on: [], models: [], cost_usd: null,
  estimate_tokens: null, base_command: null, budgets: [], turn: 1, turns: 1, now: null, seconds: null, started_at: null, ended_at: null, attempts: 0, tools: {},
  permission_denials: [], session_id: null, exit_code: null, verified: null, check_rounds: 0, changes: null, branch: null, log: null, result_file: null,
};

export class Store {
  constructor(now = () => Date.now() / 1000) {
    this.now = now;
    this.listeners = [];
    this.clear();
  }

  clear() {
    this.ready = false;
    this.number = -1;
    this.source = "";
    this.rows = new Map();
    this.run = {};
    this.totals = { states: {} };
    this.budgets = [];
    this.rateLimits = [];
    this.groups = [];
    this.edges = [];
    this.removed = [];
    this.decisions = [];
    this.approvals = [];
    this.timeline = { at: [], series: {} };
    this.offset = 0; // the server's clock less ours
    this.receivedAt = 0;
  }

  listen(listener) {
    this.listeners.push(listener);
  }

  changed(what) {
    for (const listener of this.listeners) listener(what);
  }

  // -- what the server sends --

  snapshot(data) {
    this.clear();
    this.ready = true;
    this.number = data.number;
    this.source = data.source;
    this.offset = data.at - this.now();
    this._brief(data);
    for (const row of data.instances) this._row(row);
    this.groups = data.groups;
    this.edges = data.edges;
    this.removed = data.removed;
    this.decisions = data.decisions.slice(-MOST_DECISIONS);
    this.approvals = data.approvals;
    this.timeline = { at: [...data.timeline.at], series: { ...data.timeline.series } };
    this.changed("all");
  }

  frame(data) {
    this._brief(data.brief);
    const touched = new Set();
    for (const event of data.events) {
      if (event.n <= this.number) continue;
      this._apply(event, touched);
    }
    this.number = Math.max(this.number, data.number);
    this._sample();
    this.changed({ touched });
  }

  _brief(brief) {
    this.run = brief.run;
    this.totals = brief.totals;
    this.budgets = brief.budgets;
    this.rateLimits = brief.rate_limits;
    this.receivedAt = this.now();
  }

  _row(given) {
    const row = { ...BLANK, ...given };
    row.receivedAt = this.now();
    row.tokens = row.usage.total_tokens;
    row.command = row.command || row.base_command || "";
    this.rows.set(row.name, row);
  }

  _apply(event, touched) {
    const row = this.rows.get(event.instance);
    if (event.instance) touched.add(event.instance);
    if (event.row) this._row(event.row);
    for (const added of event.rows || []) {
      this._row(added);
      touched.add(added.name);
      for (const need of added.depends_on) this.edges.push([need, added.name]);
    }
    if (NOTABLE.has(event.kind)) {
      this.decisions.push(event);
      if (this.decisions.length > MOST_DECISIONS) this.decisions.splice(0, this.decisions.length - MOST_DECISIONS);
    }
    if (event.kind === "approval_asked") {
      if (!this.approvals.some((one) => one.id === event.id)) this.approvals = [...this.approvals, { ...event, input: null }];
    } else if (event.kind === "approval_ended") {
      this.approvals = this.approvals.filter((one) => one.id !== event.id);
    }
    if (!row || event.row) return;
    if (event.kind === "usage_recorded") {
      row.usage = event.usage;
      row.tokens = event.usage.total_tokens;
      row.cost_usd = event.cost_usd;
      row.cost_nano_usd = event.cost_nano_usd;
      row.models = event.models;
    } else if (event.kind === "activity") {
      row.now = event.now;
      row.nowAt = this.now();
      row.turn = event.turn;
    } else if (event.kind === "decided" && event.action === "wait") {
      row.state = "waiting";
      row.reason = event.reason;
    } else if (event.kind === "stopping") {
      row.reason = event.reason;
    } else if (event.kind === "checked") {
      row.verified = event.passed;
      row.check_rounds = event.round;
    } else if (event.kind === "changes_kept") {
      row.changes = event.changes;
    } else if (event.kind === "session_named") {
      row.session_id = event.session_id;
    }
  }

  // -- what the views ask --

  clock() {
    return this.now() + this.offset;
  }

  seconds(row) {
    if (row.seconds === null) return null;
    return row.state === "running" ? row.seconds + this.now() - row.receivedAt : row.seconds;
  }

  doingSeconds(row) {
    if (!row.now || row.now.seconds === null) return null;
    return row.now.seconds + this.now() - (row.nowAt || row.receivedAt);
  }

  get over() {
    return this.run.state === "ended" || this.run.state === "interrupted";
  }

  _sample() {
    const { at, series } = this.timeline;
    const now = this.clock();
    if (at.length && now - at[at.length - 1] < 1) return;
    const values = { tokens: this.totals.total_tokens, usd: costOf(this.totals) || 0 };
    for (const budget of this.budgets) values[`${budget.unit}:${budget.label}`] = budget.used;
    for (const name of Object.keys(values)) if (!series[name]) series[name] = at.map(() => null);
    at.push(now);
    for (const name of Object.keys(series)) series[name].push(name in values ? values[name] : null);
    if (at.length > MOST_POINTS) {
      const keep = (_, place, all) => place % 2 === 0 || place === all.length - 1;
      this.timeline = { at: at.filter(keep), series: Object.fromEntries(Object.entries(series).map(([name, list]) => [name, list.filter(keep)])) };
    }
  }

  // How fast a series has grown over the last minutes, each second.
  rate(name, seconds = 120) {
    const { at, series } = this.timeline;
    const list = series[name];
    if (!list || at.length < 2) return 0;
    const last = at.length - 1;
    let first = last;
    while (first > 0 && at[last] - at[first] < seconds) first -= 1;
    while (first < last && list[first] === null) first += 1;
    const passed = at[last] - at[first];
    return passed < 3 ? 0 : Math.max(0, (list[last] - list[first]) / passed);
  }

  // Whether an instance may still use some of a budget.
  isDrawnOn(label) {
    for (const row of this.rows.values()) if (!ENDED.has(row.state) && row.budgets.includes(label)) return true;
    return false;
  }

  // What the instances that draw on a budget are estimated to use from now on, in tokens.
  expected(label) {
    let sum = 0;
    for (const row of this.rows.values()) {
      if (ENDED.has(row.state) || !row.estimate_tokens) continue;
      if (label === null || row.budgets.includes(label)) sum += Math.max(0, row.estimate_tokens - row.tokens);
    }
    return sum;
  }
}
