// What the graph shows: picture or table, which part of the mesh, times on the lines, and the past hour again.

import type { Address, Go } from "../address";
import type { Graph } from "../api";
import { over } from "../words";
import { choiceOf, namespaces } from "./select";
import { whole } from "./replay";

interface Props {
  /** All of it, whatever part is shown. */
  graph: Graph | null;
  address: Address;
  go: Go;
  replaying: boolean;
}

export function Toolbar({ graph, address, go, replaying }: Props) {
  const { filter, table } = address;
  const choice = choiceOf(filter);
  const set = (change: Record<string, string>) => go({ filter: { ...filter, ...change }, selected: null }, true);
  const names = graph ? namespaces(graph) : [];
  const latency = filter.latency === "1";
  const past = typeof address.range === "object";
  return (
    <div class="toolbar">
      <p class="window">
        {graph && !replaying && (
          <>
            {over(graph.window, past)}
            {graph.window < 30 && <span class="more">, bytes of TCP over 30 seconds</span>}
          </>
        )}
        {replaying && "10 seconds of the last hour"}
      </p>
      <label class="find">
        <span>Filter</span>
        <input
          type="search"
          value={choice.name}
          placeholder="part of a name"
          onInput={(event) => set({ find: event.currentTarget.value })}
        />
      </label>
      {(names.length > 1 || choice.namespace !== "" || choice.grouped) && (
        <>
          <label class="choice">
            <span>Namespace</span>
            <select value={choice.namespace} onChange={(event) => set({ ns: event.currentTarget.value, group: "" })}>
              <option value="">all</option>
              {[...new Set([...names, choice.namespace].filter(Boolean))].map((name) => (
                <option key={name} value={name}>{name}</option>
              ))}
            </select>
          </label>
          <button
            type="button"
            class="toggle"
            aria-pressed={choice.grouped}
            onClick={() => set({ group: choice.grouped ? "" : "ns", ns: "" })}
          >
            By namespace
          </button>
        </>
      )}
      {!table && (
        <button type="button" class="toggle" aria-pressed={latency} onClick={() => set({ latency: latency ? "" : "1" })}>
          Latency
        </button>
      )}
      {!table && (
        <button
          type="button"
          class="toggle"
          aria-pressed={replaying}
          disabled={!graph}
          onClick={() => set({ at: replaying || !graph ? "" : String(whole(graph.at - 600)) })}
        >
          Replay
        </button>
      )}
      <div class="segmented" role="group" aria-label="View">
        <button type="button" aria-pressed={!table} onClick={() => go({ table: false })}>
          Graph
        </button>
        <button type="button" aria-pressed={table} onClick={() => go({ table: true })}>
          Table
        </button>
      </div>
    </div>
  );
}
