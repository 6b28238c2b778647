// The header: mesh, search, time range, one quiet word about health.

import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { NAMED, type Address, type Go, type Range, link, rangeWord } from "./address";
import { id, type Graph, type Live, type Node } from "./api";
import { clock } from "./format";
import type { Page } from "./pages";
import { useTheme } from "./theme";
import { nodeHealth, title, verdict } from "./words";

/** Seconds of the longest period that the server answers. */
const LONGEST = 90 * 86400;

interface Props {
  live: Live<Graph>;
  pages: Page[];
  address: Address;
  go: Go;
  stale: boolean;
}

export function Header({ live, pages, address, go, stale }: Props) {
  return (
    <header class="header">
      <a class="mesh" href={link(address, { page: "" })} title="The service graph">
        <Mark />
        <span class="mesh-name">{live.data?.mesh ?? "Heddle"}</span>
      </a>
      <nav class="pages" aria-label="Pages">
        {pages.filter((page) => page.link).map((page) => (
          <a
            key={page.path}
            href={link(address, { page: page.path })}
            aria-current={page.path === address.page ? "page" : undefined}
          >
            {page.link}
          </a>
        ))}
      </nav>
      <Search nodes={live.data?.nodes ?? []} go={go} />
      <RangePicker range={address.range} go={go} />
      <Word live={live} go={go} stale={stale} />
      <ThemeButton />
    </header>
  );
}

function Mark() {
  return (
    <svg class="mark" viewBox="0 0 24 24" width="20" height="20" aria-hidden="true">
      <path d="M6 3v6M6 15v6M12 3v6M12 15v6M18 3v6M18 15v6" />
      <circle cx="6" cy="12" r="2.6" />
      <circle cx="12" cy="12" r="2.6" />
      <circle cx="18" cy="12" r="2.6" />
    </svg>
  );
}

function Word({ live, go, stale }: { live: Live<Graph>; go: Go; stale: boolean }) {
  if (!live.data) return <span class="word idle">{live.error ? "not reachable" : "…"}</span>;
  const { health, text, service } = verdict(live.data);
  const shown = stale ? "idle" : health;
  const content = (
    <>
      <i class={`dot ${shown}`} aria-hidden="true" />
      <span>{stale ? `stale: ${text}` : text}</span>
    </>
  );
  if (!service) return <span class={`word ${shown}`}>{content}</span>;
  return (
    <button type="button" class={`word ${shown}`} title={text} onClick={() => go({ service })}>
      {content}
    </button>
  );
}

function ThemeButton() {
  const [theme, next] = useTheme();
  const glyph = {
    auto: "M12 4a8 8 0 1 0 0 16z",
    light: "M12 8a4 4 0 1 0 0 8a4 4 0 1 0 0-8z",
    dark: "M16 15.5A6.5 6.5 0 0 1 9.5 6a7 7 0 1 0 6.5 9.500z",
  }[theme];
  return (
    <button type="button" class="icon theme" onClick={next} title={`Theme: ${theme}`} aria-label={`Theme: ${theme}. Change`}>
      <svg viewBox="0 0 24 24" width="18" height="18" aria-hidden="true">
        {theme !== "dark" && <circle cx="12" cy="12" r="8" fill="none" />}
        <path d={glyph} class="solid" />
      </svg>
    </button>
  );
}

function RangePicker({ range, go }: { range: Range; go: Go }) {
  const [open, setOpen] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    if (!open) return;
    const outside = (event: Event) => {
      if (!box.current?.contains(event.target as globalThis.Node)) setOpen(false);
    };
    const escape = (event: KeyboardEvent) => {
      if (event.key !== "Escape") return;
      event.preventDefault();
      setOpen(false);
    };
    document.addEventListener("pointerdown", outside);
    // Before the page's own keys: what is open closes first.
    document.addEventListener("keydown", escape, true);
    return () => {
      document.removeEventListener("pointerdown", outside);
      document.removeEventListener("keydown", escape, true);
    };
  }, [open]);
  const custom = typeof range === "object";
  return (
    <div class="range" ref={box} role="group" aria-label="Time range">
      {NAMED.map((name) => (
        <button
          type="button"
          key={name}
          aria-pressed={range === name}
          onClick={() => go({ range: name })}
        >
          {{ live: "Live", "5m": "5 m", "1h": "1 h", "6h": "6 h" }[name]}
        </button>
      ))}
      <button type="button" aria-pressed={custom} aria-expanded={open} onClick={() => setOpen(!open)}>
        {custom ? `${clock(range.from)} – ${clock(range.to)}` : "Pick"}
      </button>
      {open && <PeriodForm range={range} done={(range) => { go({ range }); setOpen(false); }} />}
    </div>
  );
}

