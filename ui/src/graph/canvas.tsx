// The drawn graph: nodes are buttons in layers, edges are curves below them.

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Address, Go } from "../address";
import { id, type Edge, type Graph, type Node } from "../api";
import { arrange, type Layout } from "../layout";
import { edgeKey, ejectedOf } from "../words";
import { EdgeLabel, EdgeMarks, EdgePath, labelOf, middle, type Label } from "./edge";
import { placeLabels, type Point } from "./labels";
import { EVERY, choiceOf } from "./select";
import { useZoom, ZoomButtons } from "./zoom";
import { callsOf, recall, remember, STORE_AFTER, type Memory } from "./memory";
import { NodeBox, nodeHeight } from "./node";
import { EdgeCard, NodeCard } from "./card";

interface Props {
  graph: Graph;
  /** What the picture has the shape of, where that is more than `graph`: a longer time's calls. */
  whole?: Graph;
  address: Address;
  go: Go;
}

/** Pixels; below this width layers go from top to bottom. */
const NARROW = 640;
const NODE_WIDTH = 196;
/** Tried in this order on a narrow screen. */
const NARROW_WIDTHS = [180, 164, 148, 136, 124, 112, 104];
/** On a narrow screen the picture is made as small as this, so that all of its width is seen, before it is scrolled. */
const SMALLEST = 0.62;
/** Lines on which calls are seen to move; more of them are unrest, and cost more than they tell. */
const MOVING_MAX = 150;
/** Pixels of the words on a line. */
const LABEL_HEIGHT = 17;
/** Pixels around the picture. */
const MARGIN = 16;

