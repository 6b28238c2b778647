// Two traces side by side, on one scale, and what differs between them.

import { link, type Address } from "../address";
import { useLive } from "../api";
import { clock, duration } from "../format";
import type { Trace, TraceSpan } from "./api";
import { differs, pairs, short, tagsThatDiffer, type Pair } from "./logic";
import { Waterfall } from "./waterfall";

export function ComparePage({ address, ids }: { address: Address; ids: [string, string] }) {
  const a = useLive<Trace>(`/api/v1/traces/${encodeURIComponent(ids[0])}`, 0, true);
  const b = useLive<Trace>(`/api/v1/traces/${encodeURIComponent(ids[1])}`, 0, true);
  if (!a.data || !b.data)
    return (
      <main class="traces-page">
        {(a.error || b.error) && (
          <div class="empty">
            <h1>There are not two such traces</h1>
            <p>{a.error ?? b.error}</p>
            <a href={link(address, { rest: [] })}>All traces</a>
          </div>
        )}
      </main>
    );
  const whole = Math.max(a.data.duration_ms, b.data.duration_ms);
  const different = pairs(a.data.spans, b.data.spans).filter(differs);
  return (
    <main class="traces-page">
      <header class="trace-head">
        <p>
          <a href={link(address, { rest: [] })}>Traces</a> <span aria-hidden="true">/</span> two compared
        </p>
        <h1>{verdict(a.data, b.data)}</h1>
        <p class="facts">
          <a href={link(address, { rest: [ids[1], ids[0]] })}>Swap A and B</a>
        </p>
      </header>
      <div class="two-traces">
        {[a.data, b.data].map((trace, index) => (
          <section key={trace.id}>
            <h2>
              {index === 0 ? "A" : "B"}:{" "}
              <a href={link(address, { rest: [trace.id] })}>
                {short(trace.service)} {trace.name}
              </a>{" "}
              <small>
                {duration(trace.duration_ms)}, {trace.status}, {clock(trace.start, true)}
              </small>
            </h2>
            <Waterfall trace={trace} whole={whole} selected={null} />
          </section>
        ))}
      </div>
      <Differences pairs={different} />
    </main>
  );
}

function verdict(a: Trace, b: Trace): string {
  const difference = b.duration_ms - a.duration_ms;
  const time =
    Math.abs(difference) < 1
      ? "Both took equally long"
      : `B took ${duration(Math.abs(difference))} ${difference > 0 ? "longer" : "less"} than A`;
  return a.status === b.status ? time : `${time}; A ended with ${a.status}, B with ${b.status}`;
}

function Differences({ pairs }: { pairs: Pair[] }) {
  return (
    <section class="table-box card">
      <h2>What differs</h2>
      {pairs.length === 0 && <p class="hint">No span differs in status, or by half of its time.</p>}
      {pairs.length > 0 && (
        <div class="scroll">
          <table class="numbers differences">
            <thead>
              <tr>
                <th scope="col">Span</th>
                <th scope="col">A</th>
                <th scope="col">B</th>
                <th scope="col">B − A</th>
              </tr>
            </thead>
            <tbody>
              {pairs.map((pair, index) => (
                <Difference key={index} pair={pair} />
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}

function Difference({ pair: { label, kind, depth, a, b } }: { pair: Pair }) {
  const more = a && b ? b.duration_ms - a.duration_ms : null;
  const tags = a && b ? tagsThatDiffer(a, b).slice(0, 6) : [];
  return (
    <tr>
      <td style={{ paddingLeft: `${8 + Math.min(depth, 10) * 10}px` }}>
        {label} <small>{kind}</small>
        {tags.map(([name, left, right]) => (
          <small class="tag-difference" key={name}>
            {name}: {left} → {right}
          </small>
        ))}
      </td>
      <td>{told(a)}</td>
      <td>{told(b)}</td>
      <td>{more === null ? "" : `${more > 0 ? "+" : "−"}${duration(Math.abs(more))}`}</td>
    </tr>
  );
}

function told(span: TraceSpan | null) {
  if (!span) return <small>not there</small>;
  return (
    <>
      {duration(span.duration_ms)} <span class={span.error ? "status failing" : "status"}>{span.status}</span>
    </>
  );
}
