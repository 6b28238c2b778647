// The parts of the page that need no browser: layout, address bar, figures, words.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { createServer } from "vite";
import { calm, fault, large, page, rates, trouble } from "./fixtures.mjs";

let vite;
const load = (file) => vite.ssrLoadModule(`/src/${file}`);

before(async () => {
  const root = fileURLToPath(new URL("..", import.meta.url));
  vite = await createServer({ root, server: { middlewareMode: true, ws: false }, optimizeDeps: { noDiscovery: true }, logLevel: "error" });
});
after(() => vite.close());

const RIGHT = { direction: "right", layerGap: 100, nodeGap: 20 };
const boxes = (...ids) => ids.map((id) => ({ id, width: 100, height: 50 }));
const calls = (...pairs) => pairs.map(([source, target]) => ({ source, target }));
const DEMO = [boxes("load", "front", "a", "b", "c", "d", "store"), calls(["load", "front"], ["front", "a"], ["front", "b"], ["front", "c"], ["a", "d"], ["c", "store"])];

test("callers are left of their callees and nothing overlaps", async () => {
  const { layout } = await load("layout.ts");
  const drawn = layout(...DEMO, RIGHT);
  for (const { source, target } of DEMO[1]) {
    assert.ok(drawn.nodes.get(source).x + 100 < drawn.nodes.get(target).x, `${source} → ${target}`);
    const route = drawn.routes.get(`${source}>${target}`);
    assert.equal(route[0].x, drawn.nodes.get(source).x + 100);
    assert.equal(route.at(-1).x, drawn.nodes.get(target).x);
  }
  for (const layer of drawn.layers) {
    const tops = layer.map((id) => drawn.nodes.get(id).y);
    tops.slice(1).forEach((y, index) => assert.ok(y - tops[index] >= 70 - 1e-6, layer.join()));
  }
  assert.ok([...drawn.nodes.values()].every(({ x, y }) => x >= 0 && y >= 0 && y + 50 <= drawn.height + 1e-6));
});

test("the same services make the same picture, in whatever order they come", async () => {
  const { layout } = await load("layout.ts");
  const [nodes, edges] = DEMO;
  assert.deepEqual(layout(nodes, edges, RIGHT).nodes.get("c"), layout([...nodes].reverse(), [...edges].reverse(), RIGHT).nodes.get("c"));
});

test("a new service leaves the others in their order", async () => {
  const { layout } = await load("layout.ts");
  const [nodes, edges] = DEMO;
  const first = layout(nodes, edges, RIGHT);
  const more = layout([...nodes, ...boxes("aa")], [...edges, ...calls(["front", "aa"], ["aa", "store"])], { ...RIGHT, previous: first.layers.flat() });
  const kept = more.layers.map((layer) => layer.filter((id) => id !== "aa"));
  assert.deepEqual(kept, first.layers);
});

test("cycles, self-calls and lonely services are drawn", async () => {
  const { layout } = await load("layout.ts");
  const drawn = layout(boxes("a", "b", "c", "alone"), calls(["a", "b"], ["b", "c"], ["c", "a"], ["b", "b"]), RIGHT);
  assert.equal(drawn.nodes.size, 4);
  assert.ok(drawn.routes.get("c>a").length >= 2);
  assert.equal(layout([], [], RIGHT).width, 0);
});

test("a narrow picture has no more than three services side by side", async () => {
  const { layout } = await load("layout.ts");
  const wide = layout(boxes("x", "a", "b", "c", "d", "e"), calls(["x", "a"], ["x", "b"], ["x", "c"], ["x", "d"], ["d", "e"]), { ...RIGHT, direction: "down", perLayer: 3 });
  assert.ok(wide.layers.every((layer) => layer.length <= 3), JSON.stringify(wide.layers));
  assert.ok(wide.nodes.get("d").y < wide.nodes.get("e").y);
});

test("the address bar carries the whole state", async () => {
  const { parse, format, query, pace } = await load("address.ts");
  const home = { page: "", rest: [], filter: {}, service: null, range: "live", selected: null, table: false };
  const states = [
    home,
    { ...home, page: "service", rest: ["shop", "api"], service: { namespace: "shop", name: "api" }, range: "1h", selected: "shop/api>shop/db", table: true },
    { ...home, page: "service", rest: ["-", "www.example.com:443"], service: { namespace: "", name: "www.example.com:443" }, range: { from: 100, to: 400 } },
    { ...home, page: "traces", rest: ["a/b ?#"], filter: { status: "5xx & more", q: "<b>" } },
  ];
  for (const state of states) assert.deepEqual(parse(format(state)), state);
  assert.equal(format(states[0]), "#/");
  assert.deepEqual(parse("#/service/%zz?range=900-100"), { ...home, page: "service", rest: ["%zz"] });
  assert.equal(query({ from: 100, to: 400 }, 10), "window=300&end=399");
  assert.equal(pace({ from: 100, to: 400 }), 0);
});