export function Canvas({ graph, whole, address, go }: Props) {
  const frame = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLDivElement>(null);
  const drawing = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const element = frame.current;
    if (!element) return;
    const observer = new ResizeObserver(() => setWidth(element.clientWidth));
    observer.observe(element);
    setWidth(element.clientWidth);
    return () => observer.disconnect();
  }, []);

  const picture = usePicture(graph, width, address.range === "live" && !whole && isWhole(address), whole);
  const zoom = useZoom(frame, picture);
  const [hovered, setHovered] = useState<string | null>(null);
  const active = hovered ?? address.selected;
  const pairs = useMemo(() => pairUp(graph.edges), [graph]);
  const nodes = new Map(graph.nodes.map((node) => [id(node.service), node]));
  const related = address.selected ? neighbours(address.selected, picture.calls) : null;
  const select = (key: string) => go({ selected: address.selected === key ? null : key }, true);

  const focus = (key: string) =>
    frame.current?.querySelector<HTMLElement>(`[data-node="${CSS.escape(key)}"]`)?.focus();
  const move = (key: string, arrow: string) => {
    const next = step(picture, key, arrow);
    if (next) focus(next);
  };

  const { drawn, down } = picture;
  const { scale } = zoom;
  const anchor = active ? anchorOf(active, picture) : null;
  const offset = useOffset(drawing, canvas);
  const at = anchor && { x: anchor.x * scale + offset.x, y: anchor.y * scale + offset.y, clear: anchor.clear * scale };
  const activeNode = active ? nodes.get(active) : undefined;
  const clear = (event: Event) => {
    const target = event.target as Element;
    if (address.selected && !target.closest("button, a, g.edge, .card")) go({ selected: null }, true);
  };
  const shape = (key: string) => ({
    points: drawn.routes.get(key) ?? selfLoop(key, picture),
    edges: pairs.get(key) ?? [],
    dim: related !== null && !related.edges.has(key),
  });
  const labels = useLabels(picture, (key) => {
    const labelled = active !== null && (key === active || key.split(">").includes(active));
    return labelOf(shape(key).edges, { labelled, down, latency: address.filter.latency === "1" });
  });
  const open = (node: Node) =>
    node.service.name === EVERY
      ? go({ filter: { ...address.filter, ns: node.service.namespace, group: "" }, selected: null })
      : go({ service: node.service });
  return (
    <div class="frame" ref={frame} onClick={clear}>
      <div class={`canvas ${down ? "down" : "right"} ${address.range === "live" ? "live" : ""}`} ref={canvas}>
        <div
          class="picture"
          ref={drawing}
          style={{
            width: `${(drawn.width + 2 * MARGIN) * scale}px`,
            height: `${(drawn.height + 2 * MARGIN) * scale}px`,
          }}
        >
          <div class="scaled" style={{ transform: `scale(${scale}) translate(${MARGIN}px, ${MARGIN}px)` }}>
            <svg class="edges" width={drawn.width} height={drawn.height}>
              <EdgeMarks />
              {[...picture.calls.keys()].map((key) => (
                <EdgePath
                  key={key}
                  name={key}
                  {...shape(key)}
                  down={down}
                  flows={picture.calls.size <= MOVING_MAX}
                  selected={key === address.selected}
                  onSelect={() => select(key)}
                  onHover={(inside) => setHovered(inside ? key : null)}
                />
              ))}
            </svg>
            {drawn.layers.flat().map((key) => {
              const node = nodes.get(key);
              const corner = drawn.nodes.get(key);
              if (!node || !corner) return null;
              return (
                <NodeBox
                  key={key}
                  node={node}
                  out={new Set(ejectedOf(graph.ejections ?? [], node.service).map((one) => one.endpoint)).size}
                  calls={outgoing(graph.edges, key)}
                  at={corner}
                  width={picture.nodeWidth}
                  height={picture.heights.get(key) ?? 0}
                  dim={related !== null && !related.nodes.has(key)}
                  selected={key === address.selected}
                  onSelect={() => select(key)}
                  onOpen={() => open(node)}
                  onArrow={(arrow) => move(key, arrow)}
                />
              );
            })}
            <svg class="labels" width={drawn.width} height={drawn.height} aria-hidden="true">
              {labels.map(({ key, label, at }) => (
                <EdgeLabel key={key} label={label} at={at} dim={shape(key).dim} />
              ))}
            </svg>
          </div>
        </div>
      </div>
      <ZoomButtons zoom={zoom} />
      {at && activeNode && address.selected === active && (
        <NodeCard node={activeNode} graph={graph} at={at} address={address} />
      )}
      {at && active?.includes(">") && (
        <EdgeCard
          name={active}
          edges={pairs.get(active) ?? []}
          nodes={nodes}
          at={at}
          pinned={address.selected === active}
        />
      )}
    </div>
  );
}

/** Where the picture is in its frame; it is centred, and it may be scrolled. */
function useOffset(drawing: { current: HTMLElement | null }, canvas: { current: HTMLElement | null }) {
  const [offset, setOffset] = useState({ x: 0, y: 0 });
  const measure = () => {
    const [inner, outer] = [drawing.current, canvas.current];
    if (!inner || !outer) return;
    const x = inner.offsetLeft - outer.scrollLeft;
    const y = inner.offsetTop;
    setOffset((known) => (x === known.x && y === known.y ? known : { x, y }));
  };
  useLayoutEffect(measure);
  // A lower window or a banner above moves the picture although nothing is drawn anew.
  useLayoutEffect(() => {
    if (!canvas.current) return;
    const observer = new ResizeObserver(measure);
    observer.observe(canvas.current);
    return () => observer.disconnect();
  }, []);
  return offset;
}

interface Picture {
  drawn: Layout;
  calls: Map<string, number>;
  heights: Map<string, number>;
  nodeWidth: number;
  down: boolean;
  scale: number;
}

