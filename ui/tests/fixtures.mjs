// Canned answers of the dashboard's API: the demo's services on a calm day, in trouble, and empty.

export const NOW = Math.floor(Date.now() / 1000);

const name = (service) => ({ namespace: "default", name: service });

export function rates(perSecond, more = {}) {
  const idle = perSecond === 0;
  return {
    per_second: perSecond,
    success: 1,
    client_errors_per_second: 0,
    server_errors_per_second: 0,
    injected_per_second: 0,
    delayed_per_second: 0,
    p50_ms: idle ? null : 3.4,
    p90_ms: idle ? null : 9.1,
    p99_ms: idle ? null : 24,
    ...more,
  };
}

function failing(perSecond, share, more = {}) {
  return rates(perSecond, { success: 1 - share, server_errors_per_second: perSecond * share, ...more });
}

function node(service, kind, own, more = {}) {
  return {
    service: name(service),
    kind,
    rates: own,
    client: own,
    bytes_per_second: 0,
    versions: kind === "client" || kind === "outside" ? [] : [{ version: "v1", share: 1, rates: own }],
    failing_since: null,
    cause: null,
    faults: [],
    addresses: [`240.240.0.${10 + service.length}`, `240.241.0.${10 + service.length}`],
    ...more,
  };
}

function edge(source, destination, client, server = client, more = {}) {
  return {
    source: name(source),
    destination: typeof destination === "string" ? name(destination) : destination,
    protocol: "http",
    client,
    server,
    sent_bytes_per_second: 0,
    received_bytes_per_second: 0,
    ...more,
  };
}

const versions = (total, ...shares) =>
  shares.map((share, index) => ({ version: `v${index + 1}`, share, rates: rates(total * share) }));

/** The demo, well. */
export function calm(at = NOW) {
  const slower = (r) => ({ ...r, p50_ms: 5.2, p90_ms: 14, p99_ms: 41 });
  return {
    mesh: "demo",
    at,
    window: 10,
    nodes: [
      node("frontend", "http", rates(42.4)),
      node("load", "client", rates(0)),
      node("photos", "http", rates(21.2)),
      node("ratings", "http", rates(28.1)),
      node("restaurants", "http", rates(42.4)),
      node("reviews", "http", rates(42.4), { versions: versions(42.4, 0.34, 0.33, 0.33) }),
      node("store", "tcp", rates(0.8, { p50_ms: null, p90_ms: null, p99_ms: null }), { bytes_per_second: 48_200 }),
      { ...node("x", "outside", rates(1.1)), service: { namespace: "", name: "maps.example.com" }, addresses: [] },
    ],
    edges: [
      edge("frontend", "photos", slower(rates(21.2)), rates(21.2)),
      edge("frontend", "restaurants", slower(rates(42.4)), rates(42.4)),
      edge("frontend", "reviews", slower(rates(42.4)), rates(42.4)),
      edge("frontend", { namespace: "", name: "maps.example.com" }, rates(1.1), rates(0)),
      edge("load", "frontend", { ...rates(42.4), p50_ms: 18, p90_ms: 44, p99_ms: 96 }, { ...rates(42.4), p50_ms: 15, p90_ms: 41, p99_ms: 92 }),
      edge("restaurants", "store", rates(0.8, { p50_ms: null, p90_ms: null, p99_ms: null }), undefined, {
        protocol: "tcp",
        sent_bytes_per_second: 8_200,
        received_bytes_per_second: 40_000,
      }),
      edge("reviews", "ratings", slower(rates(28.1)), rates(28.1)),
    ],
    coverage: { sidecars: 10, scraped: 10, control: true },
    ejections: [],
    changes: [],
  };
}

/** A fault rule that aborts calls to `service`. */
export function fault(service, percent) {
  return { what: "abort", percent, detail: "503", rule: `VirtualService/default/${service}#http[0]`, partly: false };
}

