// The JSON of traces, as crates/heddle-wire/src/local/traces_api.rs defines it.

export interface TraceList {
  traces: Trace[];
  more: boolean;
  store: StoreState;
}

export interface StoreState {
  endpoint: string;
  elsewhere: string | null;
  traces: number;
  bytes: number;
  bytes_max: number;
  spans: number;
  dropped: Record<string, number>;
  evicted: number;
  services: string[];
}

export interface Trace {
  id: string;
  start: number;
  duration_ms: number;
  service: string;
  name: string;
  status: string;
  errors: number;
  kept: "error" | "slow" | null;
  complete: boolean;
  span_count: number;
  services: string[];
  left_out: number;
  spans: TraceSpan[];
}

export interface TraceSpan {
  id: string;
  parent: string | null;
  depth: number;
  service: string;
  workload: string;
  name: string;
  kind: "client" | "server" | "internal" | "producer" | "consumer";
  start: number;
  offset_ms: number;
  moved_ms: number;
  duration_ms: number;
  status: string;
  error: boolean;
  method: string;
  path: string;
  mesh: boolean;
  tags?: Record<string, string>;
  events?: SpanEvent[];
}

export interface SpanEvent {
  offset_ms: number;
  text: string;
}
