// Which part of the mesh the graph shows: one namespace with its neighbours, services of a name, or a node for each
// namespace. Made from the answer, so that one answer serves all views.

import { id, type Edge, type Graph, type Node, type Rates, type ServiceName } from "../api";

/** What the address says about it. */
export interface Choice {
  /** Only this namespace and its neighbours; empty for all. */
  namespace: string;
  /** Only services with this in their name, and their neighbours. */
  name: string;
  /** A node for each namespace. */
  grouped: boolean;
}

/** Stands for all services of a namespace. */
export const EVERY = "*";

export function choiceOf(filter: Record<string, string>): Choice {
  return { namespace: filter.ns ?? "", name: filter.find ?? "", grouped: filter.group === "ns" };
}

/** The namespaces there are, in order; what is outside has none. */
export function namespaces(graph: Graph): string[] {
  const all = new Set(graph.nodes.map((node) => node.service.namespace));
  all.delete("");
  return [...all].sort();
}

export function chosen(graph: Graph, choice: Choice): Graph {
  const part = narrowed(graph, choice);
  return choice.grouped ? grouped(part) : part;
}

function narrowed(graph: Graph, { namespace, name }: Choice): Graph {
  const wanted = name.trim().toLowerCase();
  if (namespace === "" && wanted === "") return graph;
  const meant = (service: ServiceName) =>
    (namespace === "" || service.namespace === namespace) && service.name.toLowerCase().includes(wanted);
  const edges = graph.edges.filter((edge) => meant(edge.source) || meant(edge.destination));
  const shown = new Set(edges.flatMap((edge) => [id(edge.source), id(edge.destination)]));
  const nodes = graph.nodes.filter((node) => meant(node.service) || shown.has(id(node.service)));
  return { ...graph, nodes, edges };
}

function grouped(graph: Graph): Graph {
  const of = (service: ServiceName): ServiceName =>
    service.namespace === "" ? service : { namespace: service.namespace, name: EVERY };
  const nodes = new Map<string, Node[]>();
  for (const node of graph.nodes) push(nodes, id(of(node.service)), node);
  const edges = new Map<string, Edge[]>();
  for (const edge of graph.edges) {
    const ends = `${id(of(edge.source))}>${id(of(edge.destination))}`;
    // Calls within a namespace are inside its node.
    if (id(of(edge.source)) !== id(of(edge.destination))) push(edges, `${ends} ${edge.protocol}`, edge);
  }
  return {
    ...graph,
    nodes: [...nodes.values()].map((all) => ({ ...together(all), service: of(all[0]!.service) })),
    edges: [...edges.values()].map((all) => ({
      ...all[0]!,
      source: of(all[0]!.source),
      destination: of(all[0]!.destination),
      client: sum(all.map((edge) => edge.client)),
      server: sum(all.map((edge) => edge.server)),
      sent_bytes_per_second: total(all, (edge) => edge.sent_bytes_per_second),
      received_bytes_per_second: total(all, (edge) => edge.received_bytes_per_second),
    })),
  };
}

function push<T>(map: Map<string, T[]>, key: string, value: T) {
  const known = map.get(key);
  if (known) known.push(value);
  else map.set(key, [value]);
}

function total<T>(all: T[], of: (one: T) => number): number {
  return all.reduce((sum, one) => sum + of(one), 0);
}

/** One node for several; quantiles of several services cannot be had from theirs. */
function together(all: Node[]): Node {
  if (all.length === 1) return all[0]!;
  const http = all.filter((node) => node.kind !== "tcp");
  const since = all.map((node) => node.failing_since).filter((at): at is number => at !== null);
  return {
    ...all[0]!,
    kind: http.some((node) => node.kind === "http") ? "http" : all[0]!.kind,
    rates: sum(http.map((node) => node.rates)),
    client: sum(http.map((node) => node.client)),
    bytes_per_second: total(all, (node) => node.bytes_per_second),
    versions: [],
    failing_since: since.length > 0 ? Math.min(...since) : null,
    addresses: [],
    cause: null,
    faults: [],
  };
}

function sum(all: Rates[]): Rates {
  const add = (of: (rates: Rates) => number) => total(all, of);
  const asked = add((rates) => rates.per_second - rates.injected_per_second);
  const well = add((rates) => (rates.per_second - rates.injected_per_second) * rates.success);
  return {
    per_second: add((rates) => rates.per_second),
    success: asked > 0 ? well / asked : 1,
    client_errors_per_second: add((rates) => rates.client_errors_per_second),
    server_errors_per_second: add((rates) => rates.server_errors_per_second),
    injected_per_second: add((rates) => rates.injected_per_second),
    delayed_per_second: add((rates) => rates.delayed_per_second),
    p50_ms: null,
    p90_ms: null,
    p99_ms: null,
  };
}
