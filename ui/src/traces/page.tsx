// Traces: the list with its filters, one as a waterfall, two side by side – by the path below `#/traces`.

import type { PageProps } from "../pages";
import { ComparePage } from "./compare";
import { ListPage } from "./list";
import "./traces.css";
import { TracePage } from "./waterfall";

export function TracesPage({ address, go }: PageProps) {
  const [one, other] = address.rest;
  if (one && other) return <ComparePage address={address} ids={[one, other]} />;
  if (one) return <TracePage address={address} go={go} id={one} />;
  return <ListPage address={address} go={go} />;
}
