// The frame: one thin header, a banner when something is stale, and the page.

import { useEffect, useRef } from "preact/hooks";
import { pace, query, useAddress } from "./address";
import { useLive, type Graph } from "./api";
import { clock } from "./format";
import { Header } from "./header";
import { useKeys } from "./keys";
import { Missing } from "./missing";
import { PAGES, pageOf } from "./pages";

/** Seconds without a new measurement after which the picture counts as stale. */
const STALE_AFTER = 10;
/** Seconds of the live picture. */
const LIVE_WINDOW = 10;

export function App() {
  const [address, go] = useAddress();
  const page = pageOf(address);
  const onGraph = page?.path === "";
  useKeys(address, page?.twofold ?? false, go);
  // The header always tells of now; the graph of the period chosen. On the live graph both are one.
  const live = onGraph && address.range === "live";
  const now = useLive<Graph>(`/api/v1/graph?window=${LIVE_WINDOW}`, live ? 1000 : 5000);
  const chosen = useLive<Graph>(
    `/api/v1/graph?${query(address.range, LIVE_WINDOW)}`,
    live || !onGraph ? 0 : pace(address.range),
    true,
  );
  const graph = live ? now : chosen;
  useEffect(() => {
    const mesh = now.data?.mesh;
    const place = page?.title(address) ?? "no such page";
    document.title = mesh ? `${place} · ${mesh} · Heddle` : "Heddle";
  }, [now.data?.mesh, page, address]);
  const unreachable = now.error !== null;
  // Told by this machine's clock alone: the mesh's may differ.
  const moved = useRef({ at: 0, since: 0 });
  if (now.data && now.data.at !== moved.current.at) moved.current = { at: now.data.at, since: now.received };
  const stopped = !unreachable && now.received - moved.current.since > STALE_AFTER * 1000;
  return (
    <div class="app">
      <Header live={now} pages={PAGES} address={address} go={go} stale={unreachable || stopped} />
      <div class="banners" role="status" aria-live="polite">
        {unreachable && (
          <p class="banner">
            <b>Cannot reach the dashboard’s server.</b>{" "}
            {!now.data && "There is nothing to show yet. "}
            Is the mesh still up? Try <code>heddle status</code>. This page keeps trying.
          </p>
        )}
        {stopped && now.data && (
          <p class="banner">
            <b>No new measurements since {clock(now.data.at, true)}.</b> The server answers, but it has
            not scraped a sidecar; the numbers below are old.
          </p>
        )}
      </div>
      {page ? (
        <page.view address={address} go={go} now={now} graph={graph} stopped={stopped} />
      ) : (
        <Missing address={address} pages={PAGES} />
      )}
    </div>
  );
}
