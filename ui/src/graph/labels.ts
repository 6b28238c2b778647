// Where the words of a line stand: on the line, but on no service and on no other words.

export interface Box {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

export interface Point {
  x: number;
  y: number;
}

interface Wanted {
  key: string;
  /** Along the line. */
  points: Point[];
  width: number;
  height: number;
}

/** Shares of the line's length at which words may stand, the best first. */
const PLACES = [0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8, 0.12, 0.88];
/** Pixels beside the line that are tried at each of them. */
const BESIDE = [0, -14, 14, -26, 26, -40, 40, -56, 56];

/**
 * The centre of each label. One that has no free place stands where it hides least; labels are placed in the given
 * order, so that the same picture has them at the same places.
 */
export function placeLabels(wanted: Wanted[], services: Box[]): Map<string, Point> {
  const placed = new Map<string, Point>();
  const taken: Box[] = [...services];
  for (const { key, points, width, height } of wanted) {
    if (points.length === 0) continue;
    let best: Point | null = null;
    let least = Infinity;
    search: for (const place of PLACES) {
      const on = along(points, place);
      for (const beside of BESIDE) {
        const at = { x: on.x, y: on.y + beside };
        const hidden = hides(boxAt(at, width, height), taken);
        if (hidden < least) [best, least] = [at, hidden];
        if (hidden === 0) break search;
      }
    }
    if (!best) continue;
    placed.set(key, best);
    taken.push(boxAt(best, width, height));
  }
  return placed;
}

function boxAt({ x, y }: Point, width: number, height: number): Box {
  return { left: x - width / 2, top: y - height / 2, right: x + width / 2, bottom: y + height / 2 };
}

/** Square pixels that a box shares with others. */
function hides(box: Box, others: Box[]): number {
  let sum = 0;
  for (const other of others) {
    const width = Math.min(box.right, other.right) - Math.max(box.left, other.left);
    const height = Math.min(box.bottom, other.bottom) - Math.max(box.top, other.top);
    if (width > 0 && height > 0) sum += width * height;
  }
  return sum;
}

/** The point at a share of a line's length. */
export function along(points: Point[], share: number): Point {
  const lengths = points.slice(1).map((point, index) => Math.hypot(point.x - points[index]!.x, point.y - points[index]!.y));
  let left = lengths.reduce((sum, length) => sum + length, 0) * share;
  for (const [index, length] of lengths.entries()) {
    if (left <= length) {
      const part = length > 0 ? left / length : 0;
      const [a, b] = [points[index]!, points[index + 1]!];
      return { x: a.x + (b.x - a.x) * part, y: a.y + (b.y - a.y) * part };
    }
    left -= length;
  }
  return points.at(-1)!;
}
