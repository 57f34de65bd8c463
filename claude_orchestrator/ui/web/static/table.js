// The table of instances. Only the rows in view are in the document, so that 1,000 rows scroll smoothly.

import { button, el, replace, setText, stateMark } from "./dom.js";
import { counted, span, tokens, usd } from "./format.js";
import { costOf, ENDED } from "./store.js";

const ROW = 36; // pixels, as in app.css
const EXTRA = 8;
const RANK = { failed: 0, blocked: 1, timed_out: 1, stopped: 2, running: 3, waiting: 4, pending: 5, cancelled: 6, completed: 7, skipped: 8 };

const COLUMNS = [
  { key: "name", title: "Instance", of: (row) => row.name.toLowerCase() },
  { key: "state", title: "State", of: (row) => RANK[row.state] ?? 9 },
  { key: "time", title: "Time", number: true, of: (row, store) => store.seconds(row) ?? -1 },
  { key: "tokens", title: "Tokens", number: true, of: (row) => row.tokens },
  { key: "cost", title: "Cost", number: true, of: (row) => costOf(row) ?? -1 },
  { key: "turn", title: "Turn", number: true, of: (row) => row.turn },
  { key: "now", title: "Now", of: (row) => (row.now ? row.now.text : row.reason).toLowerCase() },
];

export class Table {
  constructor(store, open) {
    this.store = store;
    this.open = open;
    this.sort = { key: "state", down: false };
    this.filter = "";
    this.stateFilter = "";
    this.grouped = true;
    this.folded = new Set();
    this.selected = null;
    this.lines = [];
    this.pool = new Map();
    this.build();
  }

  build() {
    this.search = el("input", { type: "search", id: "filter", placeholder: "Filter by name, command, state or model", oninput: () => { this.filter = this.search.value.toLowerCase(); this.draw(); } });
    this.states = el("select", { id: "state-filter", onchange: () => { this.stateFilter = this.states.value; this.draw(); } },
      ["", "running", "waiting", "pending", "failed", "blocked", "stopped", "completed", "skipped"].map((state) => el("option", { value: state }, state || "All states")));
    this.group = el("input", { type: "checkbox", id: "grouped", checked: true, onchange: () => { this.grouped = this.group.checked; this.draw(); } });
    this.count = el("span", { class: "dim", role: "status" });
    this.heads = COLUMNS.map((column) => el("div", { role: "columnheader", class: `c-${column.key}${column.number ? " num" : ""}` }, button(column.title, () => this.sortBy(column.key))));
    this.header = el("div", { role: "row", class: "line heads", "aria-rowindex": 1 }, this.heads);
    this.space = el("div", { class: "space", role: "rowgroup" });
    this.view = el("div", { class: "rows", tabindex: 0, role: "table", "aria-label": "Instances", onscroll: () => this.paint(), onkeydown: (event) => this.key(event) },
      el("div", { role: "rowgroup", class: "sticky" }, this.header), this.space);
    this.groupToggle = el("span", { class: "row" }, this.group, el("label", { for: "grouped" }, "Groups"));
    replace(document.getElementById("instances"),
      el("div", { class: "row tools" }, el("label", { for: "filter", class: "hidden" }, "Filter"), this.search, el("label", { for: "state-filter", class: "hidden" }, "State"), this.states, this.groupToggle, el("span", { class: "grow" }), this.count), this.view);
    new ResizeObserver(() => this.paint()).observe(this.view);
  }

  sortBy(key) {
    this.sort = { key, down: this.sort.key === key ? !this.sort.down : key === "tokens" || key === "cost" || key === "time" };
    this.draw();
  }

  draw() {
    const rows = [...this.store.rows.values()];
    const words = this.filter.split(/\s+/).filter(Boolean);
    const fits = (row) => {
      if (this.stateFilter && row.state !== this.stateFilter) return false;
      if (!words.length) return true;
      const text = `${row.name} ${row.command} ${row.state} ${row.group || ""} ${row.models.join(" ")} ${row.reason}`.toLowerCase();
      return words.every((word) => text.includes(word));
    };
    const shown = rows.filter(fits);
    const column = COLUMNS.find((one) => one.key === this.sort.key);
    const sign = this.sort.down ? -1 : 1;
    const keys = new Map(shown.map((row) => [row, column.of(row, this.store)]));
    shown.sort((one, other) => {
      const [first, second] = [keys.get(one), keys.get(other)];
      if (first !== second) return first < second ? -sign : sign;
      return one.index - other.index || (one.name < other.name ? -1 : 1);
    });
    const hasGroups = rows.some((row) => row.group);
    this.groupToggle.hidden = !hasGroups;
    this.lines = this.grouped && hasGroups ? this.inGroups(shown) : shown.map((row) => ({ row }));
    this.heads.forEach((head, place) => {
      const isSorted = COLUMNS[place].key === this.sort.key;
      head.setAttribute("aria-sort", isSorted ? (this.sort.down ? "descending" : "ascending") : "none");
    });
    setText(this.count, shown.length === rows.length ? counted(rows.length, "instance") : `${shown.length} of ${counted(rows.length, "instance")}`);
    this.view.setAttribute("aria-rowcount", this.lines.length + 1);
    this.space.style.height = `${this.lines.length * ROW}px`;
    this.paint();
  }

