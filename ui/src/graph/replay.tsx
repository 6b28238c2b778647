// The last hour again: where in it the graph is, and a way to let it run.

import { useEffect, useState } from "preact/hooks";
import { clock } from "../format";

/** Seconds of the past that can be seen again. */
export const REACH = 3600;
/** Seconds of a picture: the store's slots of that time hold the hour. */
export const STEP = 10;
/** Milliseconds between two pictures while it runs. */
const PACE = 400;

interface Props {
  /** Unix time of the newest measurement, seconds. */
  newest: number;
  /** Unix time of the picture shown. */
  at: number;
  show: (at: number) => void;
  close: () => void;
}

export function Replay({ newest, at, show, close }: Props) {
  const [running, setRunning] = useState(false);
  const first = whole(newest - REACH);
  const last = whole(newest);
  useEffect(() => {
    if (!running) return;
    if (at >= last) {
      setRunning(false);
      return;
    }
    const timer = window.setTimeout(() => show(Math.min(last, at + STEP)), PACE);
    return () => window.clearTimeout(timer);
  }, [running, at, last]);
  const begin = () => {
    if (!running && at >= last) show(first);
    setRunning(!running);
  };
  return (
    <div class="replay" role="group" aria-label="The last hour again">
      <button type="button" class="primary" onClick={begin} aria-label={running ? "Stop" : "Run"}>
        {running ? "❚❚" : "▶"}
      </button>
      <input
        type="range"
        min={first}
        max={last}
        step={STEP}
        value={at}
        aria-label="Time of the picture"
        aria-valuetext={clock(at, true)}
        onInput={(event) => {
          setRunning(false);
          show(Number(event.currentTarget.value));
        }}
      />
      <output>{clock(at, true)}</output>
      <button type="button" class="quiet" onClick={close}>
        Back to now
      </button>
    </div>
  );
}

/** The beginning of the picture that a time is in. */
export function whole(at: number): number {
  return Math.floor(at / STEP) * STEP;
}

/** The time in the address, if it is one. */
export function replayed(filter: Record<string, string>): number | null {
  return /^\d{1,12}$/.test(filter.at ?? "") ? Number(filter.at) : null;
}