/** The demo while ratings fails, reviews v3 suffers, and photos has faults injected. */
export function trouble(at = NOW) {
  const graph = calm(at);
  const of = (service) => graph.nodes.find((one) => one.service.name === service);
  Object.assign(of("ratings"), {
    rates: failing(28.1, 0.12),
    client: failing(28.4, 0.14),
    failing_since: at - 1200,
  });
  const cause = { path: [name("reviews"), name("ratings")], failed: 0.14, injected: 0 };
  Object.assign(of("reviews"), { rates: failing(42.4, 0.03), client: failing(42.4, 0.03), failing_since: at - 1190, cause });
  const aborted = { injected_per_second: 16.9, success: 1 };
  Object.assign(of("photos"), { rates: rates(4.3), client: rates(21.2, aborted), faults: [fault("photos", 80)] });
  for (const one of graph.edges) {
    const [from, to] = [one.source.name, one.destination.name];
    if (to === "ratings") Object.assign(one, { client: failing(28.4, 0.14, { p99_ms: 180 }), server: failing(28.1, 0.12, { p99_ms: 60 }) });
    if (from === "frontend" && to === "reviews") Object.assign(one, { client: failing(42.4, 0.03), server: failing(42.4, 0.03) });
    if (to === "photos") Object.assign(one, { client: rates(21.2, aborted), server: rates(4.3) });
  }
  graph.ejections = ["frontend-v1-x1", "frontend-v1-x2"].map((by) => ({
    by,
    service: name("reviews"),
    port: 80,
    subset: "",
    endpoint: "reviews-v3-k2",
    address: "240.241.0.17:80",
    reason: "consecutive5xxErrors",
    rule: "DestinationRule/default/reviews#trafficPolicy",
    since: at - 25,
    until: at + 5,
  }));
  return graph;
}

export function empty(at = NOW) {
  return { mesh: "demo", at, window: 10, nodes: [], edges: [], coverage: { sidecars: 0, scraped: 0, control: true }, ejections: [], changes: [] };
}

function summary(service, kind, client, server, bytes = 0) {
  return {
    service: name(service),
    kind,
    client,
    server,
    sent_bytes_per_second: bytes * 0.2,
    received_bytes_per_second: bytes * 0.8,
  };
}

