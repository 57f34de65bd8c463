// The graph of dependencies, in layers from left to right. The instances of a group are one node.

import { el, replace, svg } from "./dom.js";

const WIDTH = 190;
const HEIGHT = 46;
const GAP_X = 70;
const GAP_Y = 14;
const MOST_NODES = 400;
const ORDER = ["failed", "blocked", "timed_out", "running", "waiting", "pending", "stopped", "cancelled", "skipped", "completed"];

export class Graph {
  constructor(store, open) {
    this.store = store;
    this.open = open;
    this.place = document.getElementById("graph");
  }

  nodes() {
    const nodes = new Map();
    const nodeOf = new Map();
    for (const row of this.store.rows.values()) {
      const key = row.group || row.name;
      if (!nodes.has(key)) nodes.set(key, { key, rows: [], needs: new Set(), isGroup: Boolean(row.group) });
      nodes.get(key).rows.push(row);
      nodeOf.set(row.name, key);
    }
    const linked = new Set();
    for (const [need, name] of this.store.edges) {
      const [from, to] = [nodeOf.get(need) || need, nodeOf.get(name)];
      if (!to || from === to) continue;
      if (!nodes.has(from)) nodes.set(from, { key: from, rows: [], needs: new Set(), isGroup: true });
      nodes.get(to).needs.add(from);
      linked.add(from).add(to);
    }
    return { nodes, linked };
  }

  draw() {
    const { nodes, linked } = this.nodes();
    if (!linked.size) {
      replace(this.place, el("p", { class: "dim" }, this.store.source === "past" ? "The journal of a run that is over does not list dependencies." : "No instance of this run depends on another one."));
      return;
    }
    const shown = [...nodes.values()].filter((node) => linked.has(node.key)).slice(0, MOST_NODES);
    const key = shown.map((node) => `${node.key}:${node.rows.map((row) => row.state).join()}`).join("|");
    if (key === this.key) return;
    this.key = key;
    const layers = layered(shown);
    const places = new Map();
    layers.forEach((layer, column) => layer.forEach((node, line) => places.set(node.key, { x: 10 + column * (WIDTH + GAP_X), y: 10 + line * (HEIGHT + GAP_Y) })));
    const tall = Math.max(...layers.map((layer) => layer.length));
    const size = { width: layers.length * (WIDTH + GAP_X) - GAP_X + 20, height: tall * (HEIGHT + GAP_Y) + 20 };
    const focused = document.activeElement && this.place.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    const picture = svg("svg", { ...size, viewBox: `0 0 ${size.width} ${size.height}`, class: "graph", role: "group", "aria-label": "Dependencies" },
      shown.flatMap((node) => [...node.needs].filter((need) => places.has(need)).map((need) => arrow(places.get(need), places.get(node.key)))),
      shown.map((node) => this.node(node, places.get(node.key))));
    const rest = nodes.size - shown.length;
    replace(this.place, el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Graph of dependencies" }, picture), rest > 0 ? el("p", { class: "dim" }, `${rest} others neither depend on anything nor are needed.`) : null);
    if (focused) this.place.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  node(node, { x, y }) {
    const state = stateOf(node.rows);
    const done = node.rows.filter((row) => row.state === "completed").length;
    const note = node.isGroup ? `${done}/${node.rows.length} done` : state.replace("_", " ");
    const name = node.key.length > 24 ? `${node.key.slice(0, 11)}…${node.key.slice(-11)}` : node.key;
    const act = () => node.rows.length && this.open(node.rows[0].name);
    return svg("g", { class: `node node-${state}`, transform: `translate(${x} ${y})`, tabindex: 0, role: "button", "data-key": node.key, onclick: act,
      onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); act(); } } },
      svg("rect", { width: WIDTH, height: HEIGHT, rx: 7 }), svg("rect", { class: "edge", width: 5, height: HEIGHT, rx: 2 }),
      svg("text", { x: 16, y: 19, class: "label" }, name), svg("text", { x: 16, y: 36, class: "sub" }, note), svg("title", {}, `${node.key}: ${note}`));
  }
}

function stateOf(rows) {
  return ORDER.find((state) => rows.some((row) => row.state === state)) || "pending";
}

// Each node stands one layer after the last of those that it needs.
function layered(nodes) {
  const byKey = new Map(nodes.map((node) => [node.key, node]));
  const depth = new Map();
  const waiting = new Map(nodes.map((node) => [node.key, [...node.needs].filter((need) => byKey.has(need)).length]));
  const ready = nodes.filter((node) => waiting.get(node.key) === 0).map((node) => node.key);
  const users = new Map();
  for (const node of nodes) for (const need of node.needs) users.set(need, [...(users.get(need) || []), node.key]);
  for (const key of ready) depth.set(key, 0);
  for (let place = 0; place < ready.length; place += 1) {
    for (const user of users.get(ready[place]) || []) {
      depth.set(user, Math.max(depth.get(user) || 0, depth.get(ready[place]) + 1));
      waiting.set(user, waiting.get(user) - 1);
      if (waiting.get(user) === 0) ready.push(user);
    }
  }
  const layers = [];
  for (const node of nodes) (layers[depth.get(node.key) || 0] ||= []).push(node);
  return ordered(Array.from(layers, (layer) => layer || []));
}

// Each node stands near the nodes that it needs, so that fewer arrows cross.
function ordered(layers) {
  const place = new Map();
  for (const layer of layers) {
    const wish = (node) => {
      const found = [...node.needs].filter((need) => place.has(need)).map((need) => place.get(need));
      return found.length ? found.reduce((sum, one) => sum + one, 0) / found.length : 0;
    };
    const wishes = new Map(layer.map((node) => [node, wish(node)]));
    layer.sort((one, other) => wishes.get(one) - wishes.get(other));
    layer.forEach((node, line) => place.set(node.key, line / layer.length));
  }
  return layers;
}

function arrow(from, to) {
  const [x1, y1, x2, y2] = [from.x + WIDTH, from.y + HEIGHT / 2, to.x, to.y + HEIGHT / 2];
  const bend = Math.max(24, (x2 - x1) / 2);
  return svg("path", { class: "arrow", d: `M${x1} ${y1} C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2 - 7} ${y2} m-5 -4 l6 4 l-6 4` });
}
