// Numbers as people read them: three significant places, a narrow space before the unit, and never a
// 100 % that is not one.

const THIN = "\u202f";
export const NONE = "–";

/** Requests (or connections) per second, without unit. */
export function rate(value: number): string {
  if (value === 0) return "0";
  if (value < 0.1) return "<0.1";
  return short(value);
}

/** Bytes per second with unit. */
export function bytes(value: number): string {
  const units = ["B/s", "kB/s", "MB/s", "GB/s"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(value) : short(value)}${THIN}${units[unit]}`;
}

/** A share of 1 in percent. What is not all is never shown as all, what is something never as nothing. */
export function percent(share: number): string {
  const value = share * 100;
  if (value <= 0) return `0${THIN}%`;
  if (value >= 100) return `100${THIN}%`;
  if (value < 0.1) return `<0.1${THIN}%`;
  if (value > 99.9) return `>99.9${THIN}%`;
  return `${value >= 9.95 && value < 99 ? value.toFixed(0) : value.toFixed(1)}${THIN}%`;
}

/** Milliseconds with unit. */
export function duration(ms: number | null): string {
  if (ms === null) return NONE;
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(1) : ms.toFixed(0)}${THIN}ms`;
  if (ms < 60000) return `${short(ms / 1000)}${THIN}s`;
  return `${short(ms / 60000)}${THIN}min`;
}

/** Three significant places, thousands as k and M. */
export function short(value: number): string {
  if (value >= 1e6) return `${short(value / 1e6)}${THIN}M`;
  if (value >= 1e4) return `${short(value / 1e3)}${THIN}k`;
  return value >= 100 ? value.toFixed(0) : value.toFixed(1);
}

/** Time of day; with the date when it is not today. */
export function clock(unix: number, seconds = false): string {
  const time = new Date(unix * 1000);
  const today = new Date().toDateString() === time.toDateString();
  const hour = time.toLocaleTimeString([], {
    hour: "2-digit",
    minute: "2-digit",
    hour12: false,
    ...(seconds ? { second: "2-digit" } : {}),
  });
  return today ? hour : `${time.toLocaleDateString([], { month: "short", day: "numeric" })}, ${hour}`;
}

/** A length of time in words: "5 minutes". */
export function length(seconds: number): string {
  const [count, unit] =
    seconds < 60
      ? [seconds, "second"]
      : seconds < 7200
        ? [seconds / 60, "minute"]
        : [seconds / 3600, "hour"];
  const whole = Math.round(count);
  return whole === 1 ? unit : `${whole} ${unit}s`;
}
