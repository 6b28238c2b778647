// What happened besides traffic: changes of rules and workloads taken out, marked on every chart and told once in words.

import type { ServicePage } from "../api";
import { clock } from "../format";
import { changeWords } from "../rules/tables";
import { ejectedBecause } from "../words";

export interface Mark {
  /** Unix time, seconds. */
  at: number;
  kind: "rule" | "out";
  text: string;
}

/** Marks in the order of time, within the period of the page. */
export function marksOf(page: ServicePage): Mark[] {
  const rules = page.changes.map((change) => ({ at: change.at, kind: "rule" as const, text: changeWords(change) }));
  const out = page.ejections.map((one) => ({
    at: one.since,
    kind: "out" as const,
    text: `${one.endpoint} was taken out by ${one.by}: ${ejectedBecause(one.reason)}`,
  }));
  const within = (mark: Mark) => mark.at > page.at - page.window && mark.at <= page.at;
  return [...rules, ...out].filter(within).sort((a, b) => a.at - b.at);
}

export function MarkList({ marks }: { marks: Mark[] }) {
  if (marks.length === 0) return null;
  return (
    <ul class="marks" aria-label="Marked on the charts">
      {marks.map((mark) => (
        <li key={`${mark.at} ${mark.text}`} class={mark.kind}>
          <i aria-hidden="true" /> <span class="when">{clock(mark.at, true)}</span> {mark.text}
        </li>
      ))}
    </ul>
  );
}
