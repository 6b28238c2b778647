// The state of the page, all of it in the address bar, so that a link shows the same thing:
// `#/?range=5m&selected=default/reviews`, `#/service/default/reviews?range=1h`, `#/traces/ID?status=error`.

import { useEffect, useState } from "preact/hooks";
import type { ServiceName } from "./api";

/** A named period up to now, or two Unix times. */
export type Range = "live" | "5m" | "1h" | "6h" | { from: number; to: number };

export interface Address {
  /** First part of the path, the name in the table of pages; empty on the graph. */
  page: string;
  /** The parts of the path after it: `["ID"]` in `/traces/ID`. */
  rest: string[];
  /** What only one page has in its query, under names of its own; gone when another page is opened. */
  filter: Record<string, string>;
  /** The service of a service page; null elsewhere. */
  service: ServiceName | null;
  range: Range;
  /** Key of the selected node or edge of the graph. */
  selected: string | null;
  table: boolean;
}

/** Changes parts of the address; `replace` leaves no step in the browser's history. */
export type Go = (change: Partial<Address>, replace?: boolean) => void;

const SECONDS = { "5m": 300, "1h": 3600, "6h": 21600 } as const;
export const NAMED: readonly Exclude<Range, object>[] = ["live", "5m", "1h", "6h"];
/** Names in the query that all pages share. */
const SHARED = ["range", "selected", "view"];

export function parse(hash: string): Address {
  const [path = "", query = ""] = hash.replace(/^#/, "").split("?", 2);
  const [page = "", ...rest] = path.split("/").filter(Boolean).map(decode);
  const values = new URLSearchParams(query);
  return {
    page,
    rest,
    filter: Object.fromEntries([...values].filter(([name]) => !SHARED.includes(name))),
    service: page === "service" ? serviceOf(rest) : null,
    range: parseRange(values.get("range")),
    selected: values.get("selected"),
    table: values.get("view") === "table",
  };
}

/** `namespace/name`, with `-` for the namespace of what is outside. */
function serviceOf([namespace, name, ...more]: string[]): ServiceName | null {
  if (!namespace || !name || more.length > 0) return null;
  return { namespace: namespace === "-" ? "" : namespace, name };
}

export function format(address: Address): string {
  const { page, rest, filter, range, selected, table } = address;
  const values = new URLSearchParams();
  const word = rangeWord(range);
  if (word !== "live") values.set("range", word);
  if (selected) values.set("selected", selected);
  if (table) values.set("view", "table");
  for (const [name, value] of Object.entries(filter)) if (value !== "") values.set(name, value);
  const path = page === "" ? "/" : `/${[page, ...rest].map(encodeURIComponent).join("/")}`;
  const query = values.toString().replaceAll("%2F", "/");
  return `#${path}${query ? `?${query}` : ""}`;
}

/**
 * The address after a change. `service` opens its page, and null leaves it for the graph; on another page there is
 * neither a filter nor a rest of the path from the one before.
 */
export function changed(before: Address, change: Partial<Address>): Address {
  const wanted = { ...change };
  if (change.service) {
    wanted.page = "service";
    wanted.rest = [change.service.namespace || "-", change.service.name];
  } else if (change.service === null && wanted.page === undefined) {
    wanted.page = "";
  }
  const moved = wanted.page !== undefined && wanted.page !== before.page;
  const fresh = moved ? { rest: [], filter: {}, service: null, selected: null } : {};
  return { ...before, ...fresh, ...wanted };
}

/** A link to the same period elsewhere. */
export function link(address: Address, change: Partial<Address>): string {
  return format(changed({ ...address, selected: null }, change));
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function parseRange(word: string | null): Range {
  const times = /^(\d{1,12})-(\d{1,12})$/.exec(word ?? "");
  if (times) {
    const [from, to] = [Number(times[1]), Number(times[2])];
    if (from < to) return { from, to };
  }
  return NAMED.find((name) => name === word) ?? "live";
}

export function rangeWord(range: Range): string {
  return typeof range === "string" ? range : `${range.from}-${range.to}`;
}

/** The API's query for a range; `live` is as long as the page wants it. */
export function query(range: Range, live: number): string {
  if (typeof range === "object") return `window=${range.to - range.from}&end=${range.to - 1}`;
  return `window=${range === "live" ? live : SECONDS[range]}`;
}

/** Milliseconds between two questions; 0 where the answer cannot change. */
export function pace(range: Range): number {
  if (typeof range === "object") return 0;
  return { live: 1000, "5m": 2000, "1h": 5000, "6h": 10000 }[range];
}

/** The state in the address bar and a way to change parts of it. */
export function useAddress(): [Address, Go] {
  const [address, setAddress] = useState(() => parse(location.hash));
  useEffect(() => {
    const moved = () => setAddress(parse(location.hash));
    window.addEventListener("hashchange", moved);
    // It may have changed between the first picture and now.
    if (format(parse(location.hash)) !== format(address)) moved();
    return () => window.removeEventListener("hashchange", moved);
  }, []);
  const go: Go = (change, replace = false) => {
    const next = format(changed(parse(location.hash), change));
    if (next === location.hash) return;
    if (replace) history.replaceState(null, "", next);
    else location.hash = next;
    setAddress(parse(next));
  };
  return [address, go];
}
