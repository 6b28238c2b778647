// The home page: the graph, or the same as a table, or what to do when there is nothing to see.

import { Command } from "../command";
import { isOld, OldNote } from "../old";
import type { PageProps } from "../pages";
import { Canvas } from "./canvas";
import { GraphTable } from "./table";

export function GraphPage({ graph, address, go, stopped }: PageProps) {
  const { data } = graph;
  return (
    <main class={`graph-page ${stopped || isOld(graph) ? "stale" : ""}`}>
      <div class="toolbar">
        <div class="segmented" role="group" aria-label="View">
          <button type="button" aria-pressed={!address.table} onClick={() => go({ table: false })}>
            Graph
          </button>
          <button type="button" aria-pressed={address.table} onClick={() => go({ table: true })}>
            Table
          </button>
        </div>
      </div>
      <OldNote live={graph} />
      {!data ? (
        <Waiting refused={graph.status >= 400 ? graph.error : null} />
      ) : data.nodes.length === 0 ? (
        <NobodyHere />
      ) : address.table ? (
        <GraphTable graph={data} go={go} />
      ) : (
        <Canvas graph={data} address={address} go={go} />
      )}
      {data && data.nodes.length > 0 && (
        <footer class="legend">
          {data.edges.length === 0 && <NoCalls />}
          {!address.table && (
            <p>
              <span><svg width="28" height="8" aria-hidden="true"><line x1="0" x2="28" y1="4" y2="4" class="edge-line well" stroke-width="3" /></svg> width: requests per second, log scale</span>
              <span><svg width="28" height="8" aria-hidden="true"><line x1="0" x2="28" y1="4" y2="4" class="edge-line degraded" stroke-width="3" /></svg> from 1 % failing</span>
              <span><svg width="28" height="8" aria-hidden="true"><line x1="0" x2="28" y1="4" y2="4" class="edge-line failing" stroke-width="3" /></svg> from 5 %</span>
            </p>
          )}
          <p class="keys">
            {!address.table && <span><kbd>Enter</kbd> or double-click opens</span>}
            {!address.table && <span><kbd>←</kbd><kbd>→</kbd> callers, callees</span>}
            <span><kbd>t</kbd> {address.table ? "graph" : "table"}</span>
            <span><kbd>/</kbd> search</span>
          </p>
        </footer>
      )}
    </main>
  );
}

/** Before the first answer: the shape of what will come, so that nothing jumps. */
function Waiting({ refused }: { refused: string | null }) {
  if (refused) {
    return (
      <div class="empty">
        <h1>This period cannot be shown</h1>
        <p>{refused}</p>
      </div>
    );
  }
  return (
    <div class="canvas waiting" aria-busy="true" aria-label="Waiting for the first numbers">
      {[0, 1, 2].map((one) => (
        <div key={one} class="ghost" />
      ))}
    </div>
  );
}

function NobodyHere() {
  return (
    <div class="empty">
      <h1>No service has joined this mesh yet</h1>
      <p>Start any program as a service; nothing in it has to change:</p>
      <Command text="heddle run --service hello --port http:8080 -- python3 -m http.server 8080" />
      <p>then call it from a client, by its name:</p>
      <Command text="heddle run --service me -- curl -s http://hello:8080/" />
    </div>
  );
}

function NoCalls() {
  return (
    <p class="no-calls">
      No calls in this period. Make one: <Command text="heddle run --service me -- curl -s http://SERVICE:PORT/" />
    </p>
  );
}
