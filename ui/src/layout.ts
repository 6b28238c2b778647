// A layered layout (Sugiyama's steps): break cycles, assign layers, order, place. Pure and
// deterministic: the same services and calls give the same picture after a reload, and `previous`
// keeps what was there in its order when something new comes.

export interface LayoutNode {
  id: string;
  width: number;
  height: number;
}

export interface LayoutEdge {
  source: string;
  target: string;
}

export interface Options {
  /** Layers from left to right, or from top to bottom on a narrow screen. */
  direction: "right" | "down";
  /** Pixels between layers. */
  layerGap: number;
  /** Pixels between neighbours in a layer. */
  nodeGap: number;
  /** Nodes in a layer at most; a larger one is cut into several. */
  perLayer?: number;
  /** Order of ids in an earlier picture, layer by layer. */
  previous?: string[];
}

export interface Layout {
  /** Top left corners. */
  nodes: Map<string, { x: number; y: number }>;
  /** Ids per layer in order: for the keyboard, and as the next `previous`. */
  layers: string[][];
  /** Points an edge passes, from its source's side to its target's, by `source>target`. */
  routes: Map<string, { x: number; y: number }[]>;
  width: number;
  height: number;
}

/** A node or a place where a long edge passes a layer. */
interface Cell {
  id: string;
  layer: number;
  /** Extent across the layer and along the direction of calls. */
  across: number;
  along: number;
  /** Centre across the layer. */
  at: number;
  before: Cell[];
  after: Cell[];
  dummy: boolean;
}

const DUMMY_ACROSS = 14;

export function layout(nodes: LayoutNode[], edges: LayoutEdge[], options: Options): Layout {
  return arrange(nodes, edges, options).at(options);
}

/** Who stands where, before it is said how far apart. */
export interface Arrangement {
  /** Nodes per layer. */
  sizes: number[];
  at: (gaps: Pick<Options, "layerGap" | "nodeGap">) => Layout;
}

/** The costly part of a layout: the same arrangement can be drawn with several gaps. */
export function arrange(nodes: LayoutNode[], edges: LayoutEdge[], options: Omit<Options, "layerGap" | "nodeGap">): Arrangement {
  const down = options.direction === "down";
  const ids = nodes.map((node) => node.id).sort();
  const sizes = new Map(nodes.map((node) => [node.id, node]));
  const known = new Set(ids);
  const unique = [...new Map(edges.map((edge) => [`${edge.source}>${edge.target}`, edge])).entries()]
    .filter(([, edge]) => known.has(edge.source) && known.has(edge.target) && edge.source !== edge.target)
    .sort(([a], [b]) => (a < b ? -1 : 1));
  const forward = breakCycles(ids, unique.map(([, edge]) => edge));
  const layerOf = assignLayers(ids, forward);
  cutLayers(layerOf, forward, options.perLayer ?? Infinity);

  const cells = new Map<string, Cell>();
  for (const id of ids) {
    const size = sizes.get(id)!;
    const [across, along] = down ? [size.width, size.height] : [size.height, size.width];
    cells.set(id, cell(id, layerOf.get(id)!, across, along, false));
  }
  const chains = new Map<string, Cell[]>();
  for (const [key, edge] of unique) chains.set(key, chain(key, edge, cells));

  const layers = order([...cells.values()], options.previous ?? []);
  return {
    sizes: layers.map((layer) => layer.filter((one) => !one.dummy).length),
    at: ({ layerGap, nodeGap }) => {
      place(layers, nodeGap);
      return draw(layers, chains, sizes, layerGap, down);
    },
  };
}

function cell(id: string, layer: number, across: number, along: number, dummy: boolean): Cell {
  return { id, layer, across, along, at: 0, before: [], after: [], dummy };
}

/** Edges with those that close a cycle turned round; callers without callers are visited first. */
function breakCycles(ids: string[], edges: LayoutEdge[]): LayoutEdge[] {
  const out = new Map<string, LayoutEdge[]>();
  const called = new Set<string>();
  for (const edge of edges) {
    out.set(edge.source, [...(out.get(edge.source) ?? []), edge]);
    called.add(edge.target);
  }
  const state = new Map<string, "open" | "done">();
  const result: LayoutEdge[] = [];
  const visit = (id: string) => {
    state.set(id, "open");
    for (const edge of out.get(id) ?? []) {
      const seen = state.get(edge.target);
      if (seen === "open") {
        result.push({ source: edge.target, target: edge.source });
        continue;
      }
      result.push(edge);
      if (!seen) visit(edge.target);
    }
    state.set(id, "done");
  };
  for (const id of [...ids.filter((id) => !called.has(id)), ...ids]) if (!state.has(id)) visit(id);
  return result;
}

