// The rules in force: where they come from, what they are met by and do, and how often they did.

import { pace, query } from "../address";
import { useLive, type RuleRow, type RulesPage } from "../api";
import { Command } from "../command";
import { isOld, OldNote } from "../old";
import type { PageProps } from "../pages";
import { Waiting } from "../waiting";
import { over } from "../words";
import { Changes, OneRule, ruleTitle } from "./tables";

/** Seconds of the live page. */
const LIVE_WINDOW = 60;

export function RulesView({ address, go, stopped }: PageProps) {
  const live = useLive<RulesPage>(`/api/v1/rules?${query(address.range, LIVE_WINDOW)}`, pace(address.range) * 2, true);
  const { data } = live;
  const wanted = address.filter.find ?? "";
  const shown = data?.rules.filter((rule) => matches(rule, wanted)) ?? [];
  const note = data ? over(data.window, typeof address.range === "object") : "";
  return (
    <main class={`list-page ${stopped || isOld(live) ? "stale" : ""}`}>
      <div class="service-title">
        <h1>Rules</h1>
        <span class="kind-words">in force now; what they decided {note || "…"}</span>
        <label class="find">
          <span>Filter</span>
          <input
            type="search"
            value={wanted}
            placeholder="kind, name, service or text"
            onInput={(event) => go({ filter: { ...address.filter, find: event.currentTarget.value } }, true)}
          />
        </label>
      </div>
      <OldNote live={live} />
      {!data && <Waiting refused={live.status >= 400 ? live.error : null} />}
      {data && !data.known && <p class="note">The control plane has not told its rules yet.</p>}
      {data?.known && data.rules.length === 0 && (
        <div class="empty">
          <h1>No rules are in force</h1>
          <p>Every call goes where its service is. Rules are files; put one in force:</p>
          <Command text={`heddle apply --mesh ${data.mesh} -f FILE.yaml`} />
        </div>
      )}
      {data && data.rules.length > 0 && shown.length === 0 && <p class="note">No rule with “{wanted}”.</p>}
      {data && <Changes rows={data.changes} note={note} />}
      {shown.map((rule) => (
        <OneRule key={`${ruleTitle(rule)} ${rule.source}`} rule={rule} address={address} />
      ))}
    </main>
  );
}

/** Is the text in its kind, name, source, text, or in the name of whom it is about? */
export function matches(rule: RuleRow, text: string): boolean {
  const wanted = text.trim().toLowerCase();
  const services = rule.services.map((service) => `${service.name}.${service.namespace}`);
  const all = [rule.kind, rule.namespace, rule.name, rule.source, rule.text, ...services];
  return wanted === "" || all.some((one) => one.toLowerCase().includes(wanted));
}
