// The state of the page, all of it in the address bar, so that a link shows the same thing:
// `#/?range=5m&selected=default/reviews` and `#/service/default/reviews?range=1h`.

import { useEffect, useState } from "preact/hooks";
import type { ServiceName } from "./api";

/** A named period up to now, or two Unix times. */
export type Range = "live" | "5m" | "1h" | "6h" | { from: number; to: number };

export interface Address {
  /** The service of a service page; null on the graph. */
  service: ServiceName | null;
  range: Range;
  /** Key of the selected node or edge of the graph. */
  selected: string | null;
  table: boolean;
}

const SECONDS = { "5m": 300, "1h": 3600, "6h": 21600 } as const;
export const NAMED: readonly Exclude<Range, object>[] = ["live", "5m", "1h", "6h"];

export function parse(hash: string): Address {
  const [path = "", query = ""] = hash.replace(/^#/, "").split("?", 2);
  const parts = path.split("/").filter(Boolean).map(decode);
  const values = new URLSearchParams(query);
  const [page, namespace, name] = parts;
  const service =
    page === "service" && namespace && name
      ? { namespace: namespace === "-" ? "" : namespace, name }
      : null;
  return {
    service,
    range: parseRange(values.get("range")),
    selected: values.get("selected"),
    table: values.get("view") === "table",
  };
}

export function format(address: Address): string {
  const { service, range, selected, table } = address;
  const values = new URLSearchParams();
  const word = rangeWord(range);
  if (word !== "live") values.set("range", word);
  if (selected) values.set("selected", selected);
  if (table) values.set("view", "table");
  const path = service
    ? `/service/${encodeURIComponent(service.namespace || "-")}/${encodeURIComponent(service.name)}`
    : "/";
  const query = values.toString().replaceAll("%2F", "/");
  return `#${path}${query ? `?${query}` : ""}`;
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
export function useAddress(): [Address, (change: Partial<Address>, replace?: boolean) => void] {
  const [address, setAddress] = useState(() => parse(location.hash));
  useEffect(() => {
    const changed = () => setAddress(parse(location.hash));
    window.addEventListener("hashchange", changed);
    return () => window.removeEventListener("hashchange", changed);
  }, []);
  const go = (change: Partial<Address>, replace = false) => {
    const next = format({ ...parse(location.hash), ...change });
    if (next === location.hash) return;
    if (replace) history.replaceState(null, "", next);
    else location.hash = next;
    setAddress(parse(next));
  };
  return [address, go];
}
