// The list of traces: filters that live in the address, a dot for each over time, and a table.

import { useEffect, useRef, useState } from "preact/hooks";
import { pace, link, type Address, type Go } from "../address";
import { useLive } from "../api";
import { Command } from "../command";
import { clock, duration, length } from "../format";
import type { StoreState, Trace, TraceList } from "./api";
import { FILTERS, LIVE_WINDOW, decades, height, period, question, short, shortId } from "./logic";

const STATUSES = ["", "error", "5xx", "4xx", "2xx", "ok"];
/** Rows that are drawn at first. */
const ROWS = 60;

interface Props {
  address: Address;
  go: Go;
}

export function ListPage({ address, go }: Props) {
  const { filter, range } = address;
  const list = useLive<TraceList>(`/api/v1/traces?${question(filter, range)}`, Math.max(2000, pace(range)), true);
  const traces = list.data?.traces ?? [];
  const filtered = FILTERS.some((name) => filter[name]);
  return (
    <main class="traces-page">
      <Filters address={address} go={go} services={list.data?.store.services ?? []} />
      {filter.compare && (
        <p class="banner compare-note">
          <b>Choose the trace to compare {shortId(filter.compare)} with.</b>{" "}
          <a href={link(address, { rest: [filter.compare], filter: {} })}>Not now</a>
        </p>
      )}
      {list.error && list.status >= 400 && list.status < 500 && <p class="banner">{list.error}</p>}
      {list.data && traces.length === 0 && <Nothing store={list.data.store} filtered={filtered} address={address} go={go} />}
      {list.data && traces.length > 0 && (
        <>
          <Dots traces={traces} address={address} more={list.data.more} />
          <Table traces={traces} address={address} more={list.data.more} />
        </>
      )}
      {list.data && <Kept store={list.data.store} />}
    </main>
  );
}

/** Where a row or a dot leads. */
function to(address: Address, trace: Trace): string {
  const { compare, ...filter } = address.filter;
  const rest = compare && compare !== trace.id ? [compare, trace.id] : [trace.id];
  return link(address, { rest, filter });
}

function Filters({ address, go, services }: Props & { services: string[] }) {
  const { filter } = address;
  const [text, setText] = useState(filter);
  // The address is changed by others too: by links, and by going back. What is being typed in another field stays.
  const known = useRef(filter);
  useEffect(() => {
    const before = known.current;
    known.current = filter;
    const changed = FILTERS.filter((name) => before[name] !== filter[name]);
    setText((text) => ({ ...text, ...Object.fromEntries(changed.map((name) => [name, filter[name] ?? ""])) }));
  }, [JSON.stringify(filter)]);
  const set = (name: string, value: string) => setText({ ...text, [name]: value });
  const use = (change: Record<string, string> = {}) => go({ filter: { ...filter, ...text, ...change } });
  const submit = (event: Event) => {
    event.preventDefault();
    use();
  };
  const field = (name: string, label: string, hint: string, more: object = {}) => (
    <label>
      {label}
      <input
        type="text"
        value={text[name] ?? ""}
        placeholder={hint}
        autocomplete="off"
        onInput={(event) => set(name, event.currentTarget.value)}
        onBlur={() => use()}
        {...more}
      />
    </label>
  );
  return (
    <form class="trace-filters" onSubmit={submit} role="search" aria-label="Filter traces">
      {field("service", "Service", "any", { list: "trace-services" })}
      <datalist id="trace-services">
        {services.map((service) => (
          <option key={service} value={service} />
        ))}
      </datalist>
      <label>
        Status
        <select value={filter.status ?? ""} onChange={(event) => use({ status: event.currentTarget.value })}>
          {!STATUSES.includes(filter.status ?? "") && <option value={filter.status}>{filter.status}</option>}
          {STATUSES.map((status) => (
            <option key={status} value={status}>
              {status || "any"}
            </option>
          ))}
        </select>
      </label>
      {field("path", "Path begins with", "/")}
      {field("longer_than", "Longer than", "200ms", { size: 8 })}
      {field("shorter_than", "Shorter than", "2s", { size: 8 })}
      <button type="submit" class="unseen">Search</button>
      {FILTERS.some((name) => filter[name]) && (
        <a class="clear" href={link(address, { filter: filter.compare ? { compare: filter.compare } : {} })}>
          Clear
        </a>
      )}
    </form>
  );
}

/** A dot for each trace: when it began, and on a logarithmic scale how long it took. */
function Dots({ traces, address, more }: { traces: Trace[]; address: Address; more: boolean }) {
  const starts = traces.map((trace) => trace.start);
  const [begin, end] = period(address.range, Math.max(...starts, Date.now() / 1000));
  // Of those before the oldest one here nothing is known.
  const from = more ? Math.min(...starts, end - 1) : begin;
  const ends = decades(traces);
  const marks: number[] = [];
  for (let ms = ends[0]; ms <= ends[1] * 1.01; ms *= 10) marks.push(ms);
  const middle = (from + end) / 2;
  return (
    <section class="trace-dots card" aria-label="Traces over time">
      <div class="plot">
        {marks.map((ms) => (
          <div class="mark-line" key={ms} style={{ bottom: `${height({ duration_ms: ms } as Trace, ends) * 100}%` }}>
            <span>{duration(ms)}</span>
          </div>
        ))}
        {traces.map((trace) => (
          <a
            key={trace.id}
            class={`trace-dot ${trace.errors > 0 ? "failing" : trace.kept === "slow" ? "slow" : ""}`}
            href={to(address, trace)}
            tabIndex={-1}
            aria-hidden="true"
            title={`${clock(trace.start, true)} · ${short(trace.service)} ${trace.name} · ${duration(trace.duration_ms)} · ${trace.status}`}
            style={{
              left: `${Math.min(100, Math.max(0, ((trace.start - from) / (end - from)) * 100))}%`,
              bottom: `${height(trace, ends) * 100}%`,
            }}
          />
        ))}
      </div>
      <p class="times" aria-hidden="true">
        <span>{clock(from, end - from < 300)}</span>
        <span>{clock(middle, end - from < 300)}</span>
        <span>{clock(end, end - from < 300)}</span>
      </p>
      <p class="keys">
        <i class="trace-dot" aria-hidden="true" /> ordinary
        <i class="trace-dot slow" aria-hidden="true" /> unusually slow
        <i class="trace-dot failing" aria-hidden="true" /> with an error
      </p>
    </section>
  );
}

