// The JSON of the dashboard's server, as crates/heddle-wire/src/local/observe_api.rs defines it, and
// one way to keep an answer fresh.

import { useEffect, useRef, useState } from "preact/hooks";

export interface ServiceName {
  namespace: string;
  name: string;
}

export interface Rates {
  per_second: number;
  success: number;
  client_errors_per_second: number;
  server_errors_per_second: number;
  injected_per_second: number;
  delayed_per_second: number;
  p50_ms: number | null;
  p90_ms: number | null;
  p99_ms: number | null;
}

/** What a side has measured that was asked nothing. */
export const NOTHING: Rates = {
  per_second: 0,
  success: 1,
  client_errors_per_second: 0,
  server_errors_per_second: 0,
  injected_per_second: 0,
  delayed_per_second: 0,
  p50_ms: null,
  p90_ms: null,
  p99_ms: null,
};

export interface Version {
  version: string;
  share: number;
  rates: Rates;
}

export type Kind = "http" | "tcp" | "client" | "outside";

export interface Node {
  service: ServiceName;
  kind: Kind;
  rates: Rates;
  client: Rates;
  bytes_per_second: number;
  versions: Version[];
  failing_since: number | null;
  addresses: string[];
  cause: Cause | null;
  faults: FaultWord[];
}

/** Where the failures of a service come from: `path` leads from it to the deepest callee that accounts for them. */
export interface Cause {
  path: ServiceName[];
  failed: number;
  injected: number;
}

/** A fault that a rule injects; `percent` from 0 to 100. */
export interface FaultWord {
  what: string;
  percent: number;
  detail: string;
  rule: string;
  partly: boolean;
}

export interface RuleChange {
  at: number;
  action: string;
  rule: string;
  source: string;
  services: ServiceName[];
}

export interface RulePart {
  name: string;
  line: number;
  matches: string;
  does: string;
  faults: FaultWord[];
  counted: boolean;
  rates: Rates;
}

export interface RuleRow {
  kind: string;
  namespace: string;
  name: string;
  source: string;
  line: number;
  state: string;
  notes: string[];
  services: ServiceName[];
  parts: RulePart[];
  text: string;
}

export interface RulesPage {
  mesh: string;
  at: number;
  window: number;
  known: boolean;
  rules: RuleRow[];
  changes: RuleChange[];
}

/** Calls to a service that one rule decided about. */
export interface PathRow {
  rule: string;
  matches: string;
  in_force: boolean;
  rates: Rates;
}

/** Calls to a service whose paths differ by numbers and ids only. */
export interface TemplateRow {
  path: string;
  rates: Rates;
}

export interface RefusalRow {
  by: string;
  service: ServiceName;
  direction: string;
  code: string;
  count: number;
}

/** A name that a workload asked for and got no address of. */
export interface NameFailure {
  by: string;
  service: ServiceName;
  name: string;
  answer: string;
  count: number;
  last: number;
  did_you_mean: string | null;
}

export interface TlsFailure {
  by: string;
  reason: string;
  total: number;
  last: number;
}

export interface RefusalsPage {
  mesh: string;
  at: number;
  window: number;
  refusals: RefusalRow[];
  names: NameFailure[];
  tls: TlsFailure[];
  ejections: Ejection[];
}

export interface Edge {
  source: ServiceName;
  destination: ServiceName;
  protocol: "http" | "grpc" | "tcp";
  client: Rates;
  server: Rates;
  sent_bytes_per_second: number;
  received_bytes_per_second: number;
}

export interface Graph {
  mesh: string;
  at: number;
  window: number;
  nodes: Node[];
  edges: Edge[];
  coverage: { sidecars: number; scraped: number; control: boolean };
  ejections: Ejection[];
  changes: RuleChange[];
}

/** An endpoint that a sidecar gives no requests, for its errors; times are Unix seconds. */
export interface Ejection {
  by: string;
  service: ServiceName;
  port: number;
  subset: string;
  endpoint: string;
  address: string;
  reason: string;
  rule: string;
  since: number;
  until: number;
}

export interface ServiceSummary {
  service: ServiceName;
  kind: Kind;
  client: Rates;
  server: Rates;
  sent_bytes_per_second: number;
  received_bytes_per_second: number;
}

