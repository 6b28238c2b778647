// The tables of a service page.

import { link, type Address } from "../address";
import { id, type Edge, type Ejection, type ServicePage } from "../api";
import { bytes, clock, duration, NONE, percent, rate } from "../format";
import { Bar, Box, Head } from "../table";
import { codeInWords, difference, ejectedBecause, flagsInWords, health, title } from "../words";

/** Who is given no calls for its errors, by whom, and until when; nothing where nobody is. */
export function Ejected({ rows }: { rows: Ejection[] }) {
  if (rows.length === 0) return null;
  return (
    <Box title="Taken out for errors" note="now" empty="" rows={rows.length}>
      <Head texts={["Workload", "Taken out by", "Why", "Rule"]} numbers={["Since", "Tried again"]} />
      <tbody>
        {rows.map((row) => (
          <tr key={`${row.by} ${row.endpoint} ${row.address} ${row.subset}`} class="failing">
            <td class="text">
              {row.endpoint} <small>{row.address}</small>
            </td>
            <td class="text">{row.by}</td>
            <td class="text wrap">{ejectedBecause(row.reason)}</td>
            <td class="text wrap">
              {row.rule} {row.subset && <small>subset {row.subset}</small>}
            </td>
            <td>{clock(row.since, true)}</td>
            <td>{clock(row.until, true)}</td>
          </tr>
        ))}
      </tbody>
    </Box>
  );
}

interface NeighboursProps {
  title: string;
  edges: Edge[];
  end: "source" | "destination";
  address: Address;
  tcp: boolean;
}

export function Neighbours({ title: heading, edges, end, address, tcp }: NeighboursProps) {
  const most = Math.max(0, ...edges.map(volume));
  const empty = end === "source" ? "Nobody called it in this period." : "It called nobody in this period.";
  return (
    <Box title={heading} empty={empty} rows={edges.length}>
      <Head texts={["Service"]} numbers={[tcp ? "Bytes" : "Calls", "Success", tcp ? "Conn/s" : "p99 client", ...(tcp ? [] : ["p99 server"])]} />
      <tbody>
        {edges.map((edge) => {
          const other = edge[end];
          const opaque = edge.protocol === "tcp";
          const words = difference(edge, edge.destination.namespace === "");
          return (
            <tr key={`${id(other)} ${edge.protocol}`} class={health(edge.client, edge.server)}>
              <td class="text">
                <a href={link(address, { service: other })}>
                  <i class={`dot ${health(edge.client, edge.server)}`} aria-hidden="true" />
                  {title(other)}
                </a>{" "}
                <small>{edge.protocol}</small>
                {words !== "Both sides agree." && <small class="words">{words}</small>}
              </td>
              <Bar value={volume(edge)} most={most}>
                {opaque ? bytes(edge.sent_bytes_per_second + edge.received_bytes_per_second) : `${rate(calls(edge))}/s`}
              </Bar>
              <td>{calls(edge) > 0 ? percent(Math.min(edge.client.success, edge.server.success)) : NONE}</td>
              {tcp ? <td>{rate(calls(edge))}</td> : <td>{duration(edge.client.p99_ms)}</td>}
              {!tcp && <td>{duration(edge.server.p99_ms)}</td>}
            </tr>
          );
        })}
      </tbody>
    </Box>
  );
}

function calls(edge: Edge): number {
  return Math.max(edge.client.per_second, edge.server.per_second);
}

function volume(edge: Edge): number {
  return edge.protocol === "tcp" ? edge.sent_bytes_per_second + edge.received_bytes_per_second : calls(edge);
}

export function Versions({ page }: { page: ServicePage }) {
  const tcp = page.summary.kind === "tcp";
  return (
    <Box title="Versions" empty="No version has answered in this period." rows={page.versions.length}>
      <Head texts={["Version"]} numbers={["Share", "Rate", "Success", ...(tcp ? [] : ["p50", "p99"])]} />
      <tbody>
        {page.versions.map((version) => (
          <tr key={version.version} class={health(version.rates)}>
            <td class="text">{version.version}</td>
            <Bar value={version.share} most={1}>{percent(version.share)}</Bar>
            <td>{rate(version.rates.per_second)}/s</td>
            <td>{version.rates.per_second > 0 ? percent(version.rates.success) : NONE}</td>
            {!tcp && <td>{duration(version.rates.p50_ms)}</td>}
            {!tcp && <td>{duration(version.rates.p99_ms)}</td>}
          </tr>
        ))}
      </tbody>
    </Box>
  );
}

export function Answers({ page }: { page: ServicePage }) {
  const most = Math.max(0, ...page.responses.map((row) => Math.max(row.client_per_second, row.server_per_second)));
  return (
    <Box title="Answers" empty="No answers in this period." rows={page.responses.length}>
      <Head texts={["Code", "Meaning"]} numbers={["Client", "Server"]} />
      <tbody>
        {page.responses.map((row) => {
          const purpose = row.flags.split(",").includes("FI");
          const state = purpose ? "on-purpose" : row.code === 0 || row.code >= 500 ? "failing" : "well";
          const flags = flagsInWords(row.flags);
          return (
            <tr key={`${row.code} ${row.flags}`} class={state}>
              <td class="text">{row.code === 0 ? "none" : row.code}</td>
              <td class="text wrap">
                {flags || codeInWords(row.code)} {row.flags !== "-" && <small>{row.flags}</small>}
              </td>
              <Bar value={row.client_per_second} most={most}>{rate(row.client_per_second)}/s</Bar>
              <td>{rate(row.server_per_second)}/s</td>
            </tr>
          );
        })}
      </tbody>
    </Box>
  );
}

export function Workloads({ page }: { page: ServicePage }) {
  const tcp = page.summary.kind === "tcp";
  const most = Math.max(0, ...page.workloads.map((row) => row.rates.per_second));
  return (
    <Box title="Workloads" empty="No workload is behind this name now." rows={page.workloads.length}>
      <Head texts={["Workload", "Version", "Address", "State"]} numbers={["Rate", "Success", ...(tcp ? ["Open"] : ["p99", "In flight"])]} />
      <tbody>
        {page.workloads.map((row) => (
          <tr key={row.id} class={row.present ? health(row.rates) : "gone"}>
            <td class="text">{row.id}</td>
            <td class="text">{row.version}</td>
            <td class="text">{row.address}</td>
            <td class="text">{!row.present ? "has left" : row.scraped ? "measured" : "sidecar does not answer"}</td>
            <Bar value={row.rates.per_second} most={most}>{rate(row.rates.per_second)}/s</Bar>
            <td>{row.rates.per_second > 0 ? percent(row.rates.success) : NONE}</td>
            {!tcp && <td>{duration(row.rates.p99_ms)}</td>}
            <td>{rate(row.in_flight).replace(/\.0$/, "")}</td>
          </tr>
        ))}
      </tbody>
    </Box>
  );
}
