// One style of chart for all: time on x over exactly the page's period, one crosshair shared by all,
// zero-based, gaps drawn as gaps, the numbers one click away.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { ServicePage } from "./api";
import { clock, NONE } from "./format";
import { decades, spans } from "./scale";
import type { Mark } from "./service/marks";
import { colour, useThemeChange } from "./theme";

export type Paint = "ok" | "client-error" | "injected" | "server-error" | "p50" | "p90" | "p99";

export interface Series {
  label: string;
  paint: Paint;
  dotted?: boolean;
  /** One per point of the page's series. */
  values: (number | null)[];
}

interface Props {
  title: string;
  unit: string;
  page: ServicePage;
  series: Series[];
  /** Each on top of those before it. */
  stacked?: boolean;
  /** On a log scale where the values span it. */
  spread?: boolean;
  /** Numbers in place of the picture, until somebody says otherwise here. */
  wide: boolean;
  marks: Mark[];
  figure: (value: number) => string;
}

const HEIGHT = 210;
/** All charts of the page share one crosshair. */
const CROSSHAIR = "heddle";

export function Chart({ title, unit, page, series, marks, stacked = false, spread = false, wide, figure }: Props) {
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const period = useRef<[number, number]>([0, 1]);
  const [cursor, setCursor] = useState<number | null>(null);
  const [themed, setThemed] = useState(0);
  const [table, setTable] = useState(wide);
  useEffect(() => setTable(wide), [wide]);
  const marked = useRef<Mark[]>(marks);
  marked.current = marks;
  useThemeChange(() => setThemed((before) => before + 1));
  // An axis needs some length, also for a period that has not begun.
  period.current = [page.at - Math.max(page.window, 1), page.at];

  const { times, rows } = useMemo(() => withGaps(page, series), [page]);
  const log = spread && spans(rows);
  const shape = series.map((one) => `${one.label}:${one.paint}:${one.dotted}`).join();
  const data = useMemo(() => {
    const drawn = stacked ? stack(rows) : rows;
    // The topmost layer of a stack is painted first, lower ones over it.
    return [times, ...(stacked ? [...drawn].reverse() : drawn)] as uPlot.AlignedData;
  }, [times, rows, stacked]);

  useEffect(() => {
    const element = host.current;
    if (!element || table) return;
    const options = optionsFor(element, series, { stacked, log }, figure, period);
    const hooks = {
      setCursor: [(one: uPlot) => setCursor(one.cursor.idx ?? null)],
      draw: [(one: uPlot) => drawMarks(one, marked.current)],
    };
    const made = new uPlot(
      { ...options, hooks },
      data,
      element,
    );
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: HEIGHT }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [shape, stacked, log, themed, table]);
  useEffect(() => plot.current?.setData(data), [data, marks.length]);

  const at = cursor !== null && cursor < times.length ? cursor : times.length - 1;
  return (
    <section class="chart">
      <header>
        <h2>
          {title} {unit && <small>{unit}</small>} {log && <small>log scale</small>}
        </h2>
        <span class="at">{cursor !== null && times[at] ? clock(times[at], true) : ""}</span>
        <button type="button" class="quiet" aria-pressed={table} onClick={() => setTable(!table)}>
          {table ? "Chart" : "Numbers"}
        </button>
        <button type="button" class="quiet" onClick={() => download(title, times, series, rows)}>
          CSV
        </button>
      </header>
      {table ? (
        <Numbers times={times} series={series} rows={rows} figure={figure} />
      ) : (
        <div class="plot" ref={host} role="img" aria-label={describe(title, series, rows, figure)} />
      )}
      <ul class="series">
        {series.map((one, index) => (
          <li key={one.label}>
            <i class={`swatch ${one.paint} ${one.dotted ? "dotted" : ""} ${stacked ? "filled" : ""}`} aria-hidden="true" />
            <span class="label">{one.label}</span>
            <span class="value">{show(rows[index]?.[at], figure)}</span>
          </li>
        ))}
      </ul>
    </section>
  );
}

function show(value: number | null | undefined, figure: (value: number) => string): string {
  return value === null || value === undefined ? NONE : figure(value);
}

