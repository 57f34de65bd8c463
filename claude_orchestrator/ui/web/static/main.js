// Puts the page together, and draws what has changed at most a few times a second.

import { replace, selectTab, tabBar, toast } from "./dom.js";
import { signIn, theme } from "./entry.js";
import { Store } from "./store.js";
import { FileSource, ServerSource } from "./source.js";
import { Header } from "./header.js";
import { Budgets } from "./budgets.js";
import { Chart } from "./chart.js";
import { Table } from "./table.js";
import { Graph } from "./graph.js";
import { Detail } from "./detail.js";
import { Approvals } from "./approvals.js";
import { Decisions } from "./decisions.js";

const DRAW_EVERY_MS = 250;
const TICK_MS = 1000;
const VIEWS = { instances: "Instances", graph: "Graph", decisions: "Decisions" };

class Actions {
  constructor(source, canAct) {
    this.source = source;
    this.canAct = canAct;
  }

  async run(method, params, done) {
    try {
      await this.source.act(method, params);
      toast(done);
    } catch (error) {
      toast(error.message, true);
    }
  }
}

class Page {
  constructor(store, source, readOnly) {
    this.store = store;
    const actions = new Actions(source, source.canFetch && !readOnly);
    const open = (name) => { this.table.selected = name; this.detail.open(name); };
    this.header = new Header(store, actions);
    this.budgets = new Budgets(store, actions);
    this.chart = new Chart(store);
    this.table = new Table(store, open);
    this.graph = new Graph(store, open);
    this.decisions = new Decisions(store, open);
    this.approvals = new Approvals(store, source, actions, open);
    this.detail = new Detail(store, source, actions, () => this.table.view.focus({ preventScroll: true }));
    this.view = "instances";
    this.buildViews();
    store.listen((what) => this.changed(what));
    setInterval(() => this.tick(), TICK_MS);
  }

  buildViews() {
    this.tabs = tabBar("Views", "view", VIEWS, (view) => view, (view) => this.show(view));
    replace(document.getElementById("views"), this.tabs);
    this.show(this.view);
  }

  show(view) {
    this.view = view;
    selectTab(this.tabs, `view-${view}`);
    for (const name of Object.keys(VIEWS)) document.getElementById(name).hidden = name !== view;
    this.draw(true);
  }

  changed(what) {
    if (what === "all") this.opened = false;
    if (this.drawing) return;
    const wait = Math.max(0, DRAW_EVERY_MS - (performance.now() - (this.drawnAt || -1e9)));
    this.drawing = setTimeout(() => this.draw(), wait);
  }

  draw() {
    clearTimeout(this.drawing);
    this.drawing = null;
    if (!this.store.ready) return;
    document.body.classList.add("ready");
    this.header.draw();
    this.approvals.draw();
    this.budgets.draw();
    this.chart.draw();
    if (this.view === "instances") this.table.draw();
    if (this.view === "graph") this.graph.draw();
    if (this.view === "decisions") this.decisions.draw();
    this.detail.draw();
    if (!this.opened) {
      this.opened = true;
      const named = new URLSearchParams(location.hash.slice(1)).get("instance");
      if (named && !this.detail.name) { this.table.selected = named; this.detail.open(named); }
    }
    this.drawnAt = performance.now();
  }

  // Times pass without events.
  tick() {
    if (!this.store.ready || this.store.over || document.hidden) return;
    this.header.draw();
    this.approvals.draw();
    if (this.view === "instances") this.table.paint();
    this.detail.draw();
  }
}

let page = null;

async function start() {
  theme(() => { if (page) page.chart.draw(true); });
  const store = new Store();
  const embedded = document.getElementById("run-data");
  if (embedded) {
    const data = JSON.parse(embedded.textContent);
    page = new Page(store, new FileSource(data), true);
    store.snapshot(data.snapshot);
    page.header.connection("file");
    return;
  }
  const source = new ServerSource(store, (state) => {
    if (state === "refused" && !store.ready) signIn(about, "For a new one, run: claude-runs open last");
    else page.header.connection(state);
  });
  const about = await source.about();
  page = new Page(store, source, about.read_only);
  source.connect();
}

start();
