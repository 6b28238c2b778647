// Live calls, one by one: the newest first, a bounded number of them. While it is paused, or nobody sees the page, no
// sidecar gathers anything for it.

import { useEffect, useRef, useState } from "preact/hooks";
import { duration } from "../format";
import { failed, type Filter, listen, NOTHING, parameters, Refused, remarks, type TappedCall, who } from "./stream";

/** Calls that are kept; older ones go. */
const KEPT = 500;
/** Milliseconds between two pictures, however many calls come. */
const PICTURE = 250;
/** Milliseconds before a stream that ended is asked for again. */
const AGAIN = 1000;
/** Milliseconds after the last key before a filter is asked for. */
const TYPED = 400;

interface Row {
  key: number;
  call: TappedCall;
}

interface Picture {
  rows: Row[];
  seen: number;
  lost: number;
  notice: string;
  trouble: string;
}

const EMPTY: Picture = { rows: [], seen: 0, lost: 0, notice: "", trouble: "" };

const FIELDS: { name: keyof Filter; label: string; example: string }[] = [
  { name: "to", label: "To", example: "reviews" },
  { name: "from", label: "From", example: "productpage" },
  { name: "status", label: "Status", example: "5xx, failed" },
  { name: "path", label: "Path", example: "/reviews" },
  { name: "method", label: "Method", example: "GET" },
  { name: "slower-than", label: "Slower than", example: "200ms" },
];

/** The filter in the address bar, so that a link shows the same calls. */
function addressed(): Filter {
  const values = new URLSearchParams(location.hash.split("?")[1] ?? "");
  const filter = { ...NOTHING };
  for (const { name } of FIELDS) filter[name] = values.get(name) ?? "";
  return filter;
}

export function TapPage() {
  const [filter, setFilter] = useState(addressed);
  const [paused, setPaused] = useState(false);
  const visible = useVisible();
  const [picture, clear] = useCalls(filter, !paused && visible);
  const change = (next: Filter) => {
    setFilter(next);
    const query = parameters(next);
    history.replaceState(null, "", `#/live${query ? `?${query}` : ""}`);
  };
  return (
    <main class="tap">
      <form class="tap-filter" role="search" onSubmit={(event) => event.preventDefault()}>
        {FIELDS.map(({ name, label, example }) => (
          <label key={name}>
            {label}
            <input
              type="text"
              maxLength={200}
              autocomplete="off"
              spellcheck={false}
              placeholder={example}
              value={filter[name]}
              onInput={(event) => change({ ...filter, [name]: event.currentTarget.value })}
            />
          </label>
        ))}
        <button type="button" class="primary" aria-pressed={paused} onClick={() => setPaused(!paused)}>
          {paused ? "Resume" : "Pause"}
        </button>
        <button type="button" onClick={clear}>Clear</button>
      </form>
      {picture.trouble && <p class="banner" role="alert">{picture.trouble}</p>}
      <p class="note" role="status">{summary(picture, paused)}</p>
      <div class="scroll" tabIndex={0} role="region" aria-label="Live calls">
        <table class="numbers tap-calls">
          <thead>
            <tr>
              {["Time", "Seen by", "From", "To"].map((name) => (
                <th key={name} scope="col" class="text">{name}</th>
              ))}
              <th scope="col">Status</th>
              <th scope="col">Took</th>
              <th scope="col" class="text">Request</th>
            </tr>
          </thead>
          <tbody>
            {picture.rows.map(({ key, call }) => (
              <CallRow key={key} call={call} />
            ))}
          </tbody>
        </table>
      </div>
    </main>
  );
}

function CallRow({ call }: { call: TappedCall }) {
  const status = call.status === 0 ? "–" : String(call.status);
  const request =
    call.protocol === "tcp"
      ? `tcp, ${call.received_bytes} B in, ${call.sent_bytes} B out`
      : `${call.method ?? ""} ${call.path ?? ""}`;
  return (
    <tr class={failed(call) ? "failing" : undefined}>
      <td class="text">{call.time.slice(11, 23)}</td>
      <td class="text">{call.side}</td>
      <td class="text">{shown(who(call.from, false))}</td>
      <td class="text">{shown(who(call.to, true))}</td>
      <td>{call.grpc_status === undefined ? status : `${status}/${call.grpc_status}`}</td>
      <td>{duration(call.duration_ms)}</td>
      <td class="text tap-request">
        {shown(request)}
        {remarks(call).map((remark) => (
          <small key={remark}>{shown(remark)}</small>
        ))}
      </td>
    </tr>
  );
}

/** A text of a peer: what is not seen, or turns the direction of writing, is written out. */
function shown(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (one) => `\\u{${one.codePointAt(0)?.toString(16)}}`);
}

function summary({ seen, rows, lost, notice }: Picture, paused: boolean): string {
  const calls = seen === 0 ? "No call yet" : seen === 1 ? "1 call" : `${seen} calls`;
  const kept = seen > rows.length ? `, the last ${rows.length} below` : "";
  const gone = lost > 0 ? `; ${lost} not shown, as there was no room for them` : "";
  return `${paused ? "Paused. " : ""}${calls}${kept}${gone}.${notice ? ` ${shown(notice)}.` : ""}`;
}

/** Does anybody see the page? */
function useVisible(): boolean {
  const [visible, setVisible] = useState(!document.hidden);
  useEffect(() => {
    const changed = () => setVisible(!document.hidden);
    document.addEventListener("visibilitychange", changed);
    return () => document.removeEventListener("visibilitychange", changed);
  }, []);
  return visible;
}

/** The calls that the filter asks for, while `on`; and what forgets those there are. */
function useCalls(filter: Filter, on: boolean): [Picture, () => void] {
  const [picture, setPicture] = useState(EMPTY);
  // What has come since the last picture; drawn a few times a second whatever comes.
  const next = useRef({ ...EMPTY, changed: false });
  const put = (change: Partial<Picture>) => {
    next.current = { ...next.current, ...change, changed: true };
  };
  const asked = parameters(filter);
  useEffect(() => {
    const timer = setInterval(() => {
      if (!next.current.changed) return;
      const { changed: _, ...picture } = next.current;
      next.current.changed = false;
      setPicture(picture);
    }, PICTURE);
    return () => clearInterval(timer);
  }, []);
  useEffect(() => {
    if (!on) return;
    const ends = new AbortController();
    const take = (line: Parameters<Parameters<typeof listen>[1]>[0]) => {
      const { rows, seen, lost } = next.current;
      if ("call" in line) put({ rows: [{ key: seen, call: line.call }, ...rows].slice(0, KEPT), seen: seen + 1 });
      else if ("lost" in line) put({ lost: lost + line.lost.calls });
      else put({ notice: line.notice });
    };
    const listening = async () => {
      await pause(TYPED, ends.signal);
      while (!ends.signal.aborted) {
        try {
          put({ trouble: "" });
          await listen(filter, take, ends.signal);
        } catch (error) {
          if (ends.signal.aborted) return;
          put({ trouble: error instanceof Error ? error.message : String(error) });
          if (error instanceof Refused) return;
        }
        await pause(AGAIN, ends.signal);
      }
    };
    void listening();
    return () => ends.abort();
  }, [asked, on]);
  const clear = () => {
    next.current = { ...EMPTY, notice: next.current.notice, trouble: next.current.trouble, changed: true };
  };
  return [picture, clear];
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      done();
    });
  });
}