/** The points with a null wherever one or more were not measured. */
function withGaps(page: ServicePage, series: Series[]): { times: number[]; rows: (number | null)[][] } {
  const times: number[] = [];
  const rows: (number | null)[][] = series.map(() => []);
  page.series.forEach((point, index) => {
    const before = page.series[index - 1];
    if (before && point.at - before.at > page.step * 1.5) {
      times.push(before.at + page.step);
      for (const row of rows) row.push(null);
    }
    times.push(point.at);
    series.forEach((one, which) => rows[which]!.push(one.values[index] ?? null));
  });
  return { times, rows };
}

function stack(rows: (number | null)[][]): (number | null)[][] {
  const sums = new Array<number>(rows[0]?.length ?? 0).fill(0);
  return rows.map((row) =>
    row.map((value, index) => {
      if (value === null) return null;
      sums[index]! += value;
      return sums[index]!;
    }),
  );
}

function optionsFor(
  element: HTMLElement,
  series: Series[],
  { stacked, log }: { stacked: boolean; log: boolean },
  figure: (value: number) => string,
  period: { current: [number, number] },
): uPlot.Options {
  const font = "12px system-ui, sans-serif";
  const axis = { stroke: colour("--ink-3"), font, ticks: { show: false } };
  const drawn = stacked ? [...series].reverse() : series;
  return {
    width: element.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    // Room on the right for half of the last time.
    padding: [null, 28, null, null],
    cursor: { sync: { key: CROSSHAIR }, points: { show: !stacked, size: 5 }, drag: { x: false, y: false } },
    scales: {
      x: { time: true, range: () => period.current },
      y: log
        ? { distr: 3, log: 10, range: (_, min, max) => decades(min, max) }
        : { range: (_, __, max) => [0, niceTop(max)] },
    },
    axes: [
      { ...axis, grid: { show: false }, values: (_, ticks) => ticks.map((tick) => clock(tick, ticks.length > 1 && ticks[1]! - ticks[0]! < 60)), space: 90, size: 28 },
      {
        ...axis,
        grid: { stroke: colour("--line"), width: 1, ...(log ? { filter: powers } : {}) },
        values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : figure(tick).replace(/\.0(?!\d)/, ""))),
        // On a log scale only whole powers of ten have a name and a line.
        ...(log ? { filter: powers, space: 20 } : { space: 44 }),
        size: 68,
      },
    ],
    series: [{}, ...drawn.map((one) => styleOf(one, stacked))],
  };
}

