// Rules, refusals, what the graph can be asked for, and what holds on every page; in a real browser.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, missing } from "./browser.mjs";
import { everythingIsAccessible, everythingIsReadable, nothingSticksOut, watch } from "./checks.mjs";
import * as fixtures from "./fixtures.mjs";
import { serve } from "./server.mjs";

const SIZES = [
  { width: 1440, height: 900 },
  { width: 1280, height: 800 },
  { width: 390, height: 844 },
];
const PAGES = {
  "#/": "[data-node]",
  "#/?view=table": ".table-box",
  "#/?latency=1": ".edge-label",
  "#/service/default/reviews": ".chart canvas",
  "#/service/default/reviews?view=table": ".chart table",
  "#/rules": ".rule",
  "#/refusals": ".table-box",
  "#/nothing/here": ".empty",
};
const seconds = () => Math.floor(Date.now() / 1000);

let server;
const answers = (graph, page) => (url) => {
  if (url.pathname === "/api/v1/graph") return graph(seconds());
  if (url.pathname === "/api/v1/rules") return fixtures.rules(seconds());
  if (url.pathname === "/api/v1/refusals") return fixtures.refusals(seconds());
  return page();
};
const TROUBLE = answers(fixtures.trouble, () => fixtures.page(0.1, seconds()));

before(async () => {
  server = await serve(TROUBLE);
});
after(() => server.close());

async function browse(options, body) {
  const { context, close } = await launch(options);
  try {
    const page = context.pages()[0];
    const wrong = watch(page, server.url);
    await body(page);
    assert.deepEqual(wrong, []);
  } finally {
    await close();
  }
}

async function open(page, hash) {
  await page.goto(server.url);
  await page.goto(server.url + hash);
}

test("every page fits, can be read and is accessible, at three widths and in both themes", { skip: missing }, async () => {
  server.state.answer = TROUBLE;
  for (const colorScheme of ["light", "dark"]) {
    await browse({ colorScheme, reducedMotion: "reduce" }, async (page) => {
      for (const viewport of SIZES) {
        await page.setViewportSize(viewport);
        for (const [hash, shown] of Object.entries(PAGES)) {
          await open(page, hash);
          await page.locator(shown).first().waitFor();
          await nothingSticksOut(page, hash === "#/" ? ".node" : "main");
          await everythingIsReadable(page);
          await everythingIsAccessible(page);
          // Something of the page itself is in the first view.
          const top = await page.locator(shown).first().evaluate((one) => one.getBoundingClientRect().top);
          assert.ok(hash.startsWith("#/service") || top < viewport.height - 40, `${hash} begins at ${top}`);
        }
      }
    });
  }
});

test("Escape and t work on every page", { skip: missing }, async () => {
  server.state.answer = TROUBLE;
  await browse({}, async (page) => {
    for (const [from, key, to] of [
      ["#/service/default/reviews", "t", "#/service/default/reviews?view=table"],
      ["#/service/default/reviews", "Escape", "#/?selected=default/reviews"],
      ["#/rules", "t", "#/?view=table"],
      ["#/refusals", "Escape", "#/"],
      ["#/nothing/here", "Escape", "#/nothing"],
    ]) {
      await open(page, from);
      await page.locator("main").waitFor();
      await page.keyboard.press(key);
      await page.waitForFunction((hash) => location.hash === hash, to);
    }
    // What is open closes first.
    await open(page, "#/rules");
    await page.getByRole("button", { name: "Pick" }).click();
    await page.locator(".period").waitFor();
    await page.keyboard.press("Escape");
    await page.locator(".period").waitFor({ state: "detached" });
    assert.equal(await page.evaluate(() => location.hash), "#/rules");
  });
});

test("a key pressed as soon as something can be seen is heard", { skip: missing }, async () => {
  server.state.answer = TROUBLE;
  await browse({}, async (page) => {
    // The key comes in the very step that adds the element, before anything that waits for a frame.
    await page.addInitScript(() => {
      const waiting = [["main", "t"], [".period", "Escape"]];
      new MutationObserver(() => {
        if (waiting.length === 0 || !document.querySelector(waiting[0][0])) return;
        const [, key] = waiting.shift();
        document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
      }).observe(document, { childList: true, subtree: true });
    });
    await page.goto(`${server.url}#/rules`);
    await page.waitForFunction(() => location.hash === "#/?view=table");
    await page.getByRole("button", { name: "Pick" }).click();
    await page.locator(".period").waitFor({ state: "detached" });
    assert.equal(await page.getByRole("button", { name: "Pick" }).getAttribute("aria-expanded"), "false");
  });
});

test("the picker of a period stays inside its card, and the card inside the window", { skip: missing }, async () => {
  server.state.answer = TROUBLE;
  for (const viewport of SIZES) {
    await browse({ viewport }, async (page) => {
      await open(page, "#/");
      await page.getByRole("button", { name: "Pick" }).click();
      const outside = await page.locator(".period").evaluate((card) => {
        const box = card.getBoundingClientRect();
        const parts = [...card.querySelectorAll("input, button, label, p")].map((one) => one.getBoundingClientRect());
        const out = parts.filter((one) => one.left < box.left || one.right > box.right || one.bottom > box.bottom);
        return { out: out.length, left: box.left, right: box.right - window.innerWidth };
      });
      assert.deepEqual(outside.out, 0);
      assert.ok(outside.left >= 0 && outside.right <= 0, JSON.stringify(outside));
    });
  }
});

