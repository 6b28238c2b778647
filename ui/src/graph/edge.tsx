// One line of the graph: all calls from one service to another.

import { NOTHING, type Edge } from "../api";
import { bytes, duration, percent, rate } from "../format";
import { curve } from "../layout";
import { health } from "../words";

interface Props {
  name: string;
  points: { x: number; y: number }[];
  /** One per protocol; empty for calls that are only remembered. */
  edges: Edge[];
  down: boolean;
  dim: boolean;
  /** Calls are seen to move. */
  flows: boolean;
  selected: boolean;
  onSelect: () => void;
  onHover: (inside: boolean) => void;
}

/** Arrow heads, one per colour. */
export function EdgeMarks() {
  return (
    <defs>
      {["idle", "well", "degraded", "failing", "chosen"].map((state) => (
        <marker
          key={state}
          id={`head-${state}`}
          viewBox="0 0 8 8"
          refX="7"
          refY="4"
          markerWidth="9"
          markerHeight="9"
          markerUnits="userSpaceOnUse"
          orient="auto"
        >
          <path d="M0 0L8 4L0 8z" class={`head ${state}`} />
        </marker>
      ))}
    </defs>
  );
}

export function EdgePath({ name, points, edges, down, dim, flows, selected, onSelect, onHover }: Props) {
  if (points.length === 0) return null;
  const path = curve(points, down);
  const state = health(...edges.flatMap((edge) => [edge.client, edge.server]), NOTHING);
  const busy = edges.length > 0;
  const shown = busy && state === "idle" ? "well" : state;
  const tcp = edges.length > 0 && edges.every((edge) => edge.protocol === "tcp");
  const key = (event: KeyboardEvent) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    onSelect();
  };
  const head = selected ? "chosen" : shown;
  const thick = width(edges);
  return (
    <g
      class={`edge ${shown} ${tcp ? "tcp" : ""} ${dim ? "dim" : ""} ${selected ? "selected" : ""}`}
      role="button"
      tabIndex={0}
      aria-pressed={selected}
      aria-label={`${name.replaceAll("/", " ").replace(">", " calls ")}: ${words(edges, { labelled: true, latency: true }, shown) || "no calls now"}`}
      data-edge={name}
      onClick={onSelect}
      onKeyDown={key}
      onPointerEnter={() => onHover(true)}
      onPointerLeave={() => onHover(false)}
      onFocus={() => onHover(true)}
      onBlur={() => onHover(false)}
    >
      <path d={path} class="reach" />
      <path d={path} class={`edge-line ${shown}`} stroke-width={thick} marker-end={`url(#head-${head})`} />
      {busy && flows && <path d={path} class="flow" stroke-width={Math.max(1.5, thick * 0.6)} />}
    </g>
  );
}

/** Words on a line, and the room they take in pixels. */
export interface Label {
  text: string;
  width: number;
  state: string;
}

/** What is wanted of the words on a line. */
interface Asked {
  labelled: boolean;
  latency: boolean;
}

/**
 * Trouble, faults and, on request, rate and latency. A narrow picture has no room between its services: there line and
 * service tell the trouble, and the words come on request.
 */
export function labelOf(edges: Edge[], asked: Asked & { down: boolean }): Label | null {
  const state = health(...edges.flatMap((edge) => [edge.client, edge.server]), NOTHING);
  const text = asked.labelled || asked.latency || !asked.down ? words(edges, asked, state) : "";
  // A little more than the text needs: measuring it would cost a second pass for nothing.
  return text ? { text, width: text.length * 6.4 + 12, state } : null;
}

export function EdgeLabel({ label, at, dim }: { label: Label; at: { x: number; y: number }; dim: boolean }) {
  return (
    <g class={`edge-label ${label.state} ${dim ? "dim" : ""}`} transform={`translate(${at.x.toFixed(1)} ${at.y.toFixed(1)})`}>
      <rect x={-label.width / 2} y={-8.5} width={label.width} height={17} rx={8} />
      <text y={4.5}>{label.text}</text>
    </g>
  );
}

/** Pixels, by the logarithm of the rate; bytes count as a request per kilobyte. */
function width(edges: Edge[]): number {
  const volume = edges.reduce(
    (sum, edge) =>
      sum +
      Math.max(edge.client.per_second, edge.server.per_second) +
      (edge.sent_bytes_per_second + edge.received_bytes_per_second) / 1000,
    0,
  );
  return Math.min(9, 1.2 + 1.8 * Math.log10(1 + volume));
}

/** Trouble and faults are always told, rate and latency only on request. */
function words(edges: Edge[], { labelled, latency }: Asked, state: string): string {
  const parts: string[] = [];
  const sum = (value: (edge: Edge) => number) => edges.reduce((total, edge) => total + value(edge), 0);
  const requests = sum((edge) => Math.max(edge.client.per_second, edge.server.per_second));
  const volume = sum((edge) => edge.sent_bytes_per_second + edge.received_bytes_per_second);
  if (labelled && edges.length > 0) {
    const tcp = edges.every((edge) => edge.protocol === "tcp");
    parts.push(tcp ? bytes(volume) : `${rate(requests)}/s`);
  }
  if (latency) {
    const times = edges.map((edge) => edge.client.p99_ms ?? edge.server.p99_ms).filter((one) => one !== null);
    if (times.length > 0) parts.push(`p99 ${duration(Math.max(...times))}`);
  }
  if (state === "degraded" || state === "failing") {
    const worst = Math.max(...edges.map((edge) => 1 - Math.min(edge.client.success, edge.server.success)));
    parts.push(`${percent(worst)} fail`);
  }
  const injected = sum((edge) => Math.max(edge.client.injected_per_second, edge.server.injected_per_second));
  const delayed = sum((edge) => Math.max(edge.client.delayed_per_second, edge.server.delayed_per_second));
  if (injected + delayed > 0 && requests > 0) {
    const [word, count] = injected >= delayed ? ["abort", injected] : ["delay", delayed];
    parts.push(`${word} ${percent(count / requests)}`);
  }
  return parts.join(" · ");
}

/** The point half-way along a route. */
export function middle(points: { x: number; y: number }[]): { x: number; y: number } {
  const at = Math.floor((points.length - 1) / 2);
  const [a, b] = [points[at]!, points[at + 1] ?? points[at]!];
  return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
}
