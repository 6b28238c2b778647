// The home page: the graph, or the same as a table, or what to do when there is nothing to see.

import type { Address, Go } from "../address";
import { useLive, type Graph } from "../api";
import { Command } from "../command";
import { isOld, OldNote } from "../old";
import type { PageProps } from "../pages";
import { Canvas } from "./canvas";
import { within } from "./memory";
import { REACH, Replay, replayed, STEP } from "./replay";
import { choiceOf, chosen } from "./select";
import { GraphTable } from "./table";
import { Toolbar } from "./toolbar";

export function GraphPage({ now, graph, address, go, stopped }: PageProps) {
  const { data } = graph;
  const at = address.table ? null : replayed(address.filter);
  if (at !== null) return <Replayed newest={now.data ?? data} at={at} address={address} go={go} />;
  const shown = data && chosen(data, choiceOf(address.filter));
  return (
    <main class={`graph-page ${stopped || isOld(graph) ? "stale" : ""}`}>
      <Toolbar graph={data} address={address} go={go} replaying={false} />
      <OldNote live={graph} />
      {!data || !shown ? (
        <Waiting refused={graph.status >= 400 ? graph.error : null} />
      ) : data.nodes.length === 0 ? (
        <NobodyHere mesh={data.mesh} />
      ) : shown.nodes.length === 0 ? (
        <p class="note">No service is of this choice. <button type="button" class="quiet" onClick={() => go({ filter: {} })}>Show all</button></p>
      ) : address.table ? (
        <GraphTable graph={shown} go={go} />
      ) : (
        <Canvas graph={shown} address={address} go={go} />
      )}
      {data && data.nodes.length > 0 && (
        <footer class="legend">
          {data.edges.length === 0 && <NoCalls mesh={data.mesh} />}
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

/** A picture of the past: the services and calls of the whole hour, with the numbers of ten seconds. */
function Replayed({ newest, at, address, go }: { newest: Graph | null; at: number; address: Address; go: Go }) {
  const frame = useLive<Graph>(`/api/v1/graph?window=${STEP}&end=${at + STEP - 1}`, 0);
  const hour = useLive<Graph>(`/api/v1/graph?window=${REACH}`, 30_000);
  const set = (value: string) => go({ filter: { ...address.filter, at: value } }, true);
  const choice = choiceOf(address.filter);
  const whole = hour.data && chosen(hour.data, choice);
  const shown = frame.data && whole && within(chosen(frame.data, choice), whole);
  return (
    <main class="graph-page">
      <Toolbar graph={newest} address={address} go={go} replaying />
      <Replay newest={newest?.at ?? at} at={at} show={(time) => set(String(time))} close={() => set("")} />
      {shown && whole ? (
        <Canvas graph={shown} whole={whole} address={address} go={go} />
      ) : (
        <Waiting refused={frame.status >= 400 ? frame.error : null} />
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

function NobodyHere({ mesh }: { mesh: string }) {
  return (
    <div class="empty">
      <h1>No service has joined this mesh yet</h1>
      <p>Start any program as a service; nothing in it has to change:</p>
      <Command text={`heddle run --service hello --mesh ${mesh} --port http:8080 -- python3 -m http.server 8080`} />
      <p>then call it from a client, by its name:</p>
      <Command text={`heddle run --service me --mesh ${mesh} -- curl -s http://hello:8080/`} />
    </div>
  );
}

function NoCalls({ mesh }: { mesh: string }) {
  return (
    <p class="no-calls">
      No calls in this period. Make one: <Command text={`heddle run --service me --mesh ${mesh} -- curl -s http://SERVICE:PORT/`} />
    </p>
  );
}