function Table({ traces, address, more }: { traces: Trace[]; address: Address; more: boolean }) {
  const [shown, setShown] = useState(ROWS);
  const longest = Math.max(...traces.map((trace) => trace.duration_ms));
  return (
    <section class="table-box card">
      <h2>
        {more ? `The newest ${traces.length} traces` : traces.length === 1 ? "1 trace" : `${traces.length} traces`}{" "}
        {typeof address.range === "object" ? "of the period" : `of the last ${words(address.range)}`}
      </h2>
      <div class="scroll">
        <table class="numbers trace-table">
          <thead>
            <tr>
              <th scope="col">Began</th>
              <th scope="col">Request</th>
              <th scope="col" class="took">Took</th>
              <th scope="col">Status</th>
              <th scope="col" class="wide">Spans</th>
              <th scope="col" class="wide">Through</th>
            </tr>
          </thead>
          <tbody>
            {traces.slice(0, shown).map((trace) => (
              <tr key={trace.id}>
                <td>{clock(trace.start, true)}</td>
                <td class="request">
                  <a href={to(address, trace)}>
                    <b>{short(trace.service)}</b> {trace.name}
                  </a>
                  {!trace.complete && <small> more to come</small>}
                </td>
                <td class="took">
                  {duration(trace.duration_ms)}
                  <i
                    class={`took-bar ${trace.errors > 0 ? "failing" : trace.kept === "slow" ? "slow" : ""}`}
                    style={{ width: `${Math.max(1, (trace.duration_ms / longest) * 100)}%` }}
                    aria-hidden="true"
                  />
                </td>
                <td>
                  <Status trace={trace} />
                </td>
                <td class="wide">{trace.span_count}</td>
                <td class="wide through">{trace.services.map(short).join(", ")}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {shown < traces.length && (
        <button type="button" class="more" onClick={() => setShown(traces.length)}>
          Show all {traces.length}
        </button>
      )}
    </section>
  );
}

function Status({ trace }: { trace: Trace }) {
  const failed = trace.errors > 0;
  const inside = failed && !/^5|error|grpc/.test(trace.status);
  return (
    <span class={failed ? "status failing" : "status"}>
      {trace.status}
      {inside && ` (${trace.errors} failed inside)`}
      {!failed && trace.kept === "slow" && <small> slow</small>}
    </span>
  );
}

function words(range: Exclude<Address["range"], object>): string {
  return length({ live: LIVE_WINDOW, "5m": 300, "1h": 3600, "6h": 21600 }[range]);
}

function Nothing({ store, filtered, address, go }: Props & { store: StoreState; filtered: boolean }) {
  if (store.elsewhere && store.traces === 0)
    return (
      <div class="empty">
        <h1>Spans go elsewhere</h1>
        <p>
          {store.elsewhere === "none" ? (
            "This mesh was started with --trace-to none: nobody takes its spans."
          ) : (
            <>
              The spans of this mesh go to <code>{store.elsewhere}</code>; look there. Without <code>--trace-to</code> they
              are shown here.
            </>
          )}
        </p>
      </div>
    );
  if (store.traces === 0)
    return (
      <div class="empty">
        <h1>No traces yet</h1>
        <p>The first calls of every second are recorded. Make one:</p>
        <Command text="heddle run --service client -- curl -s http://SERVICE/" />
        {store.endpoint && (
          <>
            <p>Spans of an application instrumented with OpenTelemetry join those of the mesh:</p>
            <Command text={`OTEL_EXPORTER_OTLP_ENDPOINT=${store.endpoint}`} />
          </>
        )}
      </div>
    );
  return (
    <div class="empty">
      <h1>None of the {store.traces} traces kept is so</h1>
      <p>
        {filtered ? "Loosen the filters, or look at a longer time." : "There were none in this time."}{" "}
        <button type="button" class="primary" onClick={() => go({ range: "6h" })}>
          Last 6 hours
        </button>{" "}
        {filtered && <a href={link(address, { filter: {} })}>Clear the filters</a>}
      </p>
    </div>
  );
}

/** What is kept, and what was not. */
function Kept({ store }: { store: StoreState }) {
  const mib = (bytes: number) => (bytes / 1048576).toFixed(1);
  const lost = Object.entries(store.dropped).filter(([why]) => why !== "delivery");
  return (
    <p class="kept">
      {store.traces} traces are kept, {mib(store.bytes)} of {mib(store.bytes_max)} MiB; when it is full, ordinary ones go
      before slow ones and errors.
      {store.elsewhere && store.elsewhere !== "none" && ` The mesh’s own spans go to ${store.elsewhere}.`}
      {lost.length > 0 && ` Not kept: ${lost.map(([why, count]) => `${count} ${why}`).join(", ")}.`}
    </p>
  );
}