/** A page of `reviews`: `bad` of its calls fail in the second half of the period. */
export function page(bad = 0, at = NOW, window = 60) {
  const step = window / 60;
  const wave = (index, size) => size * (1 + 0.12 * Math.sin(index / 4) + 0.05 * Math.cos(index * 1.7));
  const series = Array.from({ length: 60 }, (_, index) => {
    const all = wave(index, 42.4);
    const share = index > 30 ? bad : 0;
    const side = (slower, injected) =>
      rates(all, {
        success: 1 - share,
        server_errors_per_second: all * share,
        client_errors_per_second: all * 0.04,
        injected_per_second: injected * all,
        p50_ms: wave(index, 4 + slower),
        p90_ms: wave(index + 3, 12 + slower * 2),
        p99_ms: wave(index * 2, 31 + slower * 4) * (share > 0 ? 2.2 : 1),
      });
    return {
      at: at - window + (index + 1) * step,
      client: side(1.5, bad > 0 ? 0.1 : 0),
      server: side(0, 0),
      in_flight: Math.max(0, wave(index * 3, 0.4)),
      bytes_per_second: 0,
    };
  }).filter((_, index) => index < 12 || index > 16);
  const client = bad > 0 ? failing(42.4, bad, { p99_ms: 74, client_errors_per_second: 1.7, injected_per_second: 4.2 }) : rates(42.4, { p99_ms: 36, client_errors_per_second: 1.7 });
  const server = bad > 0 ? failing(42.4, bad * 0.82, { p99_ms: 66 }) : rates(42.4);
  return {
    summary: summary("reviews", "http", client, server),
    previous: summary("reviews", "http", rates(38.1, { p99_ms: 33 }), rates(38.1)),
    series,
    callers: [edge("frontend", "reviews", client, server)],
    callees: [edge("reviews", "ratings", bad > 0 ? failing(28.4, 0.14, { p99_ms: 180 }) : rates(28.1), bad > 0 ? failing(28.1, 0.12) : rates(28.1))],
    versions: versions(42.4, 0.34, 0.33, 0.33),
    workloads: ["v1", "v2", "v3"].map((version, index) => ({
      id: `reviews-${version}-${"a3f"[index]}7${index}e`,
      version,
      address: `240.241.0.${12 + index}`,
      scraped: true,
      in_flight: index,
      rates: rates(14 - index * 0.4),
      present: true,
    })),
    mesh: "demo",
    at,
    window,
    step,
    previous_measured: 1,
    responses: [
      { code: 200, flags: "-", client_per_second: 38, server_per_second: 38 },
      ...(bad > 0
        ? [
            { code: 503, flags: "FI", client_per_second: 4.2, server_per_second: 0 },
            { code: 500, flags: "-", client_per_second: 42.4 * bad, server_per_second: 42.4 * bad },
            { code: 0, flags: "DC", client_per_second: 0.2, server_per_second: 0.2 },
          ]
        : []),
      { code: 404, flags: "-", client_per_second: 1.7, server_per_second: 1.7 },
    ],
    failing_since: bad > 0 ? at - 29 : null,
    cause: bad > 0 ? { path: ["reviews", "ratings", "store"].map(name), failed: 0.14, injected: 0 } : null,
    faults: bad > 0 ? [fault("reviews", 10)] : [],
    first:
      bad > 0
        ? [
            `${Math.round(bad * 100)} % of the calls fail.`,
            "The service answers with errors because another one fails it.",
            "The cause is store (reviews → ratings → store): 14 % of the calls to it fail. Look there first.",
          ]
        : [],
    on_purpose:
      bad > 0
        ? [
            "The rule VirtualService/default/reviews#http[0] asks for abort 10 % (503).",
            "9.9 % of the calls are aborted on purpose by a fault rule; none of that counts as an error here.",
          ]
        : [],
    lost_contexts: bad > 0 ? ["reviews-v1-a370 does not pass trace headers on: 12 of its calls had none while it served one that had. Its traces end there."] : [],
    paths: [path("path /reviews*", 0, 30.1), path("all", 1, 12.3)],
    templates: [["/reviews/{id}", 40.2], ["/health", 2], ["unknown", 0.4]].map(([path, per]) => ({ path, rates: rates(per) })),
    rules: [rule("reviews", bad > 0 ? 10 : 0)],
    changes: bad > 0 ? [{ at: at - 30, action: "configured", rule: "VirtualService/default/reviews", source: "apply", services: [name("reviews")] }] : [],
    refusals: [],
    names: [],
    ejections: [],
  };
}

function path(matches, place, perSecond) {
  return { rule: `VirtualService/default/reviews#http[${place}]`, matches, in_force: true, rates: rates(perSecond) };
}

/** A VirtualService about `service`, with two rules. */
export function rule(service, percent = 0, more = {}) {
  const part = (at, matches, perSecond, faults) => ({
    name: `http[${at}]`,
    line: 8 + at * 4,
    matches,
    does: `to ${service}; timeout 2 s`,
    faults,
    counted: true,
    rates: rates(perSecond, { injected_per_second: (perSecond * percent) / 100 }),
  });
  return {
    kind: "VirtualService",
    namespace: "default",
    name: service,
    source: "/etc/rules/reviews.yaml",
    line: 1,
    state: "Programmed",
    notes: [],
    services: [name(service)],
    parts: [part(0, "path /reviews*", 30.1, percent > 0 ? [fault(service, percent)] : []), part(1, "all", 0, [])],
    text: `apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: ${service}\nspec:\n  hosts: [${service}]\n`,
    ...more,
  };
}

