// Keys that do the same on every page: `t` for pictures or tables, Escape for one step back.

import { useLayoutEffect } from "preact/hooks";
import type { Address, Go } from "./address";
import { id } from "./api";

/** What `t` and Escape change; `twofold` where the page itself has a view as a table. */
export function keyed(key: string, address: Address, twofold: boolean): Partial<Address> | null {
  if (key === "t") return twofold ? { table: !address.table } : { page: "", table: true };
  if (key !== "Escape") return null;
  if (address.selected) return { selected: null };
  if (address.service) return { page: "", selected: id(address.service) };
  if (address.rest.length > 0) return { rest: [] };
  return address.page === "" ? null : { page: "" };
}

export function useKeys(address: Address, twofold: boolean, go: Go) {
  useLayoutEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (target.matches("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
      // Whoever has closed something with it has said so.
      if (event.defaultPrevented) return;
      const change = keyed(event.key, address, twofold);
      if (change) go(change);
    };
    document.addEventListener("keydown", pressed);
    return () => document.removeEventListener("keydown", pressed);
  }, [address, twofold]);
}
