// What the numbers mean, in words: is it well, since when, whose fault.

import type { Cause, Edge, Ejection, FaultWord, Graph, Node, Rates, ServiceName } from "./api";
import { id } from "./api";
import { clock, duration, length, percent } from "./format";

export type Health = "idle" | "well" | "degraded" | "failing";

/** From these shares of failed calls on. */
const DEGRADED = 0.01;
const FAILING = 0.05;

/** What is asked of a service but not aborted on purpose. */
export function asked(rates: Rates): number {
  return rates.per_second - rates.injected_per_second;
}

export function health(...sides: Rates[]): Health {
  const failed = Math.max(...sides.map((side) => 1 - side.success));
  if (failed >= FAILING) return "failing";
  if (failed >= DEGRADED) return "degraded";
  return sides.some((side) => side.per_second > 0) ? "well" : "idle";
}

/** The worse of what a service says of itself and what its callers saw. */
export function nodeHealth(node: Node): Health {
  return health(node.rates, node.client);
}

export function failedShare(node: Node): number {
  return 1 - Math.min(node.rates.success, node.client.success);
}

/** The name as shown: the namespace only where it is not the default one. */
export function title(service: ServiceName): string {
  // Whoever calls from outside and is not known has one name everywhere; so has an address that nobody explained.
  if (service.namespace === "" && service.name === "unknown") return "outside";
  if (service.namespace === "" && service.name === "PassthroughCluster") return "outside, by address";
  // All services of a namespace together.
  if (service.name === "*") return service.namespace;
  const plain = service.namespace === "default" || service.namespace === "";
  if (plain) return service.name;
  // A host of a ServiceEntry: with the namespace behind a dot it would be another host.
  if (service.name.includes(".")) return `${service.name} (${service.namespace})`;
  return `${service.name}.${service.namespace}`;
}

export interface Verdict {
  health: Health;
  text: string;
  /** The service to look at. */
  service: ServiceName | null;
}

/** The quiet word in the header. */
export function verdict(graph: Graph): Verdict {
  const failing = graph.nodes
    .filter((node) => failedShare(node) >= DEGRADED)
    .sort((a, b) => failedShare(b) - failedShare(a));
  // A service that fails because another one does is a symptom: the one behind it is named.
  const worst = failing.find((node) => !node.cause) ?? failing[0];
  if (worst) {
    const since = worst.failing_since ? ` since ${clock(worst.failing_since)}` : "";
    const others = failing.filter((node) => node !== worst);
    const felt = others.filter((node) => node.cause && id(node.cause.path.at(-1)!) === id(worst.service));
    const more = others.length - felt.length;
    const text = [
      `${title(worst.service)}: ${percent(failedShare(worst))} errors${since}`,
      worst.cause ? behind(worst.cause) : "",
      felt.length > 0 ? `felt by ${felt.length === 1 ? title(felt[0]!.service) : `${felt.length} services`}` : "",
      more > 0 ? `and ${more} more` : "",
    ];
    return { health: nodeHealth(worst), text: text.filter(Boolean).join(", "), service: worst.service };
  }
  const { sidecars, scraped, control } = graph.coverage;
  const services = graph.nodes.filter((node) => node.kind !== "outside").length;
  if (services === 0) return { health: "idle", text: "no services yet", service: null };
  const count = `${services} service${services === 1 ? "" : "s"}`;
  if (!control) {
    return { health: "degraded", text: `${count}; the control plane does not answer`, service: null };
  }
  if (scraped < sidecars) {
    const text = `${count}; ${sidecars - scraped} of ${sidecars} sidecars not measured`;
    return { health: "degraded", text, service: null };
  }
  const injected = graph.nodes.filter(
    (node) => node.client.injected_per_second + node.client.delayed_per_second > 0,
  ).length;
  const faults = injected > 0 ? `, faults injected into ${injected}` : ", all well";
  return { health: "well", text: `${count}${faults}`, service: null };
}

/** What is behind a service's failures, in a few words. */
export function behind({ path, injected, failed }: Cause): string {
  const last = path.at(-1);
  if (!last) return "";
  return injected > failed ? `after a fault injected into ${title(last)}` : `from ${title(last)}`;
}

/** A fault as its rule asks for it: `abort 80 %`. */
export function faultAsked({ what, percent: share, partly }: FaultWord): string {
  return `${faultName(what)} ${percent(share / 100)}${partly ? " of some" : ""}`;
}

function faultName(what: string): string {
  return { resetAfterBytes: "reset", bytesPerSecond: "slowed" }[what] ?? what;
}

/** What of a fault was measured, as a share of all calls; null of one that only connections show, or without calls. */
export function faultMeasured(what: string, calls: Rates): number | null {
  if (calls.per_second === 0) return null;
  if (what === "abort") return calls.injected_per_second / calls.per_second;
  return what === "delay" ? calls.delayed_per_second / calls.per_second : null;
}

