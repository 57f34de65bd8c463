// Figures as people read them. Pure.

export function tokens(count) {
  if (count === null || count === undefined) return "–";
  for (const [size, unit] of [[1e9, "B"], [1e6, "M"], [1e3, "K"]]) {
    if (count >= size - size / 20000 && count >= 1000) return `${(count / size).toFixed(1)}${unit}`;
  }
  return String(Math.round(count));
}

export function usd(dollars) {
  if (dollars === null || dollars === undefined) return "–";
  if (dollars > 0 && dollars < 0.1) return `$${dollars.toFixed(4)}`;
  return `$${dollars.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`;
}

export function amount(value, unit) {
  return unit === "USD" ? usd(value) : tokens(value);
}

export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole}s`;
  const hours = Math.floor(whole / 3600);
  const rest = `${Math.floor((whole % 3600) / 60)}`;
  if (hours) return `${hours}:${rest.padStart(2, "0")}:${String(whole % 60).padStart(2, "0")}`;
  return `${rest}:${String(whole % 60).padStart(2, "0")}`;
}

export function about(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

export function clock(unixSeconds, withSeconds = true) {
  const style = { hour: "2-digit", minute: "2-digit", hour12: false };
  if (withSeconds) style.second = "2-digit";
  return new Date(unixSeconds * 1000).toLocaleTimeString("en-GB", style);
}

export function percent(value) {
  return value > 0 && value < 1 ? "<1 %" : `${Math.floor(value)} %`;
}

export function bytes(count) {
  if (count < 1024) return `${count} B`;
  if (count < 1024 * 1024) return `${(count / 1024).toFixed(1)} KiB`;
  return `${(count / 1024 / 1024).toFixed(1)} MiB`;
}

export function counted(number, noun) {
  return `${number.toLocaleString("en-US")} ${number === 1 ? noun : `${noun}s`}`;
}

// Characters that could turn a line around, hide, or come from a terminal become visible escapes.
export function printable(text) {
  return text
    .replace(/\x1b\[[0-9;:]*m/g, "")
    .replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g, (char) =>
      char === "\r" ? "" : `\\x${char.charCodeAt(0).toString(16).padStart(2, "0")}`,
    );
}

const DAY = { day: "numeric", month: "short" };

export function day(unixSeconds) {
  return new Date(unixSeconds * 1000).toLocaleDateString("en-GB", DAY);
}

export function moment(unixSeconds) {
  return `${new Date(unixSeconds * 1000).toLocaleDateString("en-GB", { weekday: "short", ...DAY })}, ${clock(unixSeconds, false)}`;
}
