// The graph as two tables: services and calls. The same numbers, for those who trust tables more.

import { useState } from "preact/hooks";
import type { Go } from "../address";
import { id, type Edge, type Graph, type Node } from "../api";
import { bytes, duration, NONE, percent, rate } from "../format";
import { EVERY } from "./select";
import { failedShare, health, nodeHealth, title } from "../words";

interface Column<T> {
  name: string;
  cell: (row: T) => string;
  order: (row: T) => number | string;
  text?: boolean;
}

const SERVICES: Column<Node>[] = [
  { name: "Service", cell: (node) => title(node.service), order: (node) => title(node.service), text: true },
  { name: "Kind", cell: (node) => node.kind, order: (node) => node.kind, text: true },
  { name: "Req/s", cell: (node) => (isTcp(node) ? NONE : rate(own(node).per_second)), order: (node) => (isTcp(node) ? -1 : own(node).per_second) },
  { name: "Success", cell: (node) => (own(node).per_second > 0 ? percent(1 - failedShare(node)) : NONE), order: failedShare },
  { name: "4xx/s", cell: (node) => (isTcp(node) ? NONE : rate(own(node).client_errors_per_second)), order: (node) => own(node).client_errors_per_second },
  { name: "5xx/s", cell: (node) => (isTcp(node) ? NONE : rate(failures(node))), order: failures },
  { name: "p50", cell: (node) => duration(own(node).p50_ms), order: (node) => own(node).p50_ms ?? -1 },
  { name: "p90", cell: (node) => duration(own(node).p90_ms), order: (node) => own(node).p90_ms ?? -1 },
  { name: "p99", cell: (node) => duration(own(node).p99_ms), order: (node) => own(node).p99_ms ?? -1 },
  { name: "Conn/s", cell: (node) => (isTcp(node) ? rate(own(node).per_second) : NONE), order: (node) => (isTcp(node) ? own(node).per_second : -1) },
  { name: "TCP", cell: (node) => (node.bytes_per_second > 0 ? bytes(node.bytes_per_second) : NONE), order: (node) => node.bytes_per_second },
];

const CALLS: Column<Edge>[] = [
  { name: "Caller", cell: (edge) => title(edge.source), order: (edge) => title(edge.source), text: true },
  { name: "Callee", cell: (edge) => title(edge.destination), order: (edge) => title(edge.destination), text: true },
  { name: "Protocol", cell: (edge) => edge.protocol, order: (edge) => edge.protocol, text: true },
  { name: "Client req/s", cell: (edge) => calls(edge, edge.client), order: (edge) => edge.client.per_second },
  { name: "Server req/s", cell: (edge) => calls(edge, edge.server), order: (edge) => edge.server.per_second },
  { name: "Client success", cell: (edge) => side(edge.client), order: (edge) => edge.client.success },
  { name: "Server success", cell: (edge) => side(edge.server), order: (edge) => edge.server.success },
  { name: "Client p99", cell: (edge) => duration(edge.client.p99_ms), order: (edge) => edge.client.p99_ms ?? -1 },
  { name: "Server p99", cell: (edge) => duration(edge.server.p99_ms), order: (edge) => edge.server.p99_ms ?? -1 },
  { name: "Conn/s", cell: (edge) => (edge.protocol === "tcp" ? rate(Math.max(edge.client.per_second, edge.server.per_second)) : NONE), order: (edge) => (edge.protocol === "tcp" ? edge.client.per_second : -1) },
  { name: "TCP", cell: (edge) => (traffic(edge) > 0 ? bytes(traffic(edge)) : NONE), order: traffic },
];

function isTcp(node: Node): boolean {
  return node.kind === "tcp";
}

/** Connections are no requests. */
function calls(edge: Edge, side: Edge["client"]): string {
  return edge.protocol === "tcp" ? NONE : rate(side.per_second);
}

function own(node: Node) {
  return node.rates.per_second > 0 ? node.rates : node.client;
}

function failures(node: Node): number {
  return Math.max(node.rates.server_errors_per_second, node.client.server_errors_per_second);
}

function side(rates: Edge["client"]): string {
  return rates.per_second > 0 ? percent(rates.success) : NONE;
}

function traffic(edge: Edge): number {
  return edge.sent_bytes_per_second + edge.received_bytes_per_second;
}

export function GraphTable({ graph, go }: { graph: Graph; go: Go }) {
  const open = (service: Node["service"]) =>
    service.name === EVERY ? go({ filter: { ns: service.namespace } }) : go({ service, selected: null });
  return (
    <div class="tables">
      <Sorted
        title="Services"
        columns={SERVICES}
        rows={graph.nodes}
        name={(node) => id(node.service)}
        state={nodeHealth}
        open={(node) => open(node.service)}
      />
      <Sorted
        title="Calls"
        columns={CALLS}
        rows={graph.edges}
        name={(edge) => `${id(edge.source)}>${id(edge.destination)}>${edge.protocol}`}
        state={(edge) => health(edge.client, edge.server)}
        open={(edge) => open(edge.destination)}
      />
    </div>
  );
}

interface SortedProps<T> {
  title: string;
  columns: Column<T>[];
  rows: T[];
  name: (row: T) => string;
  state: (row: T) => string;
  open: (row: T) => void;
}

function Sorted<T>({ title, columns, rows, name, state, open }: SortedProps<T>) {
  const [by, setBy] = useState({ column: 0, descending: false });
  const order = columns[by.column]!.order;
  const sorted = [...rows].sort((a, b) => {
    const [x, y] = [order(a), order(b)];
    const difference = typeof x === "string" ? x.localeCompare(String(y)) : x - Number(y);
    return (by.descending ? -difference : difference) || (name(a) < name(b) ? -1 : 1);
  });
  return (
    <section class="table-box">
      <h2>{title}</h2>
      <div class="scroll" tabIndex={0} role="region" aria-label={title}>
        <table class="numbers">
          <thead>
            <tr>
              {columns.map((column, index) => (
                <th
                  key={column.name}
                  scope="col"
                  class={column.text ? "text" : ""}
                  aria-sort={by.column !== index ? "none" : by.descending ? "descending" : "ascending"}
                >
                  <button
                    type="button"
                    onClick={() =>
                      setBy({ column: index, descending: by.column === index ? !by.descending : !column.text })
                    }
                  >
                    {column.name}
                  </button>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {sorted.map((row) => (
              <tr key={name(row)} class={state(row)} onDblClick={() => open(row)}>
                {columns.map((column, index) => (
                  <td key={column.name} class={column.text ? "text" : ""}>
                    {index === 0 ? (
                      <button type="button" class="link" onClick={() => open(row)}>
                        <i class={`dot ${state(row)}`} aria-hidden="true" />
                        {column.cell(row)}
                      </button>
                    ) : (
                      column.cell(row)
                    )}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