/** The layout, computed anew only when the structure or the room for it changes. */
function usePicture(graph: Graph, width: number, live: boolean, whole?: Graph): Picture {
  const memory = useRef<{ mesh: string; value: Memory } | null>(null);
  if (memory.current?.mesh !== graph.mesh) memory.current = { mesh: graph.mesh, value: recall(graph.mesh) };
  const known = memory.current.value;
  // Before the first look at the room there is, nothing is drawn: it would be drawn twice.
  const ids = width === 0 ? [] : graph.nodes.map((node) => id(node.service));
  const longer = whole ? Object.fromEntries(whole.edges.map((edge) => [edgeKey(edge), graph.at])) : {};
  const calls = callsOf(graph, new Set(ids), live ? known : { order: [], calls: longer });
  const down = width > 0 && width < NARROW;
  const heights = new Map(graph.nodes.map((node) => [id(node.service), nodeHeight(node, down)]));
  const structure = JSON.stringify([ids.map((key) => [key, heights.get(key)]), [...calls.keys()].sort(), width, live]);
  const picture = useMemo(() => {
    const edges = [...calls.keys()].map((key) => {
      const [source = "", target = ""] = key.split(">");
      return { source, target };
    });
    return fit(ids, edges, heights, width, down, known.order);
  }, [structure]);
  // A call counts as seen at every update, or one that stops after a steady hour would vanish at once.
  const stored = useRef({ structure: "", at: 0 });
  useEffect(() => {
    // Nothing is drawn before the first look at the room there is: no picture to remember.
    if (!live || width === 0) return;
    const value = { order: picture.drawn.layers.flat(), calls: Object.fromEntries(calls) };
    memory.current = { mesh: graph.mesh, value };
    const age = Math.abs(graph.at - stored.current.at);
    if (stored.current.structure === structure && age < STORE_AFTER) return;
    stored.current = { structure, at: graph.at };
    remember(graph.mesh, value);
  }, [graph, structure, live]);
  return { ...picture, calls, heights, down };
}

/** Is all of the mesh shown? Only then is the picture one to remember. */
function isWhole(address: Address): boolean {
  const { namespace, name, grouped } = choiceOf(address.filter);
  return namespace === "" && name === "" && !grouped;
}

interface Placed {
  key: string;
  label: Label;
  at: Point;
}

/** Words on lines, each where no service and no other words are. */
function useLabels(picture: Picture, labelOf: (key: string) => Label | null): Placed[] {
  const { drawn, calls, heights, nodeWidth } = picture;
  const labels = [...calls.keys()].flatMap((key) => {
    const label = labelOf(key);
    return label ? [{ key, label }] : [];
  });
  const text = labels.map(({ key, label }) => `${key} ${label.text.length}`).join("|");
  const places = useMemo(() => {
    // With the badges above them.
    const services = [...drawn.nodes].map(([key, { x, y }]) => ({
      left: x,
      top: y - 10,
      right: x + nodeWidth,
      bottom: y + (heights.get(key) ?? 0),
    }));
    const wanted = labels.map(({ key, label }) => ({
      key,
      points: drawn.routes.get(key) ?? selfLoop(key, picture),
      width: label.width,
      height: LABEL_HEIGHT,
    }));
    return placeLabels(wanted, services);
  }, [drawn, text]);
  return labels.flatMap(({ key, label }) => {
    const at = places.get(key);
    return at ? [{ key, label, at }] : [];
  });
}

/** Sizes and gaps so that the picture fills the width, and a scale where it cannot. */
function fit(
  ids: string[],
  edges: { source: string; target: string }[],
  heights: Map<string, number>,
  width: number,
  down: boolean,
  previous: string[],
): Pick<Picture, "drawn" | "nodeWidth" | "scale"> {
  const room = Math.max(200, width - 2 * MARGIN);
  const arranged = (nodeWidth: number) =>
    arrange(
      ids.map((key) => ({ id: key, width: nodeWidth, height: heights.get(key) ?? 60 })),
      edges,
      { direction: down ? "down" : "right", previous, ...(down ? { perLayer: 3 } : {}) },
    );
  if (down) {
    // The widest nodes with which everything fits; the narrowest ones are made smaller, then scrolled.
    for (const nodeWidth of NARROW_WIDTHS) {
      const drawn = arranged(nodeWidth).at({ layerGap: 52, nodeGap: 10 });
      const scale = Math.min(1, Math.max(SMALLEST, room / Math.max(1, drawn.width)));
      if (drawn.width <= room || nodeWidth === NARROW_WIDTHS.at(-1)) return { drawn, nodeWidth, scale };
    }
  }
  const arrangement = arranged(NODE_WIDTH);
  const layers = arrangement.sizes.length;
  const widest = Math.max(1, ...arrangement.sizes);
  const layerGap = layers > 1 ? Math.min(220, Math.max(64, (room - layers * NODE_WIDTH) / (layers - 1))) : 0;
  const drawn = arrangement.at({ layerGap, nodeGap: widest > 6 ? 22 : 48 });
  return { drawn, nodeWidth: NODE_WIDTH, scale: Math.min(1, Math.max(0.6, room / Math.max(1, drawn.width))) };
}