/** A line through the whole chart at each mark, with a flag for a rule and a cross for a workload taken out. */
function drawMarks(plot: uPlot, marks: Mark[]) {
  const { ctx: pen, bbox } = plot;
  const ratio = devicePixelRatio || 1;
  for (const mark of marks) {
    const x = Math.round(plot.valToPos(mark.at, "x", true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    pen.save();
    pen.strokeStyle = pen.fillStyle = colour(mark.kind === "rule" ? "--accent" : "--red-mark");
    pen.lineWidth = ratio;
    pen.setLineDash([4 * ratio, 3 * ratio]);
    pen.beginPath();
    pen.moveTo(x + 0.5, bbox.top);
    pen.lineTo(x + 0.5, bbox.top + bbox.height);
    pen.stroke();
    pen.setLineDash([]);
    pen.beginPath();
    if (mark.kind === "rule") {
      pen.moveTo(x, bbox.top);
      pen.lineTo(x + 8 * ratio, bbox.top + 4 * ratio);
      pen.lineTo(x, bbox.top + 8 * ratio);
      pen.fill();
    } else {
      const arm = 3 * ratio;
      const y = bbox.top + arm;
      pen.moveTo(x - arm, y - arm);
      pen.lineTo(x + arm, y + arm);
      pen.moveTo(x + arm, y - arm);
      pen.lineTo(x - arm, y + arm);
      pen.stroke();
    }
    pen.restore();
  }
}

const powers: uPlot.Axis.Filter = (_, ticks) =>
  ticks.map((tick) => (Math.abs(Math.log10(tick) - Math.round(Math.log10(tick))) < 1e-9 ? tick : null));

function styleOf(one: Series, stacked: boolean): uPlot.Series {
  const stroke = colour(`--paint-${one.paint}`);
  return {
    label: one.label,
    stroke,
    width: stacked ? 1 : one.dotted ? 1.5 : 1.75,
    spanGaps: false,
    points: stacked ? { show: false } : { show: true, size: 4, fill: stroke, filter: isolated },
    ...(one.dotted ? { dash: [2, 4], cap: "round" as const } : {}),
    ...(stacked ? { fill: () => pattern(one.paint) } : {}),
  };
}

/** Points between two gaps, which no line would show. */
const isolated: uPlot.Series.Points.Filter = (plot, which) => {
  const values = plot.data[which] ?? [];
  const alone = (index: number) => values[index] != null && values[index - 1] == null && values[index + 1] == null;
  return Array.from(values, (_, index) => index).filter(alone);
};

/** Fill of a layer: plain, or hatched over the surface so that it is told without colour too. */
function pattern(paint: Paint): CanvasPattern | string {
  const base = colour(`--fill-${paint}`);
  if (paint === "ok") return base;
  const tile = document.createElement("canvas");
  const size = 8;
  tile.width = tile.height = size;
  const pen = tile.getContext("2d");
  if (!pen) return base;
  pen.fillStyle = base;
  pen.fillRect(0, 0, size, size);
  pen.strokeStyle = colour(`--paint-${paint}`);
  pen.lineWidth = paint === "server-error" ? 3 : 1.2;
  pen.beginPath();
  if (paint === "injected") {
    pen.arc(2, 2, 0.8, 0, 7);
    pen.arc(6, 6, 0.8, 0, 7);
  } else {
    for (const shift of [-size, 0, size]) {
      pen.moveTo(shift - 1, size + 1);
      pen.lineTo(shift + size + 1, -1);
    }
  }
  pen.stroke();
  return pen.createPattern(tile, "repeat") ?? base;
}

/** A round number at or above the highest value; 1 where there is none. */
function niceTop(max: number | null): number {
  if (max === null || !(max > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(max * 1.05));
  const steps = [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10];
  return (steps.find((step) => step * power >= max * 1.05) ?? 10) * power;
}

function describe(title: string, series: Series[], rows: (number | null)[][], figure: (value: number) => string): string {
  const last = series.map((one, index) => `${one.label} ${show(rows[index]?.at(-1), figure)}`);
  return `${title}; now ${last.join(", ")}`;
}

function Numbers(props: { times: number[]; series: Series[]; rows: (number | null)[][]; figure: (value: number) => string }) {
  const { times, series, rows, figure } = props;
  return (
    <div class="plot scroll" style={{ height: `${HEIGHT}px` }} tabIndex={0}>
      <table class="numbers">
        <thead>
          <tr>
            <th scope="col" class="text">Time</th>
            {series.map((one) => (
              <th scope="col" key={one.label}>{one.label}</th>
            ))}
          </tr>
        </thead>
        <tbody>
          {times
            .map((time, index) => ({ time, index }))
            .reverse()
            .map(({ time, index }) => (
              <tr key={time}>
                <td class="text">{clock(time, true)}</td>
                {rows.map((row, which) => (
                  <td key={which}>{show(row[index], figure)}</td>
                ))}
              </tr>
            ))}
        </tbody>
      </table>
    </div>
  );
}

function download(title: string, times: number[], series: Series[], rows: (number | null)[][]) {
  const head = ["time", ...series.map((one) => one.label)];
  const lines = times.map((time, index) => [new Date(time * 1000).toISOString(), ...rows.map((row) => row[index] ?? "")]);
  const text = [head, ...lines].map((line) => line.map((cell) => `"${cell}"`).join(",")).join("\r\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([`${text}\r\n`], { type: "text/csv" }));
  link.download = `${title.toLowerCase().replace(/[^a-z0-9]+/g, "-")}.csv`;
  link.click();
  URL.revokeObjectURL(link.href);
}
