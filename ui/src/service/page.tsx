// One service: is it well, its four golden signals, their course, who calls it, whom it calls.

import { link, pace, query, type Address } from "../address";
import { id, useLive, type Ejection, type ServiceName, type ServicePage } from "../api";
import { Command } from "../command";
import { clock, length } from "../format";
import { isOld, OldNote } from "../old";
import type { PageProps } from "../pages";
import { Names, Refused } from "../refusals/tables";
import { OneRule, Paths, Templates, ruleTitle } from "../rules/tables";
import { ejectedOf, over, title } from "../words";
import { LatencyChart, RequestChart, TcpCharts } from "./charts";
import { MarkList, marksOf } from "./marks";
import { Signals } from "./signals";
import { Answers, Ejected, Neighbours, Versions, Workloads } from "./tables";

/** Seconds of the live page. */
const LIVE_WINDOW = 60;

/** The page at `#/service/NAMESPACE/NAME`. */
export function ServiceView({ address, now, stopped }: PageProps) {
  const { service } = address;
  return service && <OneService service={service} address={address} stopped={stopped} ejections={now.data?.ejections ?? []} mesh={now.data?.mesh ?? ""} />;
}

interface Props extends Pick<PageProps, "address" | "stopped"> {
  service: ServiceName;
  /** Of all services, now. */
  ejections: Ejection[];
  mesh: string;
}

function OneService({ service, address, stopped, ejections, mesh }: Props) {
  const place = `${encodeURIComponent(service.namespace || "-")}/${encodeURIComponent(service.name)}`;
  const url = `/api/v1/services/${place}?${query(address.range, LIVE_WINDOW)}`;
  const page = useLive<ServicePage>(url, pace(address.range), true);
  const home = link(address, { page: "", selected: id(service) });
  return (
    <main class={`service-page ${stopped || isOld(page) ? "stale" : ""}`}>
      <div class="service-title">
        <h1>{title(service)}</h1>
        {page.data && <Kind page={page.data} />}
        <span class="window">{page.data && over(page.data.window, typeof address.range === "object")}</span>
        <a class="back" href={home}>
          in the graph
        </a>
      </div>
      <OldNote live={page} gone="This service has gone: no workload runs it and nobody has called it lately." />
      {!page.data && page.status >= 400 && page.status !== 404 && <p class="note">{page.error}</p>}
      {page.status === 404 && !page.data ? (
        <NotFound service={service} home={home} mesh={mesh} />
      ) : (
        <Content page={page.data} address={address} out={address.range === "live" ? ejectedOf(ejections, service) : []} />
      )}
    </main>
  );
}

function Kind({ page }: { page: ServicePage }) {
  const { kind, service } = page.summary;
  const words = {
    http: "HTTP service",
    tcp: "TCP service",
    client: "makes calls, takes none",
    outside: "outside the mesh",
  }[kind];
  const place = service.namespace ? `, namespace ${service.namespace}` : "";
  return <span class="kind-words">{words + place}</span>;
}

function NotFound({ service, home, mesh }: { service: ServiceName; home: string; mesh: string }) {
  return (
    <div class="empty">
      <p>No workload runs a service of this name, and nobody has called it in this period. It begins to exist when a workload joins:</p>
      <Command text={`heddle run --service ${service.name} --namespace ${service.namespace || "default"}${mesh && ` --mesh ${mesh}`} --port http:8080 -- COMMAND`} />
      <p>
        <a href={home}>Back to the graph</a>
      </p>
    </div>
  );
}

function Content({ page, address, out }: { page: ServicePage | null; address: Address; out: Ejection[] }) {
  const tcp = page?.summary.kind === "tcp";
  const note = page ? over(page.window, typeof address.range === "object") : "";
  if (page?.summary.kind === "client") {
    return (
      <>
        <Neighbours title="Callees" edges={page.callees} end="destination" address={address} tcp={false} />
        {page.refusals.length > 0 && <Refused rows={page.refusals} address={address} note={note} />}
        {page.names.length > 0 && <Names rows={page.names} address={address} note={note} />}
        <Workloads page={page} />
      </>
    );
  }
  return (
    <>
      {page && <Verdict page={page} address={address} />}
      <Ejected rows={out} />
      <Signals page={page} />
      {page && (
        <>
          <div class="charts">
            {tcp ? (
              <TcpCharts page={page} table={address.table} />
            ) : (
              <><RequestChart page={page} table={address.table} /><LatencyChart page={page} table={address.table} /></>
            )}
          </div>
          <MarkList marks={marksOf(page)} />
          <div class="columns">
            <Neighbours title="Callers" edges={page.callers} end="source" address={address} tcp={tcp} />
            <Neighbours title="Callees" edges={page.callees} end="destination" address={address} tcp={false} />
          </div>
          <div class="columns">
            <Versions page={page} />
            {!tcp && <Answers page={page} />}
          </div>
          {!tcp && <Templates rows={page.templates} note={note} />}
          {!tcp && <Paths rows={page.paths} note={note} />}
          <section class="rules" aria-label="Rules about this service">
            {page.rules.map((rule) => (
              <OneRule key={`${ruleTitle(rule)} ${rule.source}`} rule={rule} address={address} bare />
            ))}
          </section>
          {page.refusals.length > 0 && <Refused rows={page.refusals} address={address} note={note} />}
          {page.names.length > 0 && <Names rows={page.names} address={address} note={note} />}
          <Workloads page={page} />
        </>
      )}
    </>
  );
}

/** That nobody called, said only of the time that was measured. */
function quiet(page: ServicePage, past: boolean): string {
  if (page.window === 0) return "This period has not begun yet.";
  const first = page.series[0];
  if (!first) return "Nothing was measured in this period.";
  const measured = first.at - page.step;
  if (measured > page.at - page.window + page.step) {
    return `No calls since ${clock(measured)}; nothing was measured before.`;
  }
  return past ? "No calls in this period." : `No calls in the last ${length(page.window)}.`;
}

/** Is it wrong, since when, and whose fault is it? The sentences that `heddle describe` prints, or silence. */
function Verdict({ page, address }: { page: ServicePage; address: Address }) {
  const { client, server, kind } = page.summary;
  const idle = client.per_second === 0 && server.per_second === 0;
  if (idle && kind !== "client" && page.summary.sent_bytes_per_second === 0) {
    return <p class="note">{quiet(page, typeof address.range === "object")}</p>;
  }
  const [share, ...more] = page.first;
  const last = page.cause?.path.at(-1);
  return (
    <>
      {share && (
        <p class="trouble">
          <b>{share}</b>
          {page.failing_since && ` Since ${clock(page.failing_since, true)}.`} {more.join(" ")}{" "}
          {last && <a href={link(address, { service: last })}>To {title(last)}</a>}
        </p>
      )}
      {page.on_purpose.length > 0 && <p class="note purpose-note">{page.on_purpose.join(" ")}</p>}
      {page.lost_contexts.map((lost) => (
        <p class="note" key={lost}>
          {lost}
        </p>
      ))}
    </>
  );
}
