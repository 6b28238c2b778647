// Live calls as the server sends them: a line of JSON each (crates/heddle-wire/src/local/tap_api.rs), for as long as
// the page reads. What is read is bounded in length; what is kept, the page bounds.

export interface Party {
  service?: string;
  workload?: string;
  id?: string;
  namespace?: string;
  version?: string;
  address?: string;
}

export interface TappedCall {
  time: string;
  side: "client" | "server";
  sidecar: string;
  from: Party;
  to: Party;
  protocol: string;
  method?: string;
  authority?: string;
  path?: string;
  status: number;
  grpc_status?: number;
  duration_ms: number;
  retries: number;
  flags: string;
  received_bytes: number;
  sent_bytes: number;
  rule?: string;
  refusal?: { code: string; reason: string };
  faults?: { what: string; rule: string }[];
  request_id?: string;
  trace_id?: string;
}

export type Line =
  | { call: TappedCall }
  | { lost: { calls: number; sidecar: string } }
  | { notice: string };

/** Longest line, as the server bounds it, in characters. */
const LINE_MAX = 64 * 1024;

/** What may be asked for; the same words as flags of `heddle tap`. */
export interface Filter {
  to: string;
  from: string;
  status: string;
  path: string;
  method: string;
  "slower-than": string;
}

export const NOTHING: Filter = { to: "", from: "", status: "", path: "", method: "", "slower-than": "" };

/** A filter as parameters, without what is empty. */
export function parameters(filter: Filter): string {
  const values = new URLSearchParams();
  for (const [name, value] of Object.entries(filter)) if (value.trim() !== "") values.set(name, value.trim());
  return values.toString();
}

/** The server will say the same again: nothing is asked again until the filter changes. */
export class Refused extends Error {}

/** Reads until the server ends it; throws what the server refuses, in its words, or that it went away. */
export async function listen(filter: Filter, take: (line: Line) => void, signal: AbortSignal): Promise<void> {
  const response = await fetch(`/api/v1/tap?${parameters(filter)}`, { signal, cache: "no-store" });
  if (!response.ok || !response.body) {
    const said: unknown = await response.json().catch(() => null);
    const reason = (said as { error?: unknown } | null)?.error;
    const text = typeof reason === "string" ? reason : `The server answered with status ${response.status}.`;
    throw response.status === 429 || response.status >= 502 ? new Error(text) : new Refused(text);
  }
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let carried = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (carried + decoder.decode(value, { stream: true })).split("\n");
    carried = lines.pop() ?? "";
    if (carried.length > LINE_MAX) throw new Error("The server sends lines that are too long.");
    for (const line of lines) if (line !== "") take(JSON.parse(line) as Line);
  }
}

/** Did it go wrong? As `TappedCall::failed` says it. */
export function failed(call: TappedCall): boolean {
  const reset = call.flags.split(",").some((flag) => ["UC", "UF", "DC"].includes(flag));
  const unanswered = call.protocol === "tcp" ? reset : call.status === 0;
  return call.status >= 500 || unanswered || call.refusal !== undefined || (call.grpc_status ?? 0) !== 0;
}

/** Who somebody is, in one word; a caller of whom nothing is known is outside the mesh. */
export function who(party: Party, callee: boolean): string {
  const service = party.service?.split(".svc.")[0];
  const name = callee && !party.workload ? service : party.workload ?? service;
  return name ?? party.address ?? "outside";
}

/** What is out of the ordinary about a call, in words. */
export function remarks(call: TappedCall): string[] {
  const remarks = [];
  if (call.retries > 0) remarks.push(`sent ${call.retries + 1} times`);
  for (const fault of call.faults ?? []) remarks.push(`fault: ${fault.what}, by ${fault.rule}`);
  if (call.refusal) {
    const rule = call.rule ? `, by ${call.rule}` : "";
    remarks.push(`refused: ${call.refusal.code}${rule}: ${call.refusal.reason}`);
  } else if (call.flags !== "-" && !call.faults?.length) remarks.push(`flags: ${call.flags}`);
  return remarks;
}
