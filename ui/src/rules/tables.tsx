// Rules as tables: what each is met by, what it does, and how often it did; also on the page of a service.

import { link, type Address } from "../address";
import { type PathRow, type RuleChange, type RulePart, type RuleRow, type TemplateRow } from "../api";
import { clock, duration, NONE, percent, rate } from "../format";
import { Bar, Box, Head } from "../table";
import { faultAsked, faultMeasured, health, title } from "../words";

/** Where an object comes from: a file with its line, or who applied it. */
export function sourceOf({ source, line }: Pick<RuleRow, "source" | "line">): string {
  if (source === "apply") return "heddle apply";
  return line > 0 ? `${source}:${line}` : source;
}

/** `kind namespace/name`, the namespace only where it is not the default one. */
export function ruleTitle({ kind, namespace, name }: Pick<RuleRow, "kind" | "namespace" | "name">): string {
  return namespace === "default" || namespace === "" ? `${kind} ${name}` : `${kind} ${namespace}/${name}`;
}

const STATES: Record<string, [string, string]> = {
  Programmed: ["well", "in force"],
  Partial: ["degraded", "in force, a part of it not"],
  NotEnforced: ["degraded", "not enforced"],
  Dangling: ["failing", "leads to something absent"],
  Conflicted: ["failing", "another source has it"],
  Invalid: ["failing", "invalid; the last good version holds"],
};

