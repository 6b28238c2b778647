// Canned answers about traces: a page of the demo that is well, one that failed inside, and a hundred others.

const now = () => Date.now() / 1000;
export const WELL = "4bf92f3577b34da6a3ce929d0e0e4736";
export const FAILED = "00000000000000005af7183fb1d4cf5f";

let made = 0;
function span(service, kind, depth, [offset, length], status, path, more = {}) {
  made += 1;
  return {
    id: made.toString(16).padStart(16, "0"),
    parent: null,
    depth,
    service: `${service}.default`,
    workload: `${service}-v1`,
    name: `${service}.default.svc.cluster.local:80/*`,
    kind,
    start: now() - 60 + offset / 1000,
    offset_ms: offset,
    moved_ms: 0,
    duration_ms: length,
    status,
    error: status.startsWith("5"),
    method: "GET",
    path,
    mesh: true,
    tags: { "http.status_code": status, "upstream_cluster": `outbound|80||${service}`, "response_flags": "-" },
    events: [],
    ...more,
  };
}

function calls(slow) {
  made = 0;
  const late = slow ? 900 : 20;
  const failing = { tags: { "heddle.refusal": "fault-abort", "heddle.rule": "VirtualService/default/ratings#http[0]", response_flags: "FI" } };
  const spans = [
    span("client", "client", 0, [0, 60 + late], "200", "/page/7"),
    span("frontend", "server", 1, [1, 58 + late], "200", "/page/7"),
    span("frontend", "internal", 2, [3, 4], "ok", "", { mesh: false, service: "frontend", name: "render <b>template</b>" }),
    span("frontend", "client", 2, [10, 15], "200", "/details/7"),
    span("details", "server", 3, [12, 11], "200", "/details/7"),
    span("frontend", "client", 2, [30, 20 + late], slow ? "503" : "200", "/reviews/7", {
      events: slow ? [{ offset_ms: 400, text: "attempt 2 at 10.0.0.7:80" }, { offset_ms: 800, text: "refused: injected fault" }] : [],
      ...(slow ? failing : {}),
    }),
    span("reviews", "server", 3, [32, 16 + late], slow ? "503" : "200", "/reviews/7"),
  ];
  spans[1].parent = spans[0].id;
  return spans;
}

export function trace(id) {
  const slow = id === FAILED;
  const spans = calls(slow);
  return {
    ...brief(id, spans[0].duration_ms, slow ? 2 : 0, now() - 60),
    left_out: slow ? 3 : 0,
    spans,
  };
}

function brief(id, length, errors, start) {
  return {
    id,
    start,
    duration_ms: length,
    service: "client.default",
    name: "GET /page/7",
    status: "200",
    errors,
    kept: errors ? "error" : length > 300 ? "slow" : null,
    complete: id !== WELL,
    span_count: 7,
    services: ["client.default", "details.default", "frontend.default", "reviews.default"],
    left_out: 0,
    spans: [],
  };
}

export function list() {
  const others = Array.from({ length: 100 }, (_, index) =>
    brief((index + 1).toString(16).padStart(32, "0"), 20 + ((index * 37) % 90) + (index % 33 === 0 ? 700 : 0), 0, now() - 3 - index * 8),
  );
  return {
    traces: [brief(FAILED, 960, 2, now() - 1), brief(WELL, 80, 0, now() - 2), ...others],
    more: false,
    store: {
      endpoint: "http://host.heddle.internal:4318",
      elsewhere: null,
      traces: 102,
      bytes: 3 << 20,
      bytes_max: 48 << 20,
      spans: 700,
      dropped: { malformed: 2 },
      evicted: 0,
      services: ["client.default", "details.default", "frontend.default", "reviews.default"],
    },
  };
}

export function none(store = {}) {
  const empty = list();
  return { ...empty, traces: [], store: { ...empty.store, traces: 0, ...store } };
}