export interface Point {
  at: number;
  client: Rates;
  server: Rates;
  in_flight: number;
  bytes_per_second: number;
}

export interface Response {
  code: number;
  flags: string;
  client_per_second: number;
  server_per_second: number;
}

export interface WorkloadRow {
  id: string;
  version: string;
  address: string;
  scraped: boolean;
  in_flight: number;
  rates: Rates;
  present: boolean;
}

export interface ServicePage {
  summary: ServiceSummary;
  previous: ServiceSummary;
  series: Point[];
  callers: Edge[];
  callees: Edge[];
  versions: Version[];
  workloads: WorkloadRow[];
  mesh: string;
  at: number;
  window: number;
  step: number;
  previous_measured: number;
  responses: Response[];
  failing_since: number | null;
  cause: Cause | null;
  /** What is wrong, in sentences; none where all is well. */
  first: string[];
  /** What rules do on purpose, as they ask for it and as it was measured. */
  on_purpose: string[];
  /** Its workloads that do not pass trace headers on, in sentences. */
  lost_contexts: string[];
  faults: FaultWord[];
  paths: PathRow[];
  templates: TemplateRow[];
  rules: RuleRow[];
  changes: RuleChange[];
  refusals: RefusalRow[];
  names: NameFailure[];
  ejections: Ejection[];
}

/** `namespace/name`: a service as a key, in the address bar and in maps. */
export function id(service: ServiceName): string {
  return `${service.namespace}/${service.name}`;
}

/** An answer that is kept fresh. */
export interface Live<T> {
  /** The newest answer; kept while newer ones cannot be had. */
  data: T | null;
  /** What went wrong the last time, in words; null if nothing did. */
  error: string | null;
  /** HTTP status of a refusal; 0 where nothing answered. */
  status: number;
  /** When `data` was received, by this machine's clock in milliseconds. */
  received: number;
}

/** How long an answer may take before the server counts as not reachable. */
const PATIENCE_MS = 4000;

/**
 * Asks `url` again every `interval` milliseconds while the page is visible; 0 asks once. A new URL
 * keeps the old answer on the page until the first new one is there, unless `fresh` says otherwise.
 */
export function useLive<T>(url: string, interval: number, fresh = false): Live<T> {
  const empty: Live<T> = { data: null, error: null, status: 200, received: 0 };
  const [live, setLive] = useState<Live<T>>(empty);
  const shown = useRef(url);
  useEffect(() => {
    let timer = 0;
    let ended = false;
    const abort = new AbortController();
    if (fresh && shown.current !== url) setLive(empty);
    shown.current = url;
    const ask = async () => {
      if (document.hidden) return;
      const answer = await get<T>(url, abort.signal);
      if (ended) return;
      setLive((before) =>
        answer.data === null
          ? { ...before, error: answer.error, status: answer.status }
          : { data: answer.data, error: null, status: 200, received: Date.now() },
      );
      window.clearTimeout(timer);
      // After a failure a page that is asked for once is asked for again too.
      const pause = answer.data === null ? Math.max(interval, 2000) : interval;
      if (pause > 0) timer = window.setTimeout(ask, pause);
    };
    const visible = () => {
      window.clearTimeout(timer);
      void ask();
    };
    document.addEventListener("visibilitychange", visible);
    void ask();
    return () => {
      ended = true;
      abort.abort();
      window.clearTimeout(timer);
      document.removeEventListener("visibilitychange", visible);
    };
  }, [url, interval]);
  return shown.current !== url && fresh ? empty : live;
}

async function get<T>(
  url: string,
  signal: AbortSignal,
): Promise<{ data: T | null; error: string | null; status: number }> {
  try {
    const response = await fetch(url, {
      signal: AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)]),
      cache: "no-store",
    });
    const body = (await response.json()) as T & { error?: string };
    if (response.ok) return { data: body, error: null, status: response.status };
    return { data: null, error: body.error ?? `HTTP ${response.status}`, status: response.status };
  } catch {
    return { data: null, error: "the dashboard's server does not answer", status: 0 };
  }
}
