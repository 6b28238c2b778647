// One service in the graph.

import type { Node } from "../api";
import { bytes, percent, rate } from "../format";
import { faultLines, failedShare, nodeHealth, title } from "../words";

const VERSIONS_MAX = 4;
const BASE_HEIGHT = 58;
/** With the success rate on a line of its own. */
const NARROW_HEIGHT = 74;
const VERSION_HEIGHT = 16;

interface Props {
  node: Node;
  /** Its workloads that some caller gives no requests, for their errors. */
  out: number;
  /** Calls it makes, per second. */
  calls: number;
  at: { x: number; y: number };
  width: number;
  height: number;
  dim: boolean;
  selected: boolean;
  onSelect: () => void;
  onOpen: () => void;
  onArrow: (arrow: string) => void;
}

/** Pixels; known before it is drawn, so that the layout never has to be corrected. */
export function nodeHeight(node: Node, narrow: boolean): number {
  const rows = shownVersions(node).length;
  return (narrow ? NARROW_HEIGHT : BASE_HEIGHT) + (rows > 0 ? rows * VERSION_HEIGHT + 6 : 0);
}

/** Bars are drawn where there is something to compare. */
function shownVersions(node: Node) {
  return node.versions.length > 1 ? node.versions.slice(0, VERSIONS_MAX) : [];
}

export function NodeBox(props: Props) {
  const { node, at, width, height, dim, selected, onSelect, onOpen, onArrow } = props;
  const health = nodeHealth(node);
  const key = (event: KeyboardEvent) => {
    if (event.key === "Enter") {
      event.preventDefault();
      onOpen();
    } else if (event.key.startsWith("Arrow")) {
      event.preventDefault();
      onArrow(event.key);
    }
  };
  const only = node.versions.length === 1 && node.versions[0]?.version !== "unknown" ? node.versions[0] : null;
  return (
    <button
      type="button"
      class={`node ${node.kind} ${health} ${dim ? "dim" : ""} ${selected ? "selected" : ""}`}
      style={{ transform: `translate(${at.x}px, ${at.y}px)`, width: `${width}px`, height: `${height}px` }}
      data-node={`${node.service.namespace}/${node.service.name}`}
      aria-pressed={selected}
      aria-label={label(props)}
      onClick={onSelect}
      onDblClick={onOpen}
      onKeyDown={key}
    >
      <Purpose node={node} />
      {props.out > 0 && (
        <span class="purpose out" title="taken out by its callers for too many errors">
          {props.out} out
        </span>
      )}
      <span class="name">
        <b>{title(node.service)}</b>
        {only && <small>{only.version}</small>}
        {node.kind !== "http" && title(node.service).length < 14 && <small class="kind">{node.kind}</small>}
      </span>
      <Figures {...props} />
      {shownVersions(node).length > 0 && (
        <span class="versions">
          {shownVersions(node).map((version) => (
            <span key={version.version} class="version">
              <span class="label">{version.version}</span>
              <span class="bar">
                <i style={{ width: `${Math.max(2, version.share * 100)}%` }} />
              </span>
              <span class="share">{percent(version.share)}</span>
            </span>
          ))}
        </span>
      )}
    </button>
  );
}

/** Faults made on purpose, told apart from trouble. */
function Purpose({ node }: { node: Node }) {
  const lines = faultLines(node.faults ?? [], node.client);
  const [first = ""] = lines;
  if (first === "") return null;
  // There is room for the two figures; the rest is in the card.
  const [asked = "", ...measured] = first.replace(" of some", "").split(", ");
  return (
    <span class="purpose" title={`on purpose, by a fault rule: ${lines.join("; ")}`}>
      {asked}
      <span class="why">{measured.map((one) => `, ${one}`)}</span>
      {lines.length > 1 && ` +${lines.length - 1}`}
    </span>
  );
}

function Figures({ node, calls }: Props) {
  if (node.kind === "client") {
    return (
      <span class="figures">
        <span class="number">{rate(calls)}</span>
        <small>calls/s</small>
      </span>
    );
  }
  const tcp = node.kind === "tcp" || (node.rates.per_second === 0 && node.bytes_per_second > 0);
  const busy = node.rates.per_second > 0 || node.client.per_second > 0;
  const [number, unit] = tcp
    ? bytes(node.bytes_per_second).split("\u202f")
    : [rate(node.rates.per_second || node.client.per_second), "req/s"];
  return (
    <span class="figures">
      <span class="number">{number}</span>
      <small>{unit}</small>
      <span class="success">{busy ? percent(1 - failedShare(node)) : ""}</span>
    </span>
  );
}

function label({ node, calls, out }: Props): string {
  const parts = [title(node.service)];
  if (node.kind === "client") parts.push(`makes ${rate(calls)} calls per second`);
  else if (node.kind === "tcp") parts.push(`TCP, ${bytes(node.bytes_per_second)}`);
  else parts.push(`${rate(node.rates.per_second)} requests per second`);
  if (node.rates.per_second > 0 || node.client.per_second > 0) {
    parts.push(`${percent(1 - failedShare(node))} succeed`);
  }
  parts.push(...faultLines(node.faults ?? [], node.client).map((line) => `fault ${line}`));
  if (out > 0) parts.push(`${out} of its workloads taken out for errors`);
  for (const version of shownVersions(node)) parts.push(`${version.version} ${percent(version.share)}`);
  return `${parts.join(", ")}. Enter opens the service.`;
}