  inGroups(shown) {
    const groups = new Map();
    const lines = [];
    for (const row of shown) {
      if (!row.group) {
        lines.push({ row });
        continue;
      }
      if (!groups.has(row.group)) {
        const head = { group: row.group, rows: [] };
        groups.set(row.group, head);
        lines.push(head);
      }
      groups.get(row.group).rows.push(row);
    }
    return lines.flatMap((line) => (line.row || this.folded.has(line.group) ? [line] : [line, ...line.rows.map((row) => ({ row, inGroup: true }))]));
  }

  // Put the rows in view into the document, and take out the others.
  paint() {
    const top = Math.max(0, Math.floor((this.view.scrollTop - ROW) / ROW) - EXTRA);
    const bottom = Math.min(this.lines.length, Math.ceil((this.view.scrollTop + this.view.clientHeight) / ROW) + EXTRA);
    const wanted = new Set();
    for (let place = top; place < bottom; place += 1) {
      const line = this.lines[place];
      const key = line.row ? `i:${line.row.name}` : `g:${line.group}`;
      wanted.add(key);
      let element = this.pool.get(key);
      if (!element) {
        element = line.row ? this.rowOf(line.row.name) : this.headOf(line.group);
        this.pool.set(key, element);
        this.space.append(element.line);
      }
      const y = `${place * ROW}px`;
      if (element.y !== y) {
        element.y = y;
        element.line.style.top = y;
        element.line.setAttribute("aria-rowindex", place + 2);
      }
      if (line.row) this.update(element, line);
      else this.updateHead(element, line);
    }
    for (const [key, element] of this.pool) {
      if (!wanted.has(key)) {
        element.line.remove();
        this.pool.delete(key);
      }
    }
  }

  rowOf(name) {
    const cells = Object.fromEntries(COLUMNS.map((column) => [column.key, el("div", { role: "cell", class: `c-${column.key}${column.number ? " num" : ""}` })]));
    const link = button(name, () => this.choose(name), { class: "name", title: name, tabindex: -1 });
    cells.name.append(link);
    const line = el("div", { role: "row", class: "line", onclick: (event) => { if (event.target.tagName !== "BUTTON") this.choose(name); } }, Object.values(cells));
    return { line, cells };
  }

  headOf(group) {
    const toggle = button("", () => { this.folded.has(group) ? this.folded.delete(group) : this.folded.add(group); this.draw(); }, { class: "name" });
    const text = el("span", { class: "dim" });
    return { line: el("div", { role: "row", class: "line group" }, el("div", { role: "cell", class: "c-group" }, toggle, text)), toggle, text };
  }

  updateHead(element, { group, rows }) {
    const isFolded = this.folded.has(group);
    setText(element.toggle, `${isFolded ? "▸" : "▾"} ${group}`);
    element.toggle.setAttribute("aria-expanded", String(!isFolded));
    const count = (test) => rows.filter(test).length;
    const failed = count((row) => row.state === "failed" || row.state === "blocked" || row.state === "timed_out");
    const stopped = count((row) => row.state === "stopped" || row.state === "cancelled" || row.state === "interrupted");
    const running = count((row) => row.state === "running");
    const parts = [`${count((row) => row.state === "completed")}/${rows.length} done`, failed ? `${failed} failed` : "", stopped ? `${stopped} stopped` : "", running ? `${running} running` : "", tokens(rows.reduce((sum, row) => sum + row.tokens, 0))];
    setText(element.text, parts.filter(Boolean).join(" · "));
  }

  update({ line, cells }, { row, inGroup }) {
    const className = `line${inGroup ? " in-group" : ""}${row.name === this.selected ? " selected" : ""}`;
    if (line.className !== className) line.className = className;
    if (cells.stateNow !== row.state) {
      cells.stateNow = row.state;
      replace(cells.state, stateMark(row.state));
    }
    setText(cells.time, span(this.store.seconds(row)));
    setText(cells.tokens, row.tokens ? tokens(row.tokens) : "–");
    setText(cells.cost, usd(costOf(row)));
    setText(cells.turn, row.turns > 1 ? `${row.turn}/${row.turns}` : row.attempts > 1 ? `try ${row.attempts}` : "–");
    const doing = this.store.doingSeconds(row);
    const text = ENDED.has(row.state) ? row.reason : row.now ? `${row.now.text}${doing !== null && doing >= 1 ? ` (${span(doing)})` : ""}` : row.reason;
    setText(cells.now, text || "");
    cells.now.title = text || "";
  }

  choose(name) {
    this.selected = name;
    this.paint();
    this.open(name);
  }

  key(event) {
    if (event.target.tagName === "BUTTON" && (event.key === "Enter" || event.key === " ")) return;
    const places = this.lines.map((line, place) => (line.row ? place : -1)).filter((place) => place >= 0);
    const present = places.findIndex((place) => this.lines[place].row.name === this.selected);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -1e9, End: 1e9 };
    if (event.key in steps && places.length) {
      event.preventDefault();
      const next = Math.min(places.length - 1, Math.max(0, (present < 0 ? (steps[event.key] > 0 ? -1 : places.length) : present) + steps[event.key]));
      this.selected = this.lines[places[next]].row.name;
      const y = places[next] * ROW;
      if (y < this.view.scrollTop) this.view.scrollTop = y;
      if (y + 2 * ROW > this.view.scrollTop + this.view.clientHeight) this.view.scrollTop = y + 2 * ROW - this.view.clientHeight;
      this.paint();
    } else if (event.key === "Enter" && this.selected) {
      event.preventDefault();
      this.open(this.selected);
    }
  }
}
