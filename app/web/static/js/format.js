/** Formats numbers and times. */

const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** `1536000` → `1.5 MB`. */
export function bytes(count) {
  let unit = 0;
  let value = count;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.5 ? 0 : 1;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** Seconds as one or two units: `8 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`. */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const parts = [
    [Math.floor(whole / 86400), "d"],
    [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"],
    [whole % 60, "s"],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  if (first < 0) return "0 s";
  const shown = parts.slice(first, first + 2).filter(([count]) => count > 0);
  return shown.map(([count, unit]) => `${count} ${unit}`).join(" ");
}

/** A position in a video: `0:03.5`, `1:02:03.0`. */
export function clock(seconds) {
  const tenths = Math.max(0, Math.round(seconds * 10));
  const hours = Math.floor(tenths / 36000);
  const minutes = Math.floor(tenths / 600) % 60;
  const rest = (tenths % 600) / 10;
  const tail = rest.toFixed(1).padStart(4, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`;
}

/** Seconds since an API timestamp by the local clock, at least 0 because clocks differ. */
export function secondsSince(timestamp) {
  return Math.max(0, (Date.now() - Date.parse(timestamp)) / 1000);
}

/** How long ago a moment was, in one unit: `just now`, `5 min ago`. */
export function age(timestamp) {
  const seconds = secondsSince(timestamp);
  if (seconds < 10) return "just now";
  return `${rough(seconds)} ago`;
}

/** Seconds in their largest unit only. */
export function rough(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

const MOMENT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** An API timestamp in the user's time zone and language. */
export function moment(timestamp) {
  return MOMENT.format(new Date(timestamp));
}

/** `0.734` → `73 %`. */
export function percent(fraction) {
  return `${Math.round(fraction * 100)} %`;
}

/** `1234` → `1,234`. */
export function grouped(number) {
  return number.toLocaleString("en");
}

/** `plural(1, "frame")` → `1 frame`; the plural is the word with an s unless given. */
export function plural(number, one, many = `${one}s`) {
  return `${grouped(number)} ${number === 1 ? one : many}`;
}