test("another page begins without the filter and the selection of the one before", async () => {
  const { parse, changed, format, link } = await load("address.ts");
  const at = parse("#/traces/ID?range=1h&status=error&selected=a");
  assert.equal(format(changed(at, { page: "" })), "#/?range=1h");
  assert.equal(format(changed(at, { rest: [] })), "#/traces?range=1h&selected=a&status=error");
  assert.equal(link(at, { service: { namespace: "", name: "a.b" } }), "#/service/-/a.b?range=1h");
  assert.equal(format(changed(parse("#/service/x/y"), { service: null })), "#/");
});

test("Escape goes one step back and t to the other view, wherever one is", async () => {
  const { parse, changed, format } = await load("address.ts");
  const { keyed } = await load("keys.ts");
  const pressed = (key, hash, twofold) => {
    const change = keyed(key, parse(hash), twofold);
    return change && format(changed(parse(hash), change));
  };
  assert.equal(pressed("Escape", "#/service/default/api?range=1h", true), "#/?range=1h&selected=default/api");
  assert.equal(pressed("Escape", "#/traces/ID", false), "#/traces");
  assert.equal(pressed("Escape", "#/rules", false), "#/");
  assert.equal(pressed("Escape", "#/?selected=a", true), "#/");
  assert.equal(pressed("Escape", "#/", true), null);
  assert.equal(pressed("t", "#/service/default/api", true), "#/service/default/api?view=table");
  assert.equal(pressed("t", "#/rules", false), "#/?view=table");
  assert.equal(pressed("x", "#/rules", false), null);
});

test("a service that fails because of another is not the one that is named", async () => {
  const { verdict } = await load("words.ts");
  const graph = trouble();
  const of = (service) => graph.nodes.find((one) => one.service.name === service);
  // A symptom may fail more often than its cause.
  of("reviews").client = rates(42.4, { success: 0.5 });
  assert.equal(verdict(graph).service.name, "ratings");
  assert.match(verdict(graph).text, /^ratings: 14\u202f% errors since .+, felt by reviews$/);
  of("ratings").client = rates(28.4, { injected_per_second: 20 });
  of("ratings").rates = rates(8);
  of("reviews").cause = { ...of("reviews").cause, failed: 0, injected: 0.7 };
  assert.match(verdict(graph).text, /^reviews: 50\u202f% errors since .+, after a fault injected into ratings$/);
});

test("a fault is told as its rule asks for it, beside what was measured", async () => {
  const { faultLines } = await load("words.ts");
  const plain = (lines) => lines.map((line) => line.replaceAll("\u202f", " "));
  const calls = rates(20, { injected_per_second: 15.8 });
  assert.deepEqual(plain(faultLines([fault("a", 80)], calls)), ["abort 80 %, 79 % measured"]);
  assert.deepEqual(plain(faultLines([{ ...fault("a", 80), partly: true }], rates(0))), ["abort 80 % of some"]);
  assert.deepEqual(plain(faultLines([], calls)), ["abort 79 % measured"]);
  assert.deepEqual(plain(faultLines([{ ...fault("a", 5), what: "resetAfterBytes" }], rates(3))), ["reset 5.0 %"]);
});

test("callers outside have one name", async () => {
  const { title } = await load("words.ts");
  assert.equal(title({ namespace: "", name: "unknown" }), "outside");
  assert.equal(title({ namespace: "", name: "www.example.com" }), "www.example.com");
});

test("words on a line are on no service and on no other words", async () => {
  const { placeLabels } = await load("graph/labels.ts");
  const services = [{ left: 80, top: -20, right: 120, bottom: 20 }];
  const line = (y) => [{ x: 0, y }, { x: 200, y }];
  const wanted = ["a", "b", "c"].map((key) => ({ key, points: line(0), width: 40, height: 17 }));
  const placed = placeLabels(wanted, services);
  const boxes = [...placed.values()].map(({ x, y }) => ({ left: x - 20, top: y - 8.5, right: x + 20, bottom: y + 8.5 }));
  const all = [...services, ...boxes];
  all.forEach((a, index) =>
    all.slice(index + 1).forEach((b) => {
      const apart = a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;
      assert.ok(apart, JSON.stringify([a, b]));
    }),
  );
  assert.deepEqual(placeLabels(wanted, services), placed, "the same picture has them at the same places");
});

test("a namespace, a name or a node for each namespace can be shown", async () => {
  const { chosen, namespaces } = await load("graph/select.ts");
  const graph = large(40);
  assert.equal(namespaces(graph).length, 10);
  const one = chosen(graph, { namespace: "team-1", name: "", grouped: false });
  assert.ok(one.edges.every((edge) => [edge.source, edge.destination].some((end) => end.namespace === "team-1")));
  assert.equal(one.nodes.filter((node) => node.service.namespace === "team-1").length, 4);
  const named = chosen(graph, { namespace: "", name: "SERVICE-39", grouped: false });
  assert.ok(named.nodes.length > 1 && named.nodes.length < 6);
  const all = chosen(graph, { namespace: "", name: "", grouped: true });
  assert.deepEqual(all.nodes.map((node) => node.service.name), Array(10).fill("*"));
  const sum = (nodes) => nodes.reduce((total, node) => total + node.rates.per_second, 0);
  assert.ok(Math.abs(sum(all.nodes) - sum(graph.nodes)) < 1e-6);
  assert.ok(all.edges.every((edge) => edge.source.namespace !== edge.destination.namespace));
});

