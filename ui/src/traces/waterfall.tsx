// One trace as a waterfall: a row for each span, and all that is known of the selected one.

import { link, type Address, type Go } from "../address";
import { useLive } from "../api";
import { Command } from "../command";
import { clock, duration } from "../format";
import type { Trace, TraceSpan } from "./api";
import { about, bar, key, onTheWay, serviceOf, short, shortId } from "./logic";

/** Deeper spans are drawn as deep as this. */
const DEPTH_MAX = 14;
/** Tags that explain a failure, or a decision of the mesh, come first. */
const FIRST = ["heddle.refusal", "heddle.rule", "heddle.attempts", "response_flags", "upstream_address", "upstream_cluster"];

export function TracePage({ address, go, id }: { address: Address; go: Go; id: string }) {
  const live = useLive<Trace>(`/api/v1/traces/${encodeURIComponent(id)}`, 5000, true);
  const trace = live.data;
  if (!trace)
    return (
      <main class="traces-page">
        {live.error && (
          <div class="empty">
            <h1>There is no such trace</h1>
            <p>{live.error}</p>
            <a href={link(address, { rest: [] })}>All traces</a>
          </div>
        )}
      </main>
    );
  const selected = trace.spans.find((span) => key(span) === address.selected) ?? null;
  return (
    <main class="traces-page">
      <Head trace={trace} address={address} />
      <div class={selected ? "trace-split" : ""}>
        <Waterfall
          trace={trace}
          whole={trace.duration_ms}
          selected={selected}
          select={(span) => go({ selected: span === selected ? null : span && key(span) }, true)}
        />
        {selected && <Detail span={selected} trace={trace} address={address} close={() => go({ selected: null }, true)} />}
      </div>
      <p class="kept">
        <Command text={`heddle traces ${shortId(trace.id)}`} />
      </p>
    </main>
  );
}

function Head({ trace, address }: { trace: Trace; address: Address }) {
  return (
    <header class="trace-head">
      <p>
        <a href={link(address, { rest: [] })}>Traces</a> <span aria-hidden="true">/</span>{" "}
        <code>{trace.id}</code>
      </p>
      <h1>
        {short(trace.service)} <span class="about">{trace.name}</span>
      </h1>
      <p class="facts">
        <b>{duration(trace.duration_ms)}</b>
        <span>{trace.status}</span>
        <span>
          {trace.span_count} spans{!trace.complete && " so far"} of {trace.services.length === 1 ? "1 service" : `${trace.services.length} services`}
        </span>
        {trace.errors > 0 && <span class="status failing">{trace.errors} failed</span>}
        {trace.kept === "slow" && <span>unusually slow</span>}
        {trace.left_out > 0 && <span>{trace.left_out} more were too many to keep</span>}
        <span>began {clock(trace.start, true)}</span>
        <a href={link(address, { rest: [], filter: { service: trace.service, compare: trace.id } })}>Compare with…</a>
      </p>
    </header>
  );
}

interface WaterfallProps {
  trace: Trace;
  /** Milliseconds of the whole width. */
  whole: number;
  selected: TraceSpan | null;
  select?: (span: TraceSpan) => void;
}

export function Waterfall({ trace, whole, selected, select }: WaterfallProps) {
  return (
    <section class="waterfall card" aria-label="Waterfall">
      <p class="axis" aria-hidden="true">
        <span />
        <span class="ticks">
          <span>0</span>
          <span>{duration(whole / 2)}</span>
          <span>{duration(whole)}</span>
        </span>
        <span />
      </p>
      <ul>
        {trace.spans.map((span) => (
          <li key={key(span)}>
            <Row span={span} whole={whole} chosen={span === selected} select={select} />
          </li>
        ))}
      </ul>
    </section>
  );
}

interface RowProps {
  span: TraceSpan;
  whole: number;
  chosen: boolean;
  select: ((span: TraceSpan) => void) | undefined;
}

function Row({ span, whole, chosen, select }: RowProps) {
  const { left, width } = bar(span.offset_ms, span.duration_ms, whole);
  const state = span.error ? "failing" : "";
  const content = (
    <>
      <span class="who" style={{ paddingLeft: `${Math.min(span.depth, DEPTH_MAX) * 12}px` }}>
        <b>{short(span.service)}</b>
        <small>
          {span.kind === "client" ? "calls " : span.kind === "server" ? "serves " : ""}
          {about(span)}
        </small>
      </span>
      <span class="lane">
        <i class={`span-bar ${span.kind} ${state}`} style={{ left: `${left}%`, width: `${width}%` }} />
        {(span.events ?? []).slice(0, 20).map((event, index) => (
          <i class="span-event" key={index} style={{ left: `${bar(event.offset_ms, 0, whole).left}%` }} />
        ))}
      </span>
      <span class="took">
        {span.error && <b class="status failing">{span.status}</b>} {duration(span.duration_ms)}
      </span>
    </>
  );
  if (!select) return <div class={`span-row ${state}`}>{content}</div>;
  return (
    <button type="button" class={`span-row ${state} ${chosen ? "chosen" : ""}`} aria-expanded={chosen} onClick={() => select(span)}>
      {content}
    </button>
  );
}

interface DetailProps {
  span: TraceSpan;
  trace: Trace;
  address: Address;
  close: () => void;
}

function Detail({ span, trace, address, close }: DetailProps) {
  const tags = Object.entries(span.tags ?? {});
  const rank = ([name]: [string, string]) => (FIRST.indexOf(name) + FIRST.length + 1) % (FIRST.length + 1);
  tags.sort((a, b) => rank(a) - rank(b));
  const service = serviceOf(span);
  const way = onTheWay(span, trace.spans);
  return (
    <aside class="span-detail card" aria-label="Span">
      <button type="button" class="icon close" aria-label="Close" onClick={close}>
        ×
      </button>
      <h2>
        {short(span.service)} {span.kind === "client" ? "calls" : span.kind === "server" ? "serves" : ""} {about(span)}
      </h2>
      <p>
        {duration(span.duration_ms)}, from {duration(span.offset_ms)} on, <span class={span.error ? "status failing" : "status"}>{span.status}</span>
        {span.workload && <>, workload {span.workload}</>}
      </p>
      {way !== null && (
        <p>
          {duration(span.duration_ms - way)} of it at the server, {duration(way)} on the way: in the network, in queues and in the
          sidecars.
        </p>
      )}
      {Math.abs(span.moved_ms) >= 0.001 && (
        <p>Its clock is off from its caller’s by {duration(Math.abs(span.moved_ms))}; it is drawn within the call.</p>
      )}
      {service && <a href={link(address, { service })}>Open {short(span.service)}</a>}
      {(span.events ?? []).length > 0 && (
        <ol class="events">
          {(span.events ?? []).map((event, index) => (
            <li key={index}>
              <small>{duration(event.offset_ms)}</small> {event.text}
            </li>
          ))}
        </ol>
      )}
      <table class="tags">
        <tbody>
          {tags.map(([name, value]) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <td>{value}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </aside>
  );
}