/** The page of all rules. */
export function rules(at = NOW, window = 60) {
  const breaker = {
    name: "trafficPolicy",
    line: 0,
    matches: "all",
    does: "out for 10 s after 3 5xx in a row, at most 50 %",
    faults: [],
    counted: false,
    rates: rates(0),
  };
  return {
    mesh: "demo",
    at,
    window,
    known: true,
    rules: [
      rule("reviews", 10),
      rule("specials", 0, { kind: "DestinationRule", source: "apply", parts: [breaker] }),
      rule("nobody", 0, { state: "Dangling", notes: ["spec.http[0].route[0]: no service nobody"] }),
    ],
    changes: [{ at: at - 20, action: "configured", rule: "VirtualService/default/reviews", source: "apply", services: [name("reviews")] }],
  };
}

/** What was refused, with names that try to be markup. */
export function refusals(at = NOW, window = 300) {
  return {
    mesh: "demo",
    at,
    window,
    refusals: [
      { by: "frontend-v1-x1", service: name("frontend"), direction: "outbound", code: "no-route", count: 31 },
      { by: "reviews-v1-a1", service: name("reviews"), direction: "inbound", code: "fault-abort", count: 8 },
    ],
    names: [
      { by: "frontend-v1-x1", service: name("frontend"), name: "leaf-1.defalt", answer: "NXDOMAIN", count: 12, last: at - 4, did_you_mean: "leaf-1.default" },
      { by: "frontend-v1-x1", service: name("frontend"), name: "<img src=x onerror=alert(1)>", answer: "NXDOMAIN", count: 1, last: at - 9, did_you_mean: null },
    ],
    tls: [{ by: "frontend-v1-x1", reason: "expired", total: 3, last: at - 2 }],
    ejections: trouble(at).ejections,
  };
}

/** A mesh of `count` services in ten namespaces, each of which calls up to three others. */
export function large(count = 200, at = NOW) {
  const service = (index) => ({ namespace: `team-${index % 10}`, name: `service-${index}` });
  const nodes = Array.from({ length: count }, (_, index) => ({ ...node("x", "http", rates(5 + (index % 40))), service: service(index) }));
  const edges = [];
  for (let index = 1; index < count; index += 1) {
    const callers = new Set([Math.floor((index - 1) / 3), Math.floor(index / 5), Math.floor(index / 2.3)]);
    for (const caller of callers) {
      if (caller === index) continue;
      edges.push({ ...edge("x", "x", rates(3 + (index % 20))), source: service(caller), destination: service(index) });
    }
  }
  return { ...calm(at), nodes, edges };
}

/** A page of `load`, which only calls. */
export function clientPage(at = NOW) {
  return {
    ...page(0, at),
    summary: summary("load", "client", rates(0), rates(0)),
    previous: summary("load", "client", rates(0), rates(0)),
    callers: [],
    callees: [edge("load", "frontend", rates(42.4))],
    versions: [],
    responses: [],
  };
}

/** A page of the TCP `store`. */
export function tcpPage(at = NOW) {
  const none = { p50_ms: null, p90_ms: null, p99_ms: null };
  const base = page(0, at);
  const opened = rates(0.8, none);
  return {
    ...base,
    summary: summary("store", "tcp", opened, opened, 48_200),
    previous: summary("store", "tcp", opened, opened, 51_000),
    series: base.series.map((point, index) => ({
      ...point,
      client: opened,
      server: opened,
      in_flight: 6,
      bytes_per_second: 48_000 + 4_000 * Math.sin(index / 3),
    })),
    callers: [edge("restaurants", "store", opened, opened, { protocol: "tcp", sent_bytes_per_second: 8_200, received_bytes_per_second: 40_000 })],
    callees: [],
    versions: [{ version: "v1", share: 1, rates: opened }],
    responses: [],
  };
}