test("rules say where they come from, what they are met by and how often they decided", { skip: missing }, async () => {
  server.state.answer = TROUBLE;
  await browse({}, async (page) => {
    await open(page, "#/rules");
    const first = page.locator(".rule").first();
    await first.waitFor();
    const text = (await first.innerText()).replaceAll("\u202f", " ");
    for (const word of ["VirtualService reviews", "in force", "/etc/rules/reviews.yaml:1", "path /reviews*", "30.1/s", "abort 10 %", "10 % measured", "has decided nothing"]) {
      assert.ok(text.includes(word), `${word} is in ${text}`);
    }
    assert.match(await page.locator(".rule.failing").innerText(), /leads to something absent/);
    await first.getByText("As it was written").click();
    assert.match(await first.locator("pre").innerText(), /kind: VirtualService/);
    await page.getByLabel("Filter").fill("specials");
    await page.waitForFunction(() => document.querySelectorAll(".rule").length === 1);
    assert.equal(await page.evaluate(() => location.hash), "#/rules?find=specials");
  });
});

test("refusals tell why and whose, and a name not found which one may have been meant", { skip: missing }, async () => {
  server.state.answer = TROUBLE;
  await browse({}, async (page) => {
    await open(page, "#/refusals");
    await page.locator(".table-box").first().waitFor();
    const text = await page.locator("main").innerText();
    for (const word of ["none of them is met", "no-route", "leaf-1.defalt", "leaf-1.default", "over the last 5 minutes", "reviews-v3-k2"]) {
      assert.ok(text.includes(word), `${word} is in ${text}`);
    }
  });
});

test("hostile names are text and never markup, wherever they are shown", { skip: missing }, async () => {
  const evil = `"><img src=x onerror=window.hit=1><svg onload=window.hit=1>'&amp;`;
  const hostile = (value) => JSON.parse(JSON.stringify(value, (key, one) => (typeof one === "string" && !["kind", "protocol", "what", "answer", "action", "state", "direction", "mesh"].includes(key) ? evil : one)));
  server.state.answer = (url) => ({ ...hostile(TROUBLE(url)), mesh: evil });
  await browse({}, async (page) => {
    for (const hash of Object.keys(PAGES)) {
      await open(page, hash);
      await page.locator("main").waitFor();
      await page.waitForFunction((name) => document.body.textContent.includes(name) || document.querySelector(".empty"), evil);
      assert.equal(await page.locator("img").count(), 0, hash);
      assert.equal(await page.evaluate(() => window.hit), undefined, hash);
    }
    await open(page, `#/service/default/${encodeURIComponent(evil)}`);
    await page.locator("h1").waitFor();
    assert.equal(await page.locator("h1").textContent(), evil);
  });
});

