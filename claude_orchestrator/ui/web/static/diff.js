// A patch, file by file.

import { el } from "./dom.js";

const MOST_LINES = 1500; // of one file, at first

export function diffView(patch) {
  const files = patch.split(/^(?=diff --git )/m).filter((part) => part.startsWith("diff --git "));
  if (!files.length) return el("p", { class: "dim" }, "No changes.");
  return el("div", { class: "diff" }, files.map((file, place) => fileView(file, files.length <= 8 || place < 3)));
}

function fileView(text, open) {
  const lines = text.split("\n");
  const name = nameOf(lines);
  const body = lines.slice(lines.findIndex((line) => line.startsWith("@@")));
  const isText = body.length < lines.length || lines.some((line) => line.startsWith("@@"));
  const count = (sign) => body.filter((line) => line.startsWith(sign)).length;
  const head = el("summary", {}, el("code", {}, name), " ", isText ? [el("span", { class: "plus" }, `+${count("+")}`), " ", el("span", { class: "minus" }, `−${count("-")}`)] : el("span", { class: "dim" }, "binary"));
  const box = el("details", { open }, head);
  const fill = () => {
    if (!box.open || box.filled) return;
    box.filled = true;
    const shown = isText ? body.slice(0, MOST_LINES) : [];
    box.append(el("pre", { tabindex: 0, "aria-label": `Changes of ${name}` }, shown.map((line) => el("span", { class: kindOf(line) }, `${line}\n`)),
      body.length > MOST_LINES && isText ? el("span", { class: "dim" }, `… ${body.length - MOST_LINES} more lines are in the patch file\n`) : null));
  };
  box.addEventListener("toggle", fill);
  if (open) fill();
  return box;
}

function nameOf(lines) {
  const named = lines.find((line) => line.startsWith("+++ ") && !line.endsWith("/dev/null")) || lines.find((line) => line.startsWith("--- "));
  if (named) return named.slice(4).replace(/^[ab]\//, "");
  return lines[0].slice("diff --git ".length).split(" ").pop().replace(/^b\//, "");
}

function kindOf(line) {
  return line.startsWith("@@") ? "hunk" : line.startsWith("+") ? "plus" : line.startsWith("-") ? "minus" : "same";
}