/** Longest path from the callers; services without any call stand apart in the last layer's shelf. */
function assignLayers(ids: string[], edges: LayoutEdge[]): Map<string, number> {
  const layers = new Map(ids.map((id) => [id, 0]));
  // An acyclic graph settles after at most as many passes as it has nodes.
  for (let pass = 0; pass < ids.length; pass += 1) {
    let moved = false;
    for (const { source, target } of edges) {
      const least = layers.get(source)! + 1;
      if (layers.get(target)! < least) {
        layers.set(target, least);
        moved = true;
      }
    }
    if (!moved) break;
  }
  // A caller that nobody calls stands next to the first one it calls, not at the far left.
  const called = new Set(edges.map((edge) => edge.target));
  for (const id of ids) {
    const targets = edges.filter((edge) => edge.source === id).map((edge) => layers.get(edge.target)!);
    if (!called.has(id) && targets.length > 0) layers.set(id, Math.min(...targets) - 1);
  }
  return layers;
}

/** Cuts layers with more than `most` nodes into several, those that call nobody first. */
function cutLayers(layers: Map<string, number>, edges: LayoutEdge[], most: number) {
  const callers = new Set(edges.map((edge) => edge.source));
  const members = new Map<number, string[]>();
  for (const [id, layer] of layers) members.set(layer, [...(members.get(layer) ?? []), id]);
  let next = 0;
  for (const layer of [...members.keys()].sort((a, b) => a - b)) {
    const ids = members.get(layer)!.sort((a, b) => Number(callers.has(a)) - Number(callers.has(b)) || (a < b ? -1 : 1));
    const rows = Math.ceil(ids.length / most);
    const each = Math.ceil(ids.length / Math.max(1, rows));
    ids.forEach((id, index) => layers.set(id, next + Math.floor(index / each)));
    next += Math.max(1, rows);
  }
}

/** The cells an edge passes, in the direction of the call, linked to their neighbours. */
function chain(key: string, edge: LayoutEdge, cells: Map<string, Cell>): Cell[] {
  const [source, target] = [cells.get(edge.source)!, cells.get(edge.target)!];
  const [low, high] = source.layer < target.layer ? [source, target] : [target, source];
  const path = [low];
  for (let layer = low.layer + 1; layer < high.layer; layer += 1) {
    const dummy = cell(`${key}#${layer}`, layer, DUMMY_ACROSS, 0, true);
    cells.set(dummy.id, dummy);
    path.push(dummy);
  }
  path.push(high);
  for (let index = 1; index < path.length; index += 1) {
    path[index - 1]!.after.push(path[index]!);
    path[index]!.before.push(path[index - 1]!);
  }
  return source === low ? path : path.reverse();
}

/** Layers in an order with few crossings, known cells in their earlier order. */
function order(cells: Cell[], previous: string[]): Cell[][] {
  const layers: Cell[][] = [];
  for (const one of cells) (layers[one.layer] ??= []).push(one);
  for (let layer = 0; layer < layers.length; layer += 1) layers[layer] ??= [];
  const rank = new Map(previous.map((id, index) => [id, index]));
  const known = cells.filter((one) => !one.dummy).every((one) => rank.has(one.id));
  for (const layer of layers) {
    layer.sort((a, b) => (rank.get(a.id) ?? Infinity) - (rank.get(b.id) ?? Infinity) || (a.id < b.id ? -1 : 1));
  }
  if (known && rank.size > 0) return layers;
  let best = layers.map((layer) => [...layer]);
  let fewest = crossings(best);
  const fixed = (one: Cell) => rank.get(one.id) ?? null;
  for (let pass = 0; pass < 8 && fewest > 0; pass += 1) {
    const forward = pass % 2 === 0;
    for (const layer of forward ? layers : [...layers].reverse()) {
      sortByNeighbours(layer, layers, forward ? "before" : "after", fixed);
    }
    const count = crossings(layers);
    if (count < fewest) {
      fewest = count;
      best = layers.map((layer) => [...layer]);
    }
  }
  return best;
}

