// One service: is it well, its four golden signals, their course, who calls it, whom it calls.

import { link, pace, query, type Address } from "../address";
import { id, useLive, type Ejection, type ServiceName, type ServicePage } from "../api";
import { Command } from "../command";
import { clock, length, percent } from "../format";
import { isOld, OldNote } from "../old";
import type { PageProps } from "../pages";
import { ejectedOf, title } from "../words";
import { LatencyChart, RequestChart, TcpCharts } from "./charts";
import { Signals } from "./signals";
import { Answers, Ejected, Neighbours, Versions, Workloads } from "./tables";

/** Seconds of the live page. */
const LIVE_WINDOW = 60;

/** The page at `#/service/NAMESPACE/NAME`. */
export function ServiceView({ address, now, stopped }: PageProps) {
  const { service } = address;
  return service && <OneService service={service} address={address} stopped={stopped} ejections={now.data?.ejections ?? []} />;
}

interface Props extends Pick<PageProps, "address" | "stopped"> {
  service: ServiceName;
  /** Of all services, now. */
  ejections: Ejection[];
}

function OneService({ service, address, stopped, ejections }: Props) {
  const place = `${encodeURIComponent(service.namespace || "-")}/${encodeURIComponent(service.name)}`;
  const url = `/api/v1/services/${place}?${query(address.range, LIVE_WINDOW)}`;
  const page = useLive<ServicePage>(url, pace(address.range), true);
  const home = link(address, { page: "", selected: id(service) });
  return (
    <main class={`service-page ${stopped || isOld(page) ? "stale" : ""}`}>
      <div class="service-title">
        <h1>{title(service)}</h1>
        {page.data && <Kind page={page.data} />}
        <a class="back" href={home}>
          in the graph
        </a>
      </div>
      <OldNote live={page} gone="This service has gone: no workload runs it and nobody has called it lately." />
      {!page.data && page.status >= 400 && page.status !== 404 && <p class="note">{page.error}</p>}
      {page.status === 404 && !page.data ? (
        <NotFound service={service} home={home} />
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

function NotFound({ service, home }: { service: ServiceName; home: string }) {
  return (
    <div class="empty">
      <p>No workload runs a service of this name, and nobody has called it in this period. It begins to exist when a workload joins:</p>
      <Command text={`heddle run --service ${service.name} --namespace ${service.namespace || "default"} --port http:8080 -- COMMAND`} />
      <p>
        <a href={home}>Back to the graph</a>
      </p>
    </div>
  );
}

function Content({ page, address, out }: { page: ServicePage | null; address: Address; out: Ejection[] }) {
  const tcp = page?.summary.kind === "tcp";
  if (page?.summary.kind === "client") {
    return (
      <>
        <Neighbours title="Callees" edges={page.callees} end="destination" address={address} tcp={false} />
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
            {tcp ? <TcpCharts page={page} /> : <><RequestChart page={page} /><LatencyChart page={page} /></>}
          </div>
          <div class="columns">
            <Neighbours title="Callers" edges={page.callers} end="source" address={address} tcp={tcp} />
            <Neighbours title="Callees" edges={page.callees} end="destination" address={address} tcp={false} />
          </div>
          <div class="columns">
            <Versions page={page} />
            {!tcp && <Answers page={page} />}
          </div>
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

/** Is it wrong, since when, and whose fault is it? One sentence, or silence. */
function Verdict({ page, address }: { page: ServicePage; address: Address }) {
  const { client, server, kind } = page.summary;
  const idle = client.per_second === 0 && server.per_second === 0;
  if (idle && kind !== "client" && page.summary.sent_bytes_per_second === 0) {
    return <p class="note">{quiet(page, typeof address.range === "object")}</p>;
  }
  const failed = 1 - Math.min(client.success, server.success);
  const purposely = client.injected_per_second + client.delayed_per_second;
  const injected = purposely > 0 && client.per_second > 0 && (
    <p class="note purpose-note">
      {client.injected_per_second > 0 && `${percent(client.injected_per_second / client.per_second)} of the calls are aborted on purpose by a fault rule`}
      {client.injected_per_second > 0 && client.delayed_per_second > 0 && ", "}
      {client.delayed_per_second > 0 && `${percent(client.delayed_per_second / client.per_second)} delayed on purpose`}
      ; none of that counts as an error here.
    </p>
  );
  if (failed < 0.01) return injected || null;
  const own = 1 - server.success;
  const suspects = page.callees.filter((edge) => edge.client.success < 0.99);
  const suspect = suspects.sort((a, b) => a.client.success - b.client.success)[0];
  const since = page.failing_since ? ` since ${clock(page.failing_since, true)}` : "";
  return (
    <>
      <p class="trouble">
        <b>
          {percent(failed)} of the calls fail{since}.
        </b>{" "}
        {own < failed / 2 && server.per_second < client.per_second * 0.99
          ? "Most of them never get an answer from the service: it cannot be reached, or a sidecar refuses them."
          : "The service itself answers with errors."}{" "}
        {suspect && (
          <>
            Its own calls to{" "}
            <a href={link(address, { service: suspect.destination })}>{title(suspect.destination)}</a> fail too (
            {percent(1 - suspect.client.success)}): look there first.
          </>
        )}
      </p>
      {injected}
    </>
  );
}