test("a service names the deepest failing callee, the rule of its fault and when a rule changed", { skip: missing }, async () => {
  server.state.answer = TROUBLE;
  await browse({}, async (page) => {
    await open(page, "#/service/default/reviews");
    await page.locator(".trouble").waitFor();
    const trouble = await page.locator(".trouble").innerText();
    assert.match(trouble, /The cause is store \(reviews → ratings → store\)/);
    const notes = (await page.locator(".purpose-note").allInnerTexts()).join(" ").replaceAll("\u202f", " ");
    assert.match(notes, /The rule VirtualService\/default\/reviews#http\[0\] asks for abort 10 % \(503\)/);
    assert.match(notes, /9.9 % of the calls are aborted/);
    assert.match(await page.locator(".marks").innerText(), /VirtualService\/default\/reviews was changed/);
    assert.ok((await page.locator(".sparkline .mark").count()) >= 4, "every small course has the mark");
    assert.match(await page.locator(".service-title .window").innerText(), /over the last minute/);
    await page.getByRole("region", { name: "Paths", exact: true }).waitFor();
    const templates = page.getByRole("region", { name: "Paths by template" });
    const told = await templates.locator("tbody tr td:first-child").allInnerTexts();
    assert.deepEqual(told, ["/reviews/{id}", "/health", "paths that were answered with 4xx only"]);
    const columns = await templates.locator("thead th").allInnerTexts();
    assert.deepEqual(columns, ["Path", "Rate", "Errors", "4xx", "On purpose", "p50", "p99"]);
    await page.getByRole("link", { name: "To store" }).click();
    await page.waitForFunction(() => location.hash === "#/service/default/store");
  });
});

test("a TCP service has no requests per second", { skip: missing }, async () => {
  server.state.answer = TROUBLE;
  await browse({}, async (page) => {
    await open(page, "#/?view=table");
    const row = page.getByRole("region", { name: "Services" }).locator("tr", { hasText: "store" });
    await row.waitFor();
    const cells = await row.locator("td").allInnerTexts();
    assert.equal(cells[2], "–");
    const call = page.getByRole("region", { name: "Calls" }).locator("tr", { hasText: "store" });
    assert.deepEqual((await call.locator("td").allInnerTexts()).slice(3, 5), ["–", "–"]);
  });
});

test("latency stands on the lines when asked for, on no service and above all of them", { skip: missing }, async () => {
  server.state.answer = TROUBLE;
  await browse({ reducedMotion: "reduce" }, async (page) => {
    await open(page, "#/");
    await page.locator("[data-node]").first().waitFor();
    await page.getByRole("button", { name: "Latency" }).click();
    await page.waitForFunction(() => document.querySelectorAll(".edge-label").length >= 6);
    const found = await page.evaluate(() => {
      const boxes = (selector) => [...document.querySelectorAll(selector)].map((one) => one.getBoundingClientRect());
      const [labels, nodes] = [boxes(".edge-label"), boxes("[data-node]")];
      const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
      const texts = [...document.querySelectorAll(".edge-label")].map((one) => one.textContent);
      return { hidden: labels.filter((label) => nodes.some((node) => meet(label, node))).length, texts };
    });
    assert.equal(found.hidden, 0);
    assert.ok(found.texts.some((text) => text.includes("p99 180")), found.texts.join());
    assert.match(await page.evaluate(() => location.hash), /latency=1/);
  });
});

test("the graph can be narrowed, grouped, enlarged and seen whole", { skip: missing }, async () => {
  server.state.answer = answers((at) => fixtures.large(60, at), () => fixtures.page());
  await browse({ reducedMotion: "reduce" }, async (page) => {
    await open(page, "#/");
    await page.locator("[data-node]").first().waitFor();
    const nodes = () => page.locator("[data-node]").count();
    assert.equal(await nodes(), 60);
    await page.getByRole("button", { name: "Fit" }).click();
    const whole = () => page.locator(".picture").evaluate((one) => one.getBoundingClientRect().height <= window.innerHeight);
    assert.ok(await whole());
    const width = () => page.locator(".picture").evaluate((one) => one.getBoundingClientRect().width);
    const before = await width();
    await page.keyboard.press("+");
    await page.waitForFunction((w) => document.querySelector(".picture").getBoundingClientRect().width > w, before);
    await page.getByRole("button", { name: "By namespace" }).click();
    await page.waitForFunction(() => document.querySelectorAll("[data-node]").length === 10);
    await page.locator("[data-node='team-3/*']").press("Enter");
    await page.waitForFunction(() => location.hash === "#/?ns=team-3");
    assert.ok((await nodes()) < 40);
    await page.getByLabel("Filter").fill("no such service");
    await page.getByText("No service is of this choice").waitFor();
  });
});

test("the last hour can be seen again, in one shape", { skip: missing }, async () => {
  server.state.answer = TROUBLE;
  await browse({ reducedMotion: "reduce" }, async (page) => {
    await open(page, "#/");
    await page.locator("[data-node]").first().waitFor();
    await page.getByRole("button", { name: "Replay" }).click();
    await page.locator(".replay").waitFor();
    await page.locator("[data-node]").first().waitFor();
    const shape = () => page.$$eval("[data-node]", (all) => all.map((one) => one.style.transform).join());
    const before = await shape();
    server.state.asked.length = 0;
    await page.getByRole("button", { name: "Run" }).click();
    const frames = () => new Set(server.state.asked.filter((url) => /window=10&end=\d+/.test(url))).size;
    for (let round = 0; round < 100 && frames() < 3; round += 1) await page.waitForTimeout(100);
    assert.ok(frames() >= 3, server.state.asked.join());
    assert.equal(await shape(), before);
    await page.getByRole("button", { name: "Back to now" }).click();
    await page.locator(".replay").waitFor({ state: "detached" });
  });
});

test("a graph of 200 services can be worked with; the times are printed", { skip: missing }, async (context) => {
  server.state.answer = answers((at) => fixtures.large(200, at), () => fixtures.page());
  await browse({}, async (page) => {
    await page.addInitScript(() => {
      window.tasks = [];
      new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map((one) => Math.round(one.duration)))).observe({ type: "longtask", buffered: true });
    });
    await open(page, "#/");
    await page.waitForFunction(() => document.querySelectorAll("[data-node]").length === 200);
    // Some seconds of life: each brings new numbers.
    const asked = server.state.asked.length;
    for (let round = 0; round < 100 && server.state.asked.length < asked + 4; round += 1) await page.waitForTimeout(100);
    const measured = await page.evaluate(() => ({
      paint: performance.getEntriesByName("first-contentful-paint").map((one) => Math.round(one.startTime)),
      tasks: window.tasks,
    }));
    context.diagnostic(`first paint ${measured.paint} ms; tasks above 50 ms: ${measured.tasks.join(", ") || "none"} ms`);
    await page.locator("[data-node='team-7/service-7']").click();
    await page.locator(".node-card").waitFor();
  });
});
