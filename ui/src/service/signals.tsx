// The four golden signals: large, with their course and the change against the period before.

import type { Point, Rates, ServicePage, ServiceSummary } from "../api";
import { bytes, duration, length, NONE, percent, rate, short } from "../format";
import { failed, own } from "./figures";
import { marksOf } from "./marks";

interface Signal {
  name: string;
  value: string;
  unit: string;
  /** The figure as each side measured it. */
  sides: string;
  below: string;
  change: string;
  course: (number | null)[];
  state: "well" | "degraded" | "failing";
}

export function Signals({ page }: { page: ServicePage | null }) {
  const signals = page ? signalsOf(page) : ["Traffic", "Errors", "Latency", "Saturation"].map(empty);
  return (
    <div class="signals">
      {signals.map((signal) => (
        <section key={signal.name} class={`signal ${signal.state}`}>
          <h2>{signal.name}</h2>
          <p class="large">
            <span class="number">{signal.value}</span>
            <span class="unit">{signal.unit}</span>
          </p>
          <p class="both">{signal.sides}</p>
          <Sparkline values={signal.course} marks={page ? places(page) : []} />
          <p class="below">{signal.below}</p>
          <p class="change">{signal.change}</p>
        </section>
      ))}
    </div>
  );
}

function empty(name: string): Signal {
  return { name, value: NONE, unit: "", sides: "", below: "", change: "", course: [], state: "well" };
}

function signalsOf(page: ServicePage): Signal[] {
  const { summary, previous } = page;
  const tcp = summary.kind === "tcp";
  const compare = comparer(page);
  const share = 1 - Math.min(summary.client.success, summary.server.success);
  const before = 1 - Math.min(previous.client.success, previous.server.success);
  const errors: Signal = {
    name: "Errors",
    ...split(percent(share)),
    sides: both(summary, (side) => (side.per_second > 0 || side.success < 1 ? percent(1 - side.success) : NONE)),
    below: errorWords(summary, tcp),
    change: page.previous_measured < 0.5 ? "" : points(share - before, page.window),
    course: course(page, (point) => (point.client.per_second + point.server.per_second > 0 ? failed(point) : null)),
    state: share >= 0.05 ? "failing" : share >= 0.01 ? "degraded" : "well",
  };
  const flight = page.series.at(-1)?.in_flight ?? 0;
  const mean = (of: Point[]) => of.reduce((sum, point) => sum + point.in_flight, 0) / Math.max(1, of.length);
  const present = page.workloads.filter((row) => row.present).length;
  const saturation: Signal = {
    name: "Saturation",
    value: short(flight).replace(/\.0$/, ""),
    unit: tcp ? "open connections" : "in flight",
    sides: "counted at the server",
    below: `${rate(mean(page.series))} on average, ${present} workload${present === 1 ? "" : "s"}`,
    change: "",
    course: course(page, (point) => point.in_flight),
    state: "well",
  };
  return tcp
    ? [...tcpSignals(page, compare, errors), saturation]
    : [...httpSignals(page, compare, errors), saturation];
}

type Compare = (now: number | null, before: number | null) => string;

function httpSignals(page: ServicePage, compare: Compare, errors: Signal): Signal[] {
  const { summary, previous } = page;
  const now = own(summary);
  const side = summary.client.p99_ms !== null ? summary.client : summary.server;
  const earlier = summary.client.p99_ms !== null ? previous.client : previous.server;
  return [
    {
      name: "Traffic",
      value: rate(now.per_second),
      unit: "req/s",
      sides: both(summary, (side) => `${rate(side.per_second)}/s`),
      below: summary.server.per_second > 0 ? "as the service counts them" : "as its callers count them",
      change: compare(now.per_second, own(previous).per_second),
      course: course(page, (point) => own(point).per_second),
      state: "well",
    },
    errors,
    {
      name: "Latency",
      ...split(duration(side.p99_ms), "p99"),
      sides: both(summary, (side) => duration(side.p99_ms)),
      below: `p50 ${duration(side.p50_ms)}, p90 ${duration(side.p90_ms)}`,
      change: compare(side.p99_ms, earlier.p99_ms),
      course: course(page, (point) => point.client.p99_ms ?? point.server.p99_ms),
      state: "well",
    },
  ];
}

