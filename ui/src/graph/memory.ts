// What the picture remembers per mesh, also across a reload: the order of the services, and calls
// seen lately, so that a caller that calls every minute does not make the picture jump.

import { id, NOTHING, type Graph, type Node } from "../api";
import { edgeKey } from "../words";

export interface Memory {
  /** Ids in the order they were last drawn. */
  order: string[];
  /** Calls by `source>target`, with the Unix time they were last seen. */
  calls: Record<string, number>;
}

/** Seconds a call without traffic stays in the live picture. */
const REMEMBERED = 600;
/** Seconds after which the times of calls are stored anew although the picture is the same. */
export const STORE_AFTER = 10;
/** Calls remembered per mesh. */
const CALLS_MAX = 500;

export function recall(mesh: string): Memory {
  try {
    const value = JSON.parse(localStorage.getItem(`heddle.graph.${mesh}`) ?? "null") as Memory | null;
    if (value && Array.isArray(value.order) && typeof value.calls === "object") return value;
  } catch {
    // Whatever is stored there, it is not ours.
  }
  return { order: [], calls: {} };
}

export function remember(mesh: string, memory: Memory) {
  try {
    localStorage.setItem(`heddle.graph.${mesh}`, JSON.stringify(memory));
  } catch {
    // Without storage the picture is as stable as the page.
  }
}

/** Calls of the graph, and remembered ones between services that still exist. */
export function callsOf(graph: Graph, nodes: Set<string>, memory: Memory): Map<string, number> {
  const calls = new Map<string, number>();
  for (const edge of graph.edges) calls.set(edgeKey(edge), graph.at);
  const old = Object.entries(memory.calls)
    .filter(([key, at]) => !calls.has(key) && at > graph.at - REMEMBERED && at <= graph.at)
    .sort((a, b) => b[1] - a[1])
    .slice(0, CALLS_MAX);
  for (const [key, at] of old) {
    const [source, target] = key.split(">");
    if (nodes.has(source ?? "") && nodes.has(target ?? "")) calls.set(key, at);
  }
  return calls;
}

/** The numbers of `part` on all services of `whole`, so that a picture keeps its shape while time goes on. */
export function within(part: Graph, whole: Graph): Graph {
  const known = new Map(part.nodes.map((node) => [id(node.service), node]));
  const nodes = whole.nodes.map((node): Node => {
    const now = known.get(id(node.service)) ?? { ...node, rates: NOTHING, client: NOTHING, bytes_per_second: 0, versions: [], failing_since: null, cause: null };
    const versions = node.versions.map(
      (one) => now.versions.find((other) => other.version === one.version) ?? { ...one, share: 0, rates: NOTHING },
    );
    // Who is there now says nothing about then.
    return { ...now, versions, faults: [] };
  });
  return { ...part, nodes, ejections: [] };
}