/** An object with its rules, and its text on request. */
export function OneRule({ rule, address, bare }: { rule: RuleRow; address: Address; bare?: boolean }) {
  const [state, words] = STATES[rule.state] ?? ["degraded", rule.state];
  const most = Math.max(0, ...rule.parts.map((part) => part.rates.per_second));
  return (
    <section class={`rule table-box ${state}`} aria-label={ruleTitle(rule)}>
      <header>
        <h2>
          <i class={`dot ${state}`} aria-hidden="true" /> {ruleTitle(rule)}
        </h2>
        <span class="state">{words}</span>
        <span class="from">{sourceOf(rule)}</span>
        {!bare && rule.services.length > 0 && (
          <span class="about">
            about{" "}
            {rule.services.slice(0, 6).map((service, index) => (
              <span key={`${service.namespace}/${service.name}`}>
                {index > 0 && ", "}
                <a href={link(address, { service })}>{title(service)}</a>
              </span>
            ))}
            {rule.services.length > 6 && ` and ${rule.services.length - 6} more`}
          </span>
        )}
      </header>
      {rule.notes.map((note) => (
        <p key={note} class="note">{note}</p>
      ))}
      {rule.parts.length > 0 && (
        <div class="scroll" tabIndex={0} role="region" aria-label={`Rules of ${ruleTitle(rule)}`}>
          <table class="numbers">
            <Head texts={["Rule", "Met by", "Does"]} numbers={["Decided", "Success", "p50", "p99"]} />
            <tbody>
              {rule.parts.map((part) => (
                <Part key={part.name} part={part} most={most} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      <details>
        <summary>As it was written</summary>
        <pre class="scroll" tabIndex={0}>{rule.text}</pre>
      </details>
    </section>
  );
}

function Part({ part, most }: { part: RulePart; most: number }) {
  const { rates } = part;
  return (
    <tr class={part.counted ? health(rates) : ""}>
      <td class="text">{part.name}</td>
      <td class="text wrap">{part.matches}</td>
      <td class="text wrap">
        {part.does || (part.faults.length === 0 && NONE)}
        {part.faults.map((fault) => {
          const measured = faultMeasured(fault.what, rates);
          return (
            <small key={fault.what} class="words">
              fault: {faultAsked(fault)} {fault.detail && `(${fault.detail})`}
              {measured !== null && `, ${percent(measured)} measured`}
            </small>
          );
        })}
      </td>
      {!part.counted ? (
        <td colSpan={4}>not counted</td>
      ) : rates.per_second === 0 ? (
        <td colSpan={4}>has decided nothing</td>
      ) : (
        <>
          <Bar value={rates.per_second} most={most}>{rate(rates.per_second)}/s</Bar>
          <td>{percent(rates.success)}</td>
          <td>{duration(rates.p50_ms)}</td>
          <td>{duration(rates.p99_ms)}</td>
        </>
      )}
    </tr>
  );
}

/** The paths of a service, as far as rules tell them apart. */
export function Paths({ rows, note }: { rows: PathRow[]; note: string }) {
  const most = Math.max(0, ...rows.map((row) => row.rates.per_second));
  const empty = "No rule decided about a call in this period: all went where the service is, and are counted together.";
  return (
    <Box title="Paths" note={`by the rule that decided, as the callers saw them, ${note}`} empty={empty} rows={rows.length}>
      <Head texts={["Met by", "Rule"]} numbers={["Rate", "Errors", "4xx", "On purpose", "p50", "p99"]} />
      <tbody>
        {rows.map((row) => (
          <tr key={row.rule} class={health(row.rates)}>
            <td class="text wrap">{row.in_force ? row.matches : <small>its rule is not in force any more</small>}</td>
            <td class="text wrap">{row.rule}</td>
            <Bar value={row.rates.per_second} most={most}>{rate(row.rates.per_second)}/s</Bar>
            <td>{percent(1 - row.rates.success)}</td>
            <td>{rate(row.rates.client_errors_per_second)}/s</td>
            <td>{rate(row.rates.injected_per_second)}/s</td>
            <td>{duration(row.rates.p50_ms)}</td>
            <td>{duration(row.rates.p99_ms)}</td>
          </tr>
        ))}
      </tbody>
    </Box>
  );
}

/** What stands for paths that have no row of their own. */
const TOGETHER = new Map([
  ["unknown", "paths that were answered with 4xx only"],
  ["overflow", "further paths"],
]);

/** The paths of a service by their templates, whatever rules there are. */
export function Templates({ rows, note }: { rows: TemplateRow[]; note: string }) {
  const most = Math.max(0, ...rows.map((row) => row.rates.per_second));
  const empty = "Nobody asked a workload of it for a path in this period; of what has no sidecar, paths are not told.";
  return (
    <Box title="Paths by template" note={`numbers and ids as {id}, as its own sidecars saw them, ${note}`} empty={empty} rows={rows.length}>
      <Head texts={["Path"]} numbers={["Rate", "Errors", "4xx", "On purpose", "p50", "p99"]} />
      <tbody>
        {rows.map((row) => (
          <tr key={row.path} class={health(row.rates)}>
            <td class="text wrap">{TOGETHER.has(row.path) ? <small>{TOGETHER.get(row.path)}</small> : row.path}</td>
            <Bar value={row.rates.per_second} most={most}>{rate(row.rates.per_second)}/s</Bar>
            <td>{percent(1 - row.rates.success)}</td>
            <td>{rate(row.rates.client_errors_per_second)}/s</td>
            <td>{rate(row.rates.injected_per_second)}/s</td>
            <td>{duration(row.rates.p50_ms)}</td>
            <td>{duration(row.rates.p99_ms)}</td>
          </tr>
        ))}
      </tbody>
    </Box>
  );
}

/** What a change was, in words. */
export function changeWords(change: RuleChange): string {
  const done = { created: "was put in force", configured: "was changed", deleted: "was taken away" }[change.action];
  return `${change.rule} ${done ?? change.action}`;
}

export function Changes({ rows, note }: { rows: RuleChange[]; note: string }) {
  if (rows.length === 0) return null;
  return (
    <Box title="Changes of rules" note={note} empty="" rows={rows.length}>
      <Head texts={["When", "What", "From"]} numbers={[]} />
      <tbody>
        {rows.map((row) => (
          <tr key={`${row.at} ${row.rule} ${row.source}`}>
            <td class="text">{clock(row.at, true)}</td>
            <td class="text wrap">{changeWords(row)}</td>
            <td class="text wrap">{sourceOf({ source: row.source, line: 0 })}</td>
          </tr>
        ))}
      </tbody>
    </Box>
  );
}
