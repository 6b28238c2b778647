// The parts of the page that need no browser: layout, address bar, figures, words.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { createServer } from "vite";
import { calm, rates, trouble } from "./fixtures.mjs";

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
  const states = [
    { service: null, range: "live", selected: null, table: false },
    { service: { namespace: "shop", name: "api" }, range: "1h", selected: "shop/api>shop/db", table: true },
    { service: { namespace: "", name: "www.example.com:443" }, range: { from: 100, to: 400 }, selected: null, table: false },
  ];
  for (const state of states) assert.deepEqual(parse(format(state)), state);
  assert.equal(format(states[0]), "#/");
  assert.deepEqual(parse("#/service/%zz?range=900-100"), { service: null, range: "live", selected: null, table: false });
  assert.equal(query({ from: 100, to: 400 }, 10), "window=300&end=399");
  assert.equal(pace({ from: 100, to: 400 }), 0);
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
  assert.match(verdict(trouble()).text, /^ratings: 14\u202f% errors since .+, and 1 more$/);
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