function PeriodForm({ range, done }: { range: Range; done: (range: Range) => void }) {
  const now = Math.floor(Date.now() / 1000);
  const [from, setFrom] = useState(local(typeof range === "object" ? range.from : now - 1800));
  const [to, setTo] = useState(local(typeof range === "object" ? range.to : now));
  const [begin, end] = [Date.parse(from) / 1000, Date.parse(to) / 1000];
  const wrong = !(begin < end) ? "From must be before to." : end - begin > LONGEST ? "At most 90 days can be shown." : "";
  const submit = (event: Event) => {
    event.preventDefault();
    if (!wrong) done({ from: begin, to: end });
  };
  return (
    <form class="period card" onSubmit={submit}>
      <label>
        From
        <input type="datetime-local" value={from} onInput={(event) => setFrom(event.currentTarget.value)} />
      </label>
      <label>
        To
        <input type="datetime-local" value={to} onInput={(event) => setTo(event.currentTarget.value)} />
      </label>
      <p class="hint">{wrong || `${rangeWord({ from: begin, to: end }).replace("-", " to ")} in Unix time`}</p>
      <button type="submit" class="primary" disabled={wrong !== ""}>
        Show
      </button>
    </form>
  );
}

/** Unix time as a datetime-local value. */
function local(unix: number): string {
  const time = new Date(unix * 1000 - new Date(unix * 1000).getTimezoneOffset() * 60000);
  return time.toISOString().slice(0, 16);
}

function Search({ nodes, go }: { nodes: Node[]; go: Go }) {
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const [open, setOpen] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  useLayoutEffect(() => {
    const slash = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (event.key !== "/" || target.matches("input, textarea, select")) return;
      event.preventDefault();
      input.current?.focus();
    };
    document.addEventListener("keydown", slash);
    return () => document.removeEventListener("keydown", slash);
  }, []);
  const found = matches(nodes, text).slice(0, 8);
  const choose = (node: Node | undefined) => {
    if (!node) return;
    setText("");
    setOpen(false);
    input.current?.blur();
    go({ service: node.service });
  };
  const key = (event: KeyboardEvent) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const step = event.key === "ArrowDown" ? 1 : -1;
      setAt((before) => (found.length ? (before + step + found.length) % found.length : 0));
    } else if (event.key === "Enter") choose(found[at]);
    else if (event.key === "Escape") {
      setText("");
      setOpen(false);
      input.current?.blur();
    }
  };
  return (
    <div class="search">
      <input
        ref={input}
        type="text"
        role="combobox"
        autocomplete="off"
        aria-label="Search a service or an address"
        aria-expanded={open && text !== ""}
        aria-controls="found"
        aria-activedescendant={open && found[at] ? `found-${at}` : undefined}
        placeholder="Search service or address"
        value={text}
        onInput={(event) => {
          setText(event.currentTarget.value);
          setAt(0);
          setOpen(true);
        }}
        onFocus={() => setOpen(true)}
        onBlur={() => setOpen(false)}
        onKeyDown={key}
      />
      <kbd aria-hidden="true">/</kbd>
      {open && text !== "" && (
        <ul id="found" role="listbox" class="found card">
          {found.map((node, index) => (
            <li
              key={id(node.service)}
              id={`found-${index}`}
              role="option"
              aria-selected={index === at}
              onPointerDown={(event) => {
                event.preventDefault();
                choose(node);
              }}
            >
              <i class={`dot ${nodeHealth(node)}`} aria-hidden="true" />
              <span>{title(node.service)}</span>
              <small>{node.addresses.find((one) => one.includes(text)) ?? node.addresses[0] ?? node.kind}</small>
            </li>
          ))}
          {found.length === 0 && <li class="none">No service or address with “{text}”.</li>}
        </ul>
      )}
    </div>
  );
}

/** Services whose name or address contains the text; names that begin with it first. */
function matches(nodes: Node[], text: string): Node[] {
  const wanted = text.trim().toLowerCase();
  if (wanted === "") return [];
  const name = (node: Node) => `${node.service.name}.${node.service.namespace}`;
  return nodes
    .filter((node) => name(node).includes(wanted) || node.addresses.some((one) => one.includes(wanted)))
    .sort((a, b) => Number(name(b).startsWith(wanted)) - Number(name(a).startsWith(wanted)));
}
