// Which scale an axis of values has.

/** From which ratio of the highest to the lowest value on a linear scale hides the lower ones. */
const SPAN = 50;

/** Do the values span more than a linear scale can show? */
export function spans(rows: (number | null)[][]): boolean {
  const values = rows.flat().filter((value): value is number => value !== null && value > 0);
  return values.length > 0 && Math.max(...values) / Math.min(...values) >= SPAN;
}

/** Whole powers of ten around the values. */
export function decades(min: number | null, max: number | null): [number, number] {
  const [low, high] = [Math.max(min ?? 1, 1e-3), Math.max(max ?? 1, 1e-3)];
  const bottom = 10 ** Math.floor(Math.log10(low));
  return [bottom, Math.max(10 ** Math.ceil(Math.log10(high)), bottom * 10)];
}
