// How large the picture is: as the layout wants it, or as somebody asks by buttons, keys or the wheel.

import { useLayoutEffect, useState } from "preact/hooks";

const SMALLEST = 0.08;
const LARGEST = 2.5;
const STEP = 1.25;
/** Pixels below the picture that a whole view leaves for the legend. */
const BELOW = 72;
/** Pixels around the picture. */
const MARGIN = 16;

export interface Zoom {
  scale: number;
  by: (factor: number) => void;
  fit: () => void;
  /** Back to what the layout wants; null where that is shown. */
  reset: (() => void) | null;
}

interface Picture {
  drawn: { width: number; height: number };
  scale: number;
}

export function useZoom(frame: { current: HTMLElement | null }, picture: Picture): Zoom {
  const [asked, setAsked] = useState<number | null>(null);
  const scale = asked ?? picture.scale;
  const by = (factor: number) => setAsked(Math.min(LARGEST, Math.max(SMALLEST, scale * factor)));
  const fit = () => {
    const element = frame.current;
    if (!element) return;
    const height = window.innerHeight - element.getBoundingClientRect().top - window.scrollY - BELOW;
    const across = element.clientWidth / (picture.drawn.width + 2 * MARGIN);
    const along = Math.max(120, height) / (picture.drawn.height + 2 * MARGIN);
    setAsked(Math.min(1, Math.max(SMALLEST, Math.min(across, along))));
  };
  useLayoutEffect(() => {
    const key = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (target.matches("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "+") by(STEP);
      else if (event.key === "-") by(1 / STEP);
      else if (event.key === "0") fit();
    };
    const wheel = (event: WheelEvent) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      by(event.deltaY < 0 ? STEP : 1 / STEP);
    };
    document.addEventListener("keydown", key);
    // Not passive: with the key held the browser would enlarge the whole page.
    const element = frame.current;
    element?.addEventListener("wheel", wheel, { passive: false });
    return () => {
      document.removeEventListener("keydown", key);
      element?.removeEventListener("wheel", wheel);
    };
  });
  return { scale, by, fit, reset: asked === null ? null : () => setAsked(null) };
}

export function ZoomButtons({ zoom }: { zoom: Zoom }) {
  return (
    <div class="zoom" role="group" aria-label="Size of the picture">
      <button type="button" onClick={() => zoom.by(1 / STEP)} aria-label="Smaller">−</button>
      <button type="button" onClick={() => zoom.by(STEP)} aria-label="Larger">+</button>
      <button type="button" onClick={zoom.fit}>Fit</button>
      {zoom.reset && <button type="button" onClick={zoom.reset}>Reset</button>}
    </div>
  );
}
