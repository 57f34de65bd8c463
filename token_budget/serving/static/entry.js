// What all pages begin with: the choice of colours, signing in, and what is sent to the server.

import { button, el, replace } from "./dom.js";

export function theme(onChange) {
  const modes = { auto: "◐ Auto", light: "☀ Light", dark: "☾ Dark" };
  const names = Object.keys(modes);
  let mode = "auto";
  try { mode = localStorage.getItem("theme") || "auto"; } catch { /* a file has no storage */ }
  const set = (next) => {
    mode = names.includes(next) ? next : "auto";
    if (mode === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = mode;
    toggle.textContent = modes[mode];
    toggle.setAttribute("aria-label", `${modes[mode]}: change the colours`);
    try { localStorage.setItem("theme", mode); } catch { /* the same */ }
    onChange();
  };
  const toggle = button("", () => set(names[(names.indexOf(mode) + 1) % names.length]), { class: "quiet" });
  document.getElementById("theme").append(toggle);
  set(mode);
}

export async function post(path, data) {
  const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(data) });
  const found = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
  if (!answer.ok) throw new Error(found.error);
  return found;
}

// `hint` says where a new address comes from.
export function signIn(about, hint) {
  const place = document.getElementById("sign-in");
  document.getElementById("app").hidden = true;
  place.hidden = false;
  const refused = location.search.includes("refused") ? "This address was used before. " : "";
  if (!about.password) {
    replace(place, el("h1", {}, "Sign in"), el("p", {}, `${refused}Open the address that the program has printed. ${hint}`));
    return;
  }
  const field = el("input", { type: "password", id: "password", autocomplete: "current-password", required: true });
  const fault = el("p", { class: "bad", role: "alert" });
  const form = el("form", { onsubmit: async (event) => {
    event.preventDefault();
    try {
      await post("/api/sign-in", { password: field.value });
      location.replace("/");
    } catch (error) {
      fault.textContent = error.message;
    }
  } }, el("h1", {}, "Sign in"), el("label", { for: "password" }, "Password"), field, el("button", { class: "primary" }, "Sign in"), fault);
  replace(place, form);
  field.focus();
}