function tcpSignals(page: ServicePage, compare: Compare, errors: Signal): Signal[] {
  const { summary, previous } = page;
  const volume = (of: ServiceSummary) => of.sent_bytes_per_second + of.received_bytes_per_second;
  return [
    {
      name: "Traffic",
      ...split(bytes(volume(summary))),
      sides: `${bytes(summary.sent_bytes_per_second)} in, ${bytes(summary.received_bytes_per_second)} out`,
      below: "as the side that counted more has it",
      change: compare(volume(summary), volume(previous)),
      course: course(page, (point) => point.bytes_per_second),
      state: "well",
    },
    errors,
    {
      name: "Connections",
      value: rate(own(summary).per_second),
      unit: "opened/s",
      sides: both(summary, (side) => `${rate(side.per_second)}/s`),
      below: "latency is not visible inside TCP",
      change: compare(own(summary).per_second, own(previous).per_second),
      course: course(page, (point) => own(point).per_second),
      state: "well",
    },
  ];
}

function errorWords({ client, server }: ServiceSummary, tcp: boolean): string {
  if (tcp) return "connections that reached no endpoint";
  const words: string[] = [];
  const callers = Math.max(client.client_errors_per_second, server.client_errors_per_second);
  if (callers > 0) words.push(`4xx ${rate(callers)}/s`);
  if (client.injected_per_second > 0) words.push(`on purpose ${rate(client.injected_per_second)}/s, not counted`);
  return words.join("; ") || "5xx or no answer";
}

/** What each side says: where they differ, something is lost or waits between them. */
function both({ client, server }: ServiceSummary, figure: (side: Rates) => string): string {
  return `client ${figure(client)}, server ${figure(server)}`;
}

/** `12 ms` → number and unit apart. */
function split(text: string, more = ""): { value: string; unit: string } {
  const [value = NONE, unit = ""] = text.split("\u202f");
  return { value, unit: [unit, more].filter(Boolean).join(" ") };
}

function comparer(page: ServicePage): Compare {
  return (now, before) => {
    if (page.previous_measured < 0.5) return "nothing earlier to compare with";
    if (now === null || before === null || before === 0) {
      return now !== null && now > 0 ? `nothing in the ${length(page.window)} before` : "";
    }
    const change = now / before - 1;
    const words = Math.abs(change) < 0.01 ? "same as" : `${signed(change)} against`;
    return `${words} the ${length(page.window)} before`;
  };
}

function signed(change: number): string {
  if (change > 9.99) return `×${short(change + 1)}`;
  return `${change > 0 ? "+" : "−"}${percent(Math.abs(change))}`;
}

function points(change: number, window: number): string {
  if (Math.abs(change) < 0.0005) return `same as the ${length(window)} before`;
  return `${change > 0 ? "+" : "−"}${(Math.abs(change) * 100).toFixed(1)} points against the ${length(window)} before`;
}

/** Values over the whole period, null where nothing was measured. */
function course(page: ServicePage, value: (point: Point) => number | null): (number | null)[] {
  const from = page.at - page.window;
  const steps = Math.round(page.window / page.step);
  const values: (number | null)[] = Array.from({ length: steps }, () => null);
  for (const point of page.series) {
    const index = Math.min(steps - 1, Math.ceil((point.at - from) / page.step) - 1);
    if (index >= 0) values[index] = value(point);
  }
  return values;
}

/** Where in the period a rule was changed, as shares of it. */
function places(page: ServicePage): number[] {
  const from = page.at - page.window;
  return marksOf(page).filter((mark) => mark.kind === "rule").map((mark) => (mark.at - from) / page.window);
}

function Sparkline({ values, marks }: { values: (number | null)[]; marks: number[] }) {
  const [width, height] = [240, 36];
  const top = Math.max(1e-9, ...values.map((value) => value ?? 0));
  const x = (index: number) => (values.length > 1 ? (index / (values.length - 1)) * width : 0);
  const y = (value: number) => height - 2 - (value / top) * (height - 6);
  let line = "";
  let area = "";
  let start: number | null = null;
  values.forEach((value, index) => {
    if (value === null) {
      if (start !== null) area += `L${x(index - 1).toFixed(1)} ${height}Z`;
      start = null;
      return;
    }
    const at = `${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
    line += `${start === null ? "M" : "L"}${at}`;
    area += start === null ? `M${x(index).toFixed(1)} ${height}L${at}` : `L${at}`;
    start ??= index;
  });
  if (start !== null) area += `L${width} ${height}Z`;
  return (
    <svg class="sparkline" viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" aria-hidden="true">
      <path d={area} class="area" />
      <path d={line} class="line" vector-effect="non-scaling-stroke" />
      {marks.map((mark) => (
        <path key={mark} d={`M${(mark * width).toFixed(1)} 0V${height}`} class="mark" vector-effect="non-scaling-stroke" />
      ))}
    </svg>
  );
}