/** Sorts a layer by the mean position of its neighbours; two known cells never change places. */
function sortByNeighbours(
  layer: Cell[],
  layers: Cell[][],
  side: "before" | "after",
  fixed: (one: Cell) => number | null,
) {
  const mean = new Map<Cell, number>();
  // All of them stand in the layer beside this one.
  const beside = layers[(layer[0]?.layer ?? 0) + (side === "before" ? -1 : 1)] ?? [];
  const position = new Map(beside.map((one, index) => [one, index]));
  layer.forEach((one, index) => {
    const neighbours = one[side].map((other) => position.get(other) ?? 0);
    const sum = neighbours.reduce((total, position) => total + position, 0);
    const scale = layer.length / Math.max(1, beside.length);
    mean.set(one, neighbours.length > 0 ? ((sum / neighbours.length) + 0.5) * scale : index + 0.5);
  });
  const kept = layer.filter((one) => fixed(one) !== null);
  layer.sort((a, b) => mean.get(a)! - mean.get(b)!);
  // Put the known ones back into their own order, in the places known ones have now.
  let next = 0;
  layer.forEach((one, index) => {
    if (fixed(one) !== null) layer[index] = kept[next++]!;
  });
}

function crossings(layers: Cell[][]): number {
  let count = 0;
  for (let index = 1; index < layers.length; index += 1) {
    const position = new Map(layers[index - 1]!.map((one, at) => [one, at]));
    // In the order of this layer: a link crosses those before it that end further on in the layer above.
    const ends = layers[index]!.map((one) => one.before.map((other) => position.get(other)!));
    count += inversions(ends, layers[index - 1]!.length);
  }
  return count;
}

/** Pairs of numbers from different lists of which the earlier one is larger; numbers below `size`. */
function inversions(lists: number[][], size: number): number {
  // Fenwick's tree: how many numbers up to one have been seen.
  const seen = new Int32Array(size + 1);
  let [total, count] = [0, 0];
  for (const list of lists) {
    for (const number of list) {
      let upTo = 0;
      for (let at = number + 1; at > 0; at -= at & -at) upTo += seen[at]!;
      count += total - upTo;
    }
    for (const number of list) {
      for (let at = number + 1; at <= size; at += at & -at) seen[at]! += 1;
      total += 1;
    }
  }
  return count;
}

/** Centres across the layers: each as near to its neighbours as its order allows. */
function place(layers: Cell[][], gap: number) {
  for (const layer of layers) settle(layer, () => 0, gap);
  for (let pass = 0; pass < 6; pass += 1) {
    for (const layer of pass % 2 === 0 ? layers : [...layers].reverse()) {
      settle(layer, (one) => {
        const around = [...one.before, ...one.after];
        return around.length > 0 ? around.reduce((sum, other) => sum + other.at, 0) / around.length : one.at;
      }, gap);
    }
  }
}

/** The positions nearest to the wished ones (least squares) with nothing overlapping. */
function settle(layer: Cell[], wish: (one: Cell) => number, gap: number) {
  interface Block { cells: Cell[]; sum: number; weight: number; size: number }
  const wishes = new Map(layer.map((one) => [one, wish(one)]));
  const blocks: Block[] = [];
  const offset = new Map<Cell, number>();
  for (const one of layer) {
    // A straight long edge is worth more than a centred box.
    const weight = one.dummy ? 2 : 1;
    offset.set(one, 0);
    let block: Block = { cells: [one], sum: weight * wishes.get(one)!, weight, size: 0 };
    while (blocks.length > 0) {
      const above = blocks.at(-1)!;
      const last = above.cells.at(-1)!;
      const apart = distance(last, block.cells[0]!, gap);
      if (above.sum / above.weight + offset.get(last)! + apart <= block.sum / block.weight) break;
      const shift = offset.get(last)! + apart;
      for (const moved of block.cells) {
        offset.set(moved, offset.get(moved)! + shift);
      }
      block = {
        cells: [...above.cells, ...block.cells],
        sum: above.sum + block.sum - shift * block.weight,
        weight: above.weight + block.weight,
        size: 0,
      };
      blocks.pop();
    }
    blocks.push(block);
  }
  for (const block of blocks) {
    for (const one of block.cells) one.at = block.sum / block.weight + offset.get(one)!;
  }
}