function pairUp(edges: Edge[]): Map<string, Edge[]> {
  const pairs = new Map<string, Edge[]>();
  for (const edge of edges) pairs.set(edgeKey(edge), [...(pairs.get(edgeKey(edge)) ?? []), edge]);
  return pairs;
}

/** What stays bright when `selected` (a node or an edge) is. */
function neighbours(selected: string, calls: Map<string, number>) {
  const edges = new Set<string>();
  const nodes = new Set<string>(selected.split(">"));
  for (const key of calls.keys()) {
    const ends = key.split(">");
    if (key === selected || (!selected.includes(">") && ends.includes(selected))) {
      edges.add(key);
      for (const end of ends) nodes.add(end);
    }
  }
  return { edges, nodes };
}

function outgoing(edges: Edge[], key: string): number {
  return edges
    .filter((edge) => id(edge.source) === key)
    .reduce((sum, edge) => sum + edge.client.per_second, 0);
}

/** The node an arrow key leads to: along the calls to the nearest neighbour, across within the layer. */
function step(picture: Picture, key: string, arrow: string): string | null {
  const { drawn, calls, down } = picture;
  const along = down ? { ArrowDown: 1, ArrowUp: -1 }[arrow] : { ArrowRight: 1, ArrowLeft: -1 }[arrow];
  if (along) {
    const ends = [...calls.keys()].map((call) => call.split(">"));
    const next = ends
      .filter(([source, target]) => (along > 0 ? source === key : target === key))
      .map(([source, target]) => (along > 0 ? target! : source!))
      .filter((other) => other !== key);
    const here = drawn.nodes.get(key)!;
    const far = (other: string) => {
      const there = drawn.nodes.get(other) ?? here;
      return Math.hypot(there.x - here.x, there.y - here.y);
    };
    return next.sort((a, b) => far(a) - far(b))[0] ?? null;
  }
  const layer = drawn.layers.find((one) => one.includes(key)) ?? [];
  const across = down ? { ArrowRight: 1, ArrowLeft: -1 }[arrow] : { ArrowDown: 1, ArrowUp: -1 }[arrow];
  return layer[layer.indexOf(key) + (across ?? 0)] ?? null;
}

/** A service that calls itself: a loop above its right corner. */
function selfLoop(key: string, picture: Picture) {
  const [source, target] = key.split(">");
  const at = picture.drawn.nodes.get(source ?? "");
  if (!at || source !== target) return [];
  const x = at.x + picture.nodeWidth;
  return [{ x: x - 40, y: at.y }, { x: x - 22, y: at.y - 18 }, { x: x - 8, y: at.y }];
}

/** The point the card of a node or edge hangs from. */
function anchorOf(key: string, picture: Picture) {
  const at = picture.drawn.nodes.get(key);
  if (at) {
    const half = (picture.heights.get(key) ?? 0) / 2;
    return { x: at.x + picture.nodeWidth / 2 + MARGIN, y: at.y + half + MARGIN, clear: half + 8 };
  }
  const points = picture.drawn.routes.get(key);
  if (!points || points.length === 0) return null;
  const centre = middle(points);
  return { x: centre.x + MARGIN, y: centre.y + MARGIN, clear: 28 };
}