test("latency is on a log scale only where its values span it", async () => {
  const { spans, decades } = await load("scale.ts");
  assert.equal(spans([[1, 40, null]]), false);
  assert.equal(spans([[1, null], [51, 0]]), true);
  assert.equal(spans([[null]]), false);
  assert.deepEqual(decades(0.5, 5200), [0.1, 10000]);
  assert.deepEqual(decades(null, null), [1, 10]);
});

test("what happened besides traffic is marked where it happened", async () => {
  const { marksOf } = await load("service/marks.tsx");
  const told = page(0.1);
  told.ejections = trouble().ejections;
  told.changes.push({ ...told.changes[0], at: told.at - 4000 });
  assert.deepEqual(marksOf(told).map((mark) => mark.kind), ["rule", "out", "out"]);
  assert.match(marksOf(told)[0].text, /VirtualService\/default\/reviews was changed/);
});

test("a picture of the past keeps the shape of the whole hour", async () => {
  const { within } = await load("graph/memory.ts");
  const whole = calm();
  const part = { ...calm(), nodes: calm().nodes.slice(0, 2), edges: [] };
  const shown = within(part, whole);
  assert.equal(shown.nodes.length, whole.nodes.length);
  const reviews = shown.nodes.find((node) => node.service.name === "reviews");
  assert.deepEqual([reviews.rates.per_second, reviews.versions.length], [0, 3]);
  assert.equal(shown.nodes[0].rates.per_second, part.nodes[0].rates.per_second);
});

test("a share that is not all is never shown as all", async () => {
  const { percent, bytes, duration, rate } = await load("format.ts");
  const plain = (text) => text.replaceAll("\u202f", " ");
  assert.deepEqual([1, 0.99999, 0.995, 0.9, 0.5, 0.0001, 0].map(percent).map(plain), ["100 %", ">99.9 %", "99.5 %", "90 %", "50 %", "<0.1 %", "0 %"]);
  assert.deepEqual([0.4, 42, 1500, 90000, null].map(duration).map(plain), ["0.4 ms", "42 ms", "1.5 s", "1.5 min", "–"]);
  assert.deepEqual([12, 1234, 5e6].map(bytes).map(plain), ["12 B/s", "1.2 kB/s", "5.0 MB/s"]);
  assert.deepEqual([0, 0.04, 3.21, 456.7, 12345].map(rate).map(plain), ["0", "<0.1", "3.2", "457", "12.3 k"]);
});

test("the word in the header says where and since when", async () => {
  const { verdict } = await load("words.ts");
  assert.equal(verdict(calm()).text, "7 services, all well");
  assert.match(verdict(trouble()).text, /^ratings: 14\u202f% errors since .+, felt by reviews$/);
  const blind = calm();
  blind.coverage.scraped = 8;
  assert.match(verdict(blind).text, /2 of 10 sidecars not measured/);
});

test("an injected abort is a fault and not a failure", async () => {
  const { verdict, health } = await load("words.ts");
  const graph = calm();
  graph.nodes[2].client = rates(20, { injected_per_second: 16 });
  assert.equal(health(graph.nodes[2].client), "well");
  assert.equal(verdict(graph).text, "7 services, faults injected into 1");
});

test("flags say what the sidecar means by them", async () => {
  const { flagsInWords } = await load("words.ts");
  assert.equal(flagsInWords("SI"), "the head of the request did not end within 10 s");
  assert.equal(flagsInWords("OM"), "refused by the sidecar’s limit on connections");
});

test("where client and server differ it is said in words", async () => {
  const { difference } = await load("words.ts");
  const edge = (client, server) => ({ ...calm().edges[0], client, server });
  assert.equal(difference(edge(rates(10), rates(10)), false), "Both sides agree.");
  assert.match(difference(edge(rates(10, { p99_ms: 150 }), rates(10, { p99_ms: 30 })), false), /120\u202fms more: time in the network or in queues/);
  assert.match(difference(edge(rates(10, { success: 0.5 }), rates(0)), false), /Nothing arrives at the server/);
  assert.match(difference(edge(rates(10, { success: 0.9 }), rates(9)), false), /more failures: they happen on the way/);
  assert.match(difference(edge(rates(10, { injected_per_second: 8 }), rates(2)), false), /^80\u202f% are aborted on purpose/);
  assert.match(difference(edge(rates(10), rates(0)), true), /Outside the mesh/);
});
