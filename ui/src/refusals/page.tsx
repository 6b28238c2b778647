// What the mesh itself refused, and why; names that nobody has; who is out for its errors.

import { pace, query } from "../address";
import { useLive, type RefusalsPage } from "../api";
import { isOld, OldNote } from "../old";
import type { PageProps } from "../pages";
import { Ejected } from "../service/tables";
import { Waiting } from "../waiting";
import { over } from "../words";
import { Names, Refused, WithoutTls } from "./tables";

/** Seconds of the live page: a refusal a minute ago is still worth a look. */
const LIVE_WINDOW = 300;

export function RefusalsView({ address, stopped }: PageProps) {
  const live = useLive<RefusalsPage>(`/api/v1/refusals?${query(address.range, LIVE_WINDOW)}`, pace(address.range) * 2, true);
  const { data } = live;
  const past = typeof address.range === "object";
  const note = data ? over(data.window, past) : "";
  return (
    <main class={`list-page ${stopped || isOld(live) ? "stale" : ""}`}>
      <div class="service-title">
        <h1>Refusals</h1>
        <span class="kind-words">what the mesh itself answered or refused, {note || "…"}</span>
      </div>
      <OldNote live={live} />
      {!data && <Waiting refused={live.status >= 400 ? live.error : null} />}
      {data && (
        <>
          <Refused rows={data.refusals} address={address} note={note} />
          <Names rows={data.names} address={address} note={note} />
          <Ejected rows={past ? [] : data.ejections} />
          <WithoutTls rows={past ? [] : data.tls} />
          {data.refusals.length > 0 && (
            <p class="hint">
              A refused request carries <code>x-heddle-refusal</code> with the code, whose sidecar it was, and the rule.
            </p>
          )}
        </>
      )}
    </main>
  );
}
