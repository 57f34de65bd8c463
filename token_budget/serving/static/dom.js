// Builds elements. Text is always text: nothing here takes HTML.

import { printable } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";

export function el(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(printable(String(child))));
  }
  return element;
}

export function replace(element, ...children) {
  element.replaceChildren();
  return fill(element, {}, children);
}

export function setText(element, text) {
  const shown = printable(String(text));
  if (element.textContent !== shown) element.textContent = shown;
}

const STATE_SIGNS = {
  running: "▶", completed: "✓", failed: "✗", blocked: "⛔", skipped: "⤼", stopped: "■",
  timed_out: "⏱", interrupted: "■", cancelled: "⊘", waiting: "…", pending: "·",
};

export function stateMark(state) {
  return el("span", { class: `state state-${state}` }, el("span", { class: "sign", "aria-hidden": "true" }, STATE_SIGNS[state] || "?"),
    state.replace("_", " "));
}

export function button(label, onclick, props = {}) {
  return el("button", { type: "button", onclick, ...props }, label);
}

// A colour of the page as it is now, light or dark.
export function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// What the axes of all charts have in common.
export function axisStyle() {
  const line = { stroke: color("--line"), width: 1 };
  return { stroke: color("--dim"), grid: line, ticks: line, font: "12px system-ui, sans-serif" };
}

// A bar of tabs, by their names in `titles`; the arrow keys go from one to the next. `panelOf` names what a tab shows.
export function tabBar(label, prefix, titles, panelOf, show) {
  const names = Object.keys(titles);
  const tabs = names.map((name) => button(titles[name], () => show(name), { role: "tab", id: `${prefix}-${name}`, "aria-controls": panelOf(name) }));
  return el("div", { role: "tablist", class: "tabs", "aria-label": label, onkeydown: (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = (tabs.findIndex((tab) => tab.tabIndex === 0) + step + tabs.length) % tabs.length;
    show(names[next]);
    tabs[next].focus();
  } }, tabs);
}

export function selectTab(bar, id) {
  for (const tab of bar.children) {
    const isThis = tab.id === id;
    tab.setAttribute("aria-selected", String(isThis));
    tab.tabIndex = isThis ? 0 : -1;
  }
}

// Says something to people who look and to people who listen.
export function toast(text, isError = false) {
  const place = document.getElementById("toasts");
  const note = el("div", { class: isError ? "toast error" : "toast" }, text);
  place.append(note);
  while (place.children.length > 4) place.firstChild.remove();
  setTimeout(() => note.remove(), isError ? 12000 : 6000);
}

// Asks before something that cannot be undone. Returns what was typed, or null.
export function ask(title, text, { field = null, value = "", action = "OK", danger = false } = {}) {
  return new Promise((resolve) => {
    const input = field === null ? null : el("input", { type: "text", id: "ask-field", value, autocomplete: "off", maxlength: "900" });
    const form = el("form", { method: "dialog" },
      el("h2", { id: "ask-title" }, title),
      text && el("p", {}, text),
      field === null ? null : el("label", { for: "ask-field" }, field),
      input,
      el("div", { class: "row end" },
        button("Cancel", () => box.close("")),
        el("button", { value: "yes", class: danger ? "danger" : "primary" }, action)));
    const box = el("dialog", { "aria-labelledby": "ask-title" }, form);
    box.addEventListener("close", () => {
      box.remove();
      resolve(box.returnValue === "yes" ? (input ? input.value : "") : null);
    });
    document.body.append(box);
    box.showModal();
    if (input) input.select();
  });
}
