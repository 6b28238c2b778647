// What pages of traces work out: the question of a list, names, places of bars, and what differs between two traces.

import type { Range } from "../address";
import type { ServiceName } from "../api";
import type { Trace, TraceSpan } from "./api";

/** Filters of the list, by their names in the address, which are the API's. */
export const FILTERS = ["service", "status", "path", "longer_than", "shorter_than"] as const;
/** Seconds of the live list. */
export const LIVE_WINDOW = 900;
/** Traces of a list. */
const LIMIT = 200;
const SECONDS = { live: LIVE_WINDOW, "5m": 300, "1h": 3600, "6h": 21600 } as const;

/** The API's query for a list. */
export function question(filter: Record<string, string>, range: Range): string {
  const values = new URLSearchParams({ spans: "no", limit: String(LIMIT) });
  for (const name of FILTERS) if (filter[name]) values.set(name, filter[name]);
  if (typeof range === "object") {
    values.set("since", String(range.from));
    values.set("before", String(range.to));
  } else values.set("since", `${SECONDS[range]}s`);
  return values.toString();
}

/** The period of a list, Unix times. */
export function period(range: Range, now: number): [number, number] {
  return typeof range === "object" ? [range.from, range.to] : [now - SECONDS[range], now];
}

/** A service without the namespace that goes without saying. */
export function short(service: string): string {
  return service.endsWith(".default") ? service.slice(0, -".default".length) : service;
}

/** Enough of an id to ask for it by: those of 64 bits have zeros before them. */
export function shortId(id: string): string {
  return id.startsWith("0000000000000000") ? id.slice(16) : id.slice(0, 12);
}

/** The service of the mesh whose span this is; null of an application that calls itself something else. */
export function serviceOf(span: TraceSpan): ServiceName | null {
  const dot = span.service.lastIndexOf(".");
  if (!span.mesh || dot <= 0) return null;
  return { name: span.service.slice(0, dot), namespace: span.service.slice(dot + 1) };
}

/** What a span is about. */
export function about(span: TraceSpan): string {
  return span.method && span.path ? `${span.method} ${span.path}` : span.name;
}

/** One span among those of its trace: both ends of a call may have one id. */
export function key(span: TraceSpan): string {
  return `${span.id}-${span.kind}`;
}

/** Left edge and width of a bar in percent of `whole` milliseconds; what is there is seen. */
export function bar(offset: number, length: number, whole: number): { left: number; width: number } {
  const least = 0.4;
  const share = (ms: number) => (whole > 0 && Number.isFinite(ms) ? Math.min(100, Math.max(0, (ms / whole) * 100)) : 0);
  const left = Math.min(share(offset), 100 - least);
  return { left, width: Math.max(least, Math.min(share(length), 100 - left)) };
}

/** Of a call that both ends saw: how long it was on the way, milliseconds. */
export function onTheWay(span: TraceSpan, spans: TraceSpan[]): number | null {
  if (span.kind !== "client") return null;
  const server = spans.find((one) => one.kind === "server" && (one.parent === span.id || one.id === span.id));
  // Clocks of two processes are read at different moments.
  return server && server.duration_ms < span.duration_ms ? span.duration_ms - server.duration_ms : null;
}

/** A call of either trace, or of both. */
export interface Pair {
  label: string;
  kind: string;
  depth: number;
  a: TraceSpan | null;
  b: TraceSpan | null;
}

/**
 * Both traces' spans side by side. Spans are alike if they are of one service, kind and purpose below alike ones, the
 * first with the first. Each trace's order is kept.
 */
export function pairs(a: TraceSpan[], b: TraceSpan[]): Pair[] {
  const left = ways(a);
  const right = ways(b);
  const waiting = new Map(right.map((way, index) => [way, index]));
  const result: Pair[] = [];
  let next = 0;
  const alone = (until: number) => {
    for (; next < until; next += 1) {
      const span = b[next]!;
      if (waiting.delete(right[next]!)) result.push(pair(null, span));
    }
  };
  a.forEach((span, index) => {
    const other = waiting.get(left[index]!);
    if (other === undefined) return result.push(pair(span, null));
    // What only the other has and has earlier comes first; what is out of order is paired all the same.
    waiting.delete(left[index]!);
    if (other >= next) {
      alone(other);
      next = other + 1;
    }
    return result.push(pair(span, b[other]!));
  });
  alone(b.length);
  return result;
}

function pair(a: TraceSpan | null, b: TraceSpan | null): Pair {
  const span = (a ?? b)!;
  return { label: `${short(span.service)} · ${purpose(span)}`, kind: span.kind, depth: span.depth, a, b };
}

/** What a span is about, with what names one thing of many left out, so that calls for two of them are alike. */
function purpose(span: TraceSpan): string {
  return about(span).replace(/\/(?:\d+|[0-9a-f]{8,}(?:-[0-9a-f]{4,})*)(?=\/|$)/gi, "/*");
}

/** Of each span the way to it from the top, with a number where several are alike. */
function ways(spans: TraceSpan[]): string[] {
  const above: string[] = [];
  const seen = new Map<string, number>();
  return spans.map((span) => {
    above.length = Math.min(above.length, span.depth);
    const way = `${above.at(-1) ?? ""}\n${span.service}\t${span.kind}\t${purpose(span)}`;
    const count = seen.get(way) ?? 0;
    seen.set(way, count + 1);
    const own = `${way}\t${count}`;
    above[span.depth] = own;
    return own;
  });
}

/** How far a pair differs enough to be told: its time, its status, or that one of both is not there. */
export function differs({ a, b }: Pair): boolean {
  if (!a || !b) return true;
  if (a.status !== b.status) return true;
  const [less, more] = [Math.min(a.duration_ms, b.duration_ms), Math.max(a.duration_ms, b.duration_ms)];
  return more > less * 1.5 && more - less > 1;
}

/** Tags that differ between two spans, leaving out those that always do. */
export function tagsThatDiffer(a: TraceSpan, b: TraceSpan): [string, string, string][] {
  const always = ["guid:x-request-id", "peer.address", "node_id", "request_size", "response_size"];
  const names = [...new Set([...Object.keys(a.tags ?? {}), ...Object.keys(b.tags ?? {})])].sort();
  return names
    .filter((name) => !always.includes(name) && a.tags?.[name] !== b.tags?.[name])
    .map((name) => [name, a.tags?.[name] ?? "–", b.tags?.[name] ?? "–"]);
}

/** Where a length stands on a logarithmic axis from 0 (fastest) to 1. */
export function height(trace: Trace, [least, most]: [number, number]): number {
  const log = (ms: number) => Math.log10(Math.max(ms, 0.01));
  const span = log(most) - log(least);
  return span > 0 ? (log(trace.duration_ms) - log(least)) / span : 0.5;
}

/** The ends of that axis: whole decades around all lengths. */
export function decades(traces: Trace[]): [number, number] {
  const all = traces.map((trace) => Math.log10(Math.max(trace.duration_ms, 0.01)));
  const least = Math.floor(Math.min(...all, 3));
  const most = Math.ceil(Math.max(...all, -2));
  return [10 ** least, 10 ** Math.max(most, least + 1)];
}