/** Faults by rule with what was measured; without a known rule what was measured alone. */
export function faultLines(faults: FaultWord[], calls: Rates): string[] {
  const lines = faults.map((fault) => {
    const measured = faultMeasured(fault.what, calls);
    return measured === null ? faultAsked(fault) : `${faultAsked(fault)}, ${percent(measured)} measured`;
  });
  for (const what of ["abort", "delay"]) {
    const measured = faultMeasured(what, calls);
    if (measured && !faults.some((fault) => fault.what === what)) lines.push(`${what} ${percent(measured)} measured`);
  }
  return lines;
}

/** Where client and server tell different stories about the same calls; null where they agree. */
export function difference(edge: Edge, outside: boolean): string {
  const { client, server } = edge;
  if (outside) return "Outside the mesh: only the caller's side is measured.";
  if (client.per_second === 0 && server.per_second === 0) {
    return edge.protocol === "tcp" ? "No new connections; bytes on open ones." : "No calls now.";
  }
  if (client.per_second === 0) return "The caller has no sidecar here: only the server's side is measured.";
  const lines: string[] = [];
  if (client.injected_per_second > 0) {
    const share = client.injected_per_second / client.per_second;
    lines.push(`${percent(share)} are aborted on purpose by a fault rule, before they reach the server.`);
  }
  if (client.delayed_per_second > 0) {
    const share = client.delayed_per_second / client.per_second;
    lines.push(`${percent(share)} are delayed on purpose by a fault rule.`);
  }
  const expected = asked(client);
  if (expected > 0 && server.per_second === 0) {
    lines.push("Nothing arrives at the server: it cannot be reached, or a sidecar refuses the calls.");
    return lines.join(" ");
  }
  const lost = server.success - client.success;
  if (lost >= 0.005) {
    lines.push(`The client sees ${percent(lost)} more failures: they happen on the way, not in the server.`);
  }
  const slower = slowerBy(client, server);
  if (slower !== null && client.delayed_per_second === 0) {
    lines.push(`The client sees ${duration(slower)} more: time in the network or in queues.`);
  }
  return lines.length > 0 ? lines.join(" ") : "Both sides agree.";
}

/** By how many milliseconds the client's median or tail is above the server's, if it matters. */
function slowerBy(client: Rates, server: Rates): number | null {
  const by = (mine: number | null, theirs: number | null, least: number, share: number) =>
    mine !== null && theirs !== null && mine - theirs > Math.max(least, theirs * share) ? mine - theirs : null;
  // A tail is made of few calls: only a large difference there means something.
  return by(client.p99_ms, server.p99_ms, 15, 0.5) ?? by(client.p50_ms, server.p50_ms, 5, 0.25);
}

/** Envoy's response flags, as a sentence each. */
const FLAGS: Record<string, string> = {
  UH: "no healthy endpoint",
  UF: "could not connect to the endpoint",
  UO: "refused by a connection or request limit",
  UT: "no answer within the timeout",
  UC: "the server closed the connection before it answered",
  UR: "the server reset the connection",
  URX: "all retries failed",
  LR: "reset by this side",
  LH: "failed the health check",
  DC: "the client went away before the answer",
  DT: "took longer than allowed in total",
  NR: "no route matches",
  NC: "the rule names a destination that does not exist",
  DI: "delayed on purpose by a fault rule",
  FI: "aborted on purpose by a fault rule",
  RL: "refused by a rate limit",
  UAEX: "denied by an authorization service",
  SI: "the head of the request did not end within 10 s",
  DPE: "the client broke the protocol",
  UPE: "the server broke the protocol",
  OM: "refused by the sidecar’s limit on connections",
  DF: "the name could not be resolved",
};

export function flagsInWords(flags: string): string {
  if (flags === "-" || flags === "") return "";
  return flags
    .split(",")
    .map((flag) => FLAGS[flag] ?? flag)
    .join(", ");
}

/** Those of one service's endpoints that are out. */
export function ejectedOf(ejections: Ejection[], service: ServiceName): Ejection[] {
  return ejections.filter((one) => id(one.service) === id(service));
}

/** Why an endpoint was taken out. */
export function ejectedBecause(reason: string): string {
  return (
    {
      consecutive5xxErrors: "too many errors in a row",
      consecutiveGatewayErrors: "too many gateway errors in a row (502, 503, 504)",
      consecutiveLocalOriginFailures: "could not be reached too often in a row",
      probe: "failed the request it was tried again with",
      successRate: "succeeds far less often than the others",
      failurePercentage: "too large a share of its requests fails",
    }[reason] ?? reason
  );
}

/** What a status code is, for the table of answers. */
export function codeInWords(code: number): string {
  if (code === 0) return "no answer";
  return { 1: "informational", 2: "success", 3: "redirect", 4: "client error", 5: "server error" }[
    Math.floor(code / 100)
  ] ?? "";
}

/** Over which time the numbers of a page are: said once on each, next to its title. */
export function over(window: number, past: boolean): string {
  if (window === 0) return "this period has not begun yet";
  return past ? `over the ${length(window)} chosen` : `over the last ${length(window)}`;
}

/** The label of an edge for screen readers and lists. */
export function edgeTitle(edge: Edge): string {
  return `${title(edge.source)} → ${title(edge.destination)}`;
}

export function edgeKey(edge: Edge): string {
  return `${id(edge.source)}>${id(edge.destination)}`;
}
