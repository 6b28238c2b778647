// The page of live calls in a real browser, against a stream that the test writes.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, missing } from "./browser.mjs";
import { everythingIsReadable, nothingSticksOut, watch } from "./checks.mjs";
import * as fixtures from "./fixtures.mjs";
import { serve } from "./server.mjs";

if (missing) console.warn(`\n*** ${missing} ***\n`);

let server;
before(async () => {
  server = await serve((url) => {
    if (url.pathname === "/api/v1/graph") return fixtures.calm(Math.floor(Date.now() / 1000));
    return { status: 404, body: { error: "no such call" } };
  });
});
after(() => server.close());

const call = (change) => ({
  call: {
    time: "2026-11-30T08:36:47.045Z",
    side: "server",
    sidecar: "reviews-v1-1",
    from: { workload: "productpage-v1" },
    to: { service: "reviews.default.svc.cluster.local", workload: "reviews-v1" },
    protocol: "HTTP/1.1",
    method: "GET",
    path: "/reviews/0",
    status: 200,
    duration_ms: 12.3,
    retries: 0,
    flags: "-",
    received_bytes: 1,
    sent_bytes: 2,
    ...change,
  },
});

/** The page at `hash` with a stream; `stream.asked` has the queries, `stream.open` how many are read now. */
async function visit(hash, options, body) {
  const stream = { asked: [], open: 0, response: null, refusal: null };
  stream.write = (...lines) => stream.response.write(lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
  server.state.stream = (url, response) => {
    stream.asked.push(url.search);
    if (stream.refusal) {
      response.writeHead(stream.refusal.status, { "content-type": "application/json" });
      response.end(JSON.stringify({ error: stream.refusal.error }));
      return;
    }
    response.writeHead(200, { "content-type": "application/x-ndjson" });
    response.write("\n");
    stream.open += 1;
    stream.response = response;
    response.on("close", () => (stream.open -= 1));
  };
  const { context, close } = await launch(options);
  try {
    const page = context.pages()[0];
    const wrong = watch(page, server.url);
    await page.goto(server.url + hash);
    await body(page, stream);
    if (!stream.refusal) assert.deepEqual(wrong, []);
  } finally {
    await close();
  }
}

async function until(what, holds) {
  for (let tries = 0; tries < 200; tries += 1) {
    if (await holds()) return;
    await new Promise((done) => setTimeout(done, 50));
  }
  assert.fail(what);
}

const rows = (page) => page.locator(".tap-calls tbody tr");

test("calls are shown as they come, the newest first, and read well at both sizes", { skip: missing }, async () => {
  for (const viewport of [{ width: 1280, height: 800 }, { width: 390, height: 844 }]) {
    await visit("#/live", { viewport }, async (page, stream) => {
      await until("the stream is asked for", () => stream.open === 1);
      stream.write({ notice: "listening to 3 sidecars" }, call({}));
      await rows(page).first().waitFor();
      stream.write(
        call({
          side: "client",
          status: 503,
          retries: 2,
          rule: "VirtualService/default/reviews",
          refusal: { code: "no-endpoints", reason: "nobody behind it is ready" },
        }),
        { lost: { calls: 7, sidecar: "reviews-v1-1" } },
      );
      await until("two rows", async () => (await rows(page).count()) === 2);
      const first = await rows(page).first().innerText();
      assert.match(first, /client/);
      assert.match(first, /sent 3 times/);
      assert.match(first, /refused: no-endpoints, by VirtualService\/default\/reviews: nobody behind it is ready/);
      assert.equal(await page.locator("tr.failing").count(), 1);
      const summary = page.locator(".tap .note");
      assert.match(await summary.innerText(), /2 calls; 7 not shown.*listening to 3 sidecars/);
      await nothingSticksOut(page, ".tap-filter label");
      await everythingIsReadable(page);
    });
  }
});

test("what peers send is text and nothing else", { skip: missing }, async () => {
  await visit("#/live", {}, async (page, stream) => {
    await until("the stream is asked for", () => stream.open === 1);
    const hostile = "/<img src=x onerror=alert(1)>\u202e\u001b[2J\u2028";
    stream.write(call({ path: hostile, from: { workload: "<b>x</b>" } }));
    await rows(page).first().waitFor();
    const text = await rows(page).first().innerText();
    assert.ok(text.includes("/<img src=x onerror=alert(1)>\\u{202e}\\u{1b}[2J\\u{2028}"), text);
    assert.ok(text.includes("<b>x</b>"), text);
    assert.equal(await page.locator(".tap-calls img, .tap-calls b").count(), 0);
  });
});

test("the list is bounded whatever comes", { skip: missing }, async () => {
  await visit("#/live", {}, async (page, stream) => {
    await until("the stream is asked for", () => stream.open === 1);
    for (let n = 0; n < 20; n += 1) stream.write(...Array.from({ length: 60 }, (_, i) => call({ path: `/${n}/${i}` })));
    const summary = page.locator(".tap .note");
    await until("all were taken", async () => /1200 calls, the last 500 below/.test(await summary.innerText()));
    assert.equal(await rows(page).count(), 500);
    assert.match(await rows(page).first().innerText(), /GET \/19\/59/);
    await page.getByRole("button", { name: "Clear" }).click();
    await until("none is left", async () => (await rows(page).count()) === 0);
  });
});

test("a filter is what the server is asked for, and is in the address", { skip: missing }, async () => {
  await visit("#/live?to=reviews", {}, async (page, stream) => {
    await until("the stream is asked for", () => stream.open === 1);
    assert.equal(stream.asked.at(-1), "?to=reviews");
    await page.getByLabel("Status").fill("5xx");
    await until("the filter is asked for", () => stream.asked.at(-1) === "?to=reviews&status=5xx");
    await until("the first is let go", () => stream.open === 1);
    assert.match(page.url(), /#\/live\?to=reviews&status=5xx$/);
  });
});

test("paused, nothing is asked of any sidecar", { skip: missing }, async () => {
  await visit("#/live", {}, async (page, stream) => {
    await until("the stream is asked for", () => stream.open === 1);
    stream.write(call({}));
    await rows(page).first().waitFor();
    await page.getByRole("button", { name: "Pause" }).click();
    await until("the stream is let go", () => stream.open === 0);
    assert.equal(await rows(page).count(), 1);
    await page.getByRole("button", { name: "Resume" }).click();
    await until("it is asked for again", () => stream.open === 1);
  });
});

test("what the server refuses is told in its words and not asked again", { skip: missing }, async () => {
  await visit("#/", {}, async (page, stream) => {
    stream.refusal = { status: 501, error: "in a cluster use `heddle tap`" };
    await page.getByRole("link", { name: "Live", exact: true }).click();
    await page.getByRole("alert").waitFor();
    assert.equal(await page.getByRole("alert").innerText(), "in a cluster use `heddle tap`");
    assert.equal(stream.asked.length, 1);
    stream.refusal = { status: 400, error: "status: `6xx` is no status" };
    await page.getByLabel("Status").fill("6xx");
    await until("the new reason", async () => (await page.getByRole("alert").innerText()).includes("6xx"));
    assert.equal(stream.asked.length, 2);
  });
});
