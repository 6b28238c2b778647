// What a selected node or an edge under the pointer tells: client and server side by side, in words too.

import { useLayoutEffect, useRef } from "preact/hooks";
import { link, type Address } from "../address";
import { id, type Edge, type Graph, type Node, type Rates } from "../api";
import { bytes, clock, duration, percent, rate } from "../format";
import { EVERY } from "./select";
import { behind, difference, edgeTitle, faultLines, ejectedBecause, ejectedOf, failedShare, title } from "../words";

/** Workloads that a card tells of one by one. */
const OUT_MAX = 3;

/** What a card belongs to: a point in the frame, with room kept free above and below it. */
export interface At {
  x: number;
  y: number;
  /** Pixels from the point to where the card may begin. */
  clear: number;
}

/** Hangs a card below its point, above it where there is no room below, and always inside the frame. */
function useHanging({ x, y, clear }: At) {
  const card = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    const element = card.current;
    const frame = element?.parentElement;
    if (!element || !frame) return;
    const left = Math.max(0, Math.min(frame.clientWidth - element.offsetWidth, x - element.offsetWidth / 2));
    const below = y + clear + element.offsetHeight <= frame.clientHeight;
    const top = below ? y + clear : Math.max(0, y - clear - element.offsetHeight);
    element.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
  });
  return card;
}

export function EdgeCard(props: { name: string; edges: Edge[]; nodes: Map<string, Node>; at: At; pinned: boolean }) {
  const { edges, nodes, at, pinned } = props;
  const card = useHanging(at);
  const [source = "", target = ""] = props.name.split(">");
  const name = (key: string) => {
    const node = nodes.get(key);
    return node ? title(node.service) : key;
  };
  return (
    <div ref={card} class={`card edge-card ${pinned ? "pinned" : ""}`} role="status">
      {edges.length === 0 && (
        <>
          <h2>{`${name(source)} → ${name(target)}`}</h2>
          <p>No calls now; there were some in the last ten minutes.</p>
        </>
      )}
      {edges.map((edge) => (
        <section key={edge.protocol}>
          <h2>
            {edgeTitle(edge)} <small>{edge.protocol}</small>
          </h2>
          <BothSides edge={edge} />
          <p>{difference(edge, nodes.get(target)?.kind === "outside")}</p>
        </section>
      ))}
    </div>
  );
}

function BothSides({ edge }: { edge: Edge }) {
  const tcp = edge.protocol === "tcp";
  const rows: [string, (side: Rates) => string][] = [
    [tcp ? "connections/s" : "requests/s", (side) => rate(side.per_second)],
    ["success", (side) => (side.per_second > 0 ? percent(side.success) : "–")],
  ];
  if (!tcp) {
    rows.push(["p50", (side) => duration(side.p50_ms)], ["p99", (side) => duration(side.p99_ms)]);
  }
  return (
    <table class="sides">
      <thead>
        <tr>
          <th />
          <th scope="col">client</th>
          <th scope="col">server</th>
        </tr>
      </thead>
      <tbody>
        {rows.map(([name, figure]) => (
          <tr key={name}>
            <th scope="row">{name}</th>
            <td>{figure(edge.client)}</td>
            <td>{figure(edge.server)}</td>
          </tr>
        ))}
        {tcp && (
          <tr>
            <th scope="row">bytes</th>
            <td>{bytes(edge.sent_bytes_per_second)} out</td>
            <td>{bytes(edge.received_bytes_per_second)} back</td>
          </tr>
        )}
      </tbody>
    </table>
  );
}

export function NodeCard(props: { node: Node; graph: Graph; at: At; address: Address }) {
  const { node, graph, at, address } = props;
  const { edges } = graph;
  const out = ejectedOf(graph.ejections ?? [], node.service);
  const card = useHanging(at);
  const key = id(node.service);
  const callers = edges.filter((edge) => id(edge.destination) === key);
  const callees = edges.filter((edge) => id(edge.source) === key);
  const failed = failedShare(node);
  return (
    <div ref={card} class="card node-card pinned">
      {failed >= 0.01 && (
        <p class="trouble">
          {percent(failed)} of the calls fail
          {node.failing_since ? ` since ${clock(node.failing_since)}` : ""}
          {1 - node.rates.success < failed - 0.005 ? "; most never reach it" : ""}.
        </p>
      )}
      {node.cause && <p class="trouble">{behind(node.cause).replace(/^./, (first) => first.toUpperCase())}: look there first.</p>}
      {faultLines(node.faults ?? [], node.client).map((line) => (
        <p key={line}>Fault on purpose: {line}.</p>
      ))}
      {out.slice(0, OUT_MAX).map((one) => (
        <p key={`${one.by} ${one.endpoint}`}>
          {one.endpoint} is given no calls by {one.by} until {clock(one.until, true)}: {ejectedBecause(one.reason)}.
        </p>
      ))}
      <p>
        {callers.length === 0 ? "Nobody calls it now. " : `Called by ${list(callers.map((edge) => title(edge.source)))}. `}
        {callees.length > 0 && `Calls ${list(callees.map((edge) => title(edge.destination)))}.`}
      </p>
      {node.service.name === EVERY ? (
        <a class="primary" href={link(address, { filter: { ...address.filter, ns: node.service.namespace, group: "" } })}>
          Open namespace {node.service.namespace} <kbd>Enter</kbd>
        </a>
      ) : (
        <a class="primary" href={link(address, { service: node.service })}>
          Open {title(node.service)} <kbd>Enter</kbd>
        </a>
      )}
    </div>
  );
}

function list(names: string[]): string {
  const unique = [...new Set(names)].sort();
  if (unique.length > 4) return `${unique.slice(0, 3).join(", ")} and ${unique.length - 3} more`;
  return unique.length < 2 ? unique.join("") : `${unique.slice(0, -1).join(", ")} and ${unique.at(-1)}`;
}
