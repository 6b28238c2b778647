// The table of pages: a page is added by one line. The header's links and the way from an address to what is shown
// both read it.

import type { ComponentType } from "preact";
import type { Address, Go } from "./address";
import type { Graph, Live } from "./api";
import { GraphPage } from "./graph/page";
import { RefusalsView } from "./refusals/page";
import { RulesView } from "./rules/page";
import { ServiceView } from "./service/page";
import { TapPage } from "./tap/page";
import { TracesPage } from "./traces/page";
import { title } from "./words";

export interface PageProps {
  address: Address;
  go: Go;
  /** The whole mesh over the last seconds, whatever period the page shows. */
  now: Live<Graph>;
  /** The graph over the period chosen; empty on other pages than the graph. */
  graph: Live<Graph>;
  /** The server answers, but it measures nothing any more. */
  stopped: boolean;
}

export interface Page {
  /** First part of the path: `traces` is at `#/traces` and below it. */
  path: string;
  /** In the header's list; a page without it is only opened from others. */
  link?: string;
  /** For the browser's tab. */
  title: (address: Address) => string;
  /** Is this an address of it? All below its path without this. */
  takes?: (address: Address) => boolean;
  /** It has a view as a table, which `t` changes to and from. */
  twofold?: boolean;
  view: ComponentType<PageProps>;
}

export const PAGES: Page[] = [
  { path: "", link: "Graph", title: () => "graph", takes: (address) => address.rest.length === 0, twofold: true, view: GraphPage },
  { path: "service", title: serviceTitle, takes: (address) => address.service !== null, twofold: true, view: ServiceView },
  { path: "rules", link: "Rules", title: () => "rules", takes: (address) => address.rest.length === 0, view: RulesView },
  { path: "refusals", link: "Refusals", title: () => "refusals", takes: (address) => address.rest.length === 0, view: RefusalsView },
  { path: "live", link: "Live", title: () => "live calls", takes: (address) => address.rest.length === 0, view: TapPage },
  { path: "traces", link: "Traces", title: ({ rest }) => (rest[1] ? "two traces" : rest[0] ? `trace ${rest[0].slice(0, 8)}` : "traces"), view: TracesPage },
];

function serviceTitle({ service }: Address): string {
  return service ? title(service) : "service";
}

/** The page of an address; undefined where there is none. */
export function pageOf(address: Address): Page | undefined {
  return PAGES.find((page) => page.path === address.page && (page.takes?.(address) ?? true));
}
