// One style of table for all pages.

import type { ComponentChildren } from "preact";

export function Box(props: { title: string; note?: string; empty: string; rows: number; children: ComponentChildren }) {
  return (
    <section class="table-box">
      <h2>
        {props.title} {props.note && <small>{props.note}</small>}
      </h2>
      {props.rows === 0 ? (
        <p class="note">{props.empty}</p>
      ) : (
        <div class="scroll" tabIndex={0} role="region" aria-label={props.title}>
          <table class="numbers">{props.children}</table>
        </div>
      )}
    </section>
  );
}

export function Head({ texts, numbers }: { texts: string[]; numbers: string[] }) {
  return (
    <thead>
      <tr>
        {texts.map((name) => (
          <th key={name} scope="col" class="text">{name}</th>
        ))}
        {numbers.map((name) => (
          <th key={name} scope="col">{name}</th>
        ))}
      </tr>
    </thead>
  );
}

/** A number with its share of the largest one as a bar below it. */
export function Bar({ value, most, children }: { value: number; most: number; children: ComponentChildren }) {
  return (
    <td class="with-bar">
      {children}
      <span class="bar" aria-hidden="true">
        <i style={{ width: `${most > 0 ? Math.max(1, (value / most) * 100) : 0}%` }} />
      </span>
    </td>
  );
}