function distance(a: Cell, b: Cell, gap: number): number {
  return (a.across + b.across) / 2 + (a.dummy || b.dummy ? gap / 2 : gap);
}

/** From abstract positions to pixels. */
function draw(
  layers: Cell[][],
  chains: Map<string, Cell[]>,
  sizes: Map<string, LayoutNode>,
  layerGap: number,
  down: boolean,
): Layout {
  const all = layers.flat();
  const low = Math.min(0, ...all.map((one) => one.at - one.across / 2));
  const high = Math.max(0, ...all.map((one) => one.at + one.across / 2));
  const lows = Math.min(...all.map((one) => one.at - one.across / 2), high);
  const starts: number[] = [];
  const depths: number[] = [];
  let along = 0;
  for (const layer of layers) {
    starts.push(along);
    depths.push(Math.max(0, ...layer.map((one) => one.along)));
    along += depths.at(-1)! + layerGap;
  }
  const length = Math.max(0, along - layerGap);
  const base = Number.isFinite(lows) ? lows : low;
  const point = (a: number, c: number) => (down ? { x: c - base, y: a } : { x: a, y: c - base });

  const nodes = new Map<string, { x: number; y: number }>();
  for (const one of all.filter((each) => !each.dummy)) {
    nodes.set(one.id, point(starts[one.layer]!, one.at - one.across / 2));
  }
  const routes = new Map<string, { x: number; y: number }[]>();
  const ports = spread(chains);
  for (const [key, path] of chains) {
    const forward = path[0]!.layer < path.at(-1)!.layer;
    const points = path.flatMap((one, index) => {
      const from = starts[one.layer]!;
      const middle = depths[one.layer]!;
      if (one.dummy) return forward ? [point(from, one.at), point(from + middle, one.at)] : [point(from + middle, one.at), point(from, one.at)];
      const side = ports.get(`${key}@${index === 0 ? "out" : "in"}`) ?? 0;
      const outwards = (index === 0) === forward;
      return [point(outwards ? from + one.along : from, one.at + side)];
    });
    routes.set(key, points);
  }
  const across = high - base;
  return {
    nodes,
    layers: layers.map((layer) => layer.filter((one) => !one.dummy).map((one) => one.id)),
    routes,
    width: down ? across : length,
    height: down ? length : across,
    ...(sizes.size === 0 ? { width: 0, height: 0 } : {}),
  };
}

/** Where edges touch a node's side: a little apart, in the order of their other ends. */
function spread(chains: Map<string, Cell[]>): Map<string, number> {
  const sides = new Map<string, { key: string; towards: number; across: number }[]>();
  for (const [key, path] of chains) {
    const forward = path[0]!.layer < path.at(-1)!.layer;
    const ends = [
      { one: path[0]!, next: path[1]!, name: "out", high: forward },
      { one: path.at(-1)!, next: path.at(-2)!, name: "in", high: !forward },
    ];
    for (const { one, next, name, high } of ends) {
      const side = `${one.id}|${high}`;
      const list = sides.get(side) ?? [];
      list.push({ key: `${key}@${name}`, towards: next.at, across: one.across });
      sides.set(side, list);
    }
  }
  const ports = new Map<string, number>();
  for (const list of sides.values()) {
    list.sort((a, b) => a.towards - b.towards || (a.key < b.key ? -1 : 1));
    const room = Math.min(14, (list[0]!.across * 0.7) / list.length);
    list.forEach((end, index) => ports.set(end.key, (index - (list.length - 1) / 2) * room));
  }
  return ports;
}

/** An SVG path through the points: straight where two share a line, else an S-curve. */
export function curve(points: { x: number; y: number }[], down: boolean): string {
  const [first, ...rest] = points;
  if (!first) return "";
  let path = `M${first.x.toFixed(1)} ${first.y.toFixed(1)}`;
  let from = first;
  for (const to of rest) {
    const [dx, dy] = down ? [0, (to.y - from.y) / 2] : [(to.x - from.x) / 2, 0];
    path += ` C${(from.x + dx).toFixed(1)} ${(from.y + dy).toFixed(1)} ${(to.x - dx).toFixed(1)} ${(to.y - dy).toFixed(1)} ${to.x.toFixed(1)} ${to.y.toFixed(1)}`;
    from = to;
  }
  return path;
}
