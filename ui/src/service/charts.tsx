// The charts of a service page.

import type { ServicePage } from "../api";
import { Chart, type Series } from "../chart";
import { bytes, duration, rate } from "../format";
import { fuller, own } from "./figures";
import { marksOf } from "./marks";

interface Props {
  page: ServicePage;
  /** Numbers in place of the picture. */
  table: boolean;
}

export function RequestChart({ page, table }: Props) {
  // What the callers sent, so that calls that never arrived are in the picture.
  const value = (of: (rates: ReturnType<typeof fuller>) => number) => page.series.map((point) => of(fuller(point)));
  const series: Series[] = [
    {
      label: "2xx, 3xx",
      paint: "ok",
      values: value((rates) =>
        Math.max(
          0,
          rates.per_second -
            rates.client_errors_per_second -
            rates.server_errors_per_second -
            rates.injected_per_second,
        ),
      ),
    },
    { label: "4xx", paint: "client-error", values: value((rates) => rates.client_errors_per_second) },
    { label: "on purpose", paint: "injected", values: value((rates) => rates.injected_per_second) },
    { label: "5xx, none", paint: "server-error", values: value((rates) => rates.server_errors_per_second) },
  ];
  return <Chart title="Requests by answer" unit="req/s" page={page} marks={marksOf(page)} wide={table} series={series} stacked figure={rate} />;
}

export function LatencyChart({ page, table }: Props) {
  const series: Series[] = (["p50", "p90", "p99"] as const).flatMap((quantile) =>
    (["client", "server"] as const).map((side) => ({
      label: `${quantile} ${side}`,
      paint: quantile,
      dotted: side === "server",
      values: page.series.map((point) => point[side][`${quantile}_ms`]),
    })),
  );
  return <Chart title="Latency: client solid, server dotted" unit="" page={page} marks={marksOf(page)} wide={table} series={series} figure={duration} spread />;
}

export function TcpCharts({ page, table }: Props) {
  const volume: Series[] = [
    { label: "both ways", paint: "p99", values: page.series.map((point) => point.bytes_per_second) },
  ];
  const connections: Series[] = [
    { label: "opened/s", paint: "p99", values: page.series.map((point) => own(point).per_second) },
    { label: "open", paint: "p50", values: page.series.map((point) => point.in_flight) },
  ];
  return (
    <>
      <Chart title="Bytes" unit="" page={page} marks={marksOf(page)} wide={table} series={volume} figure={(value) => (value === null ? "–" : bytes(value))} />
      <Chart title="Connections" unit="" page={page} marks={marksOf(page)} wide={table} series={connections} figure={rate} />
    </>
  );
}
