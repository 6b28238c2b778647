// What must hold on every page: nothing sticks out, nothing overlaps, text can be read.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";

import { launch } from "./browser.mjs";

const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

/** No violation of WCAG 2.2 A and AA that axe knows. Contrast is looked at by `everythingIsReadable`, through filters. */
export async function everythingIsAccessible(page) {
  await page.evaluate(await readFile(AXE, "utf8"));
  const found = await page.evaluate(async () => {
    const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
    // The label of a service in the graph is its name; its figures are said in words, not as they are written.
    const off = { "color-contrast": { enabled: false }, "label-content-name-mismatch": { enabled: false } };
    const options = { runOnly: { type: "tag", values: tags }, rules: off };
    const { violations } = await window.axe.run(document, options);
    return violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html.slice(0, 120)).join(" | ")}`);
  });
  assert.deepEqual(found, []);
}

/** The page is no wider than the window, and the given boxes do not overlap. */
export async function nothingSticksOut(page, boxes) {
  const found = await page.evaluate((selector) => {
    const wide = document.documentElement.scrollWidth - window.innerWidth;
    const shown = [...document.querySelectorAll(selector)].map((element) => {
      const { left, top, right, bottom } = element.getBoundingClientRect();
      return { text: element.textContent.slice(0, 30), left, top, right, bottom };
    });
    const pairs = [];
    shown.forEach((a, index) => {
      for (const b of shown.slice(index + 1)) {
        const apart = a.right <= b.left + 1 || b.right <= a.left + 1 || a.bottom <= b.top + 1 || b.bottom <= a.top + 1;
        if (!apart) pairs.push([a.text, b.text]);
      }
    });
    const cut = [...document.querySelectorAll(".signal .large, .signal p, .node .figures, .chart h2, .series li")]
      .filter((element) => element.scrollWidth > element.clientWidth + 1)
      .map((element) => element.textContent);
    return { wide, pairs, cut, count: shown.length };
  }, boxes);
  assert.ok(found.wide <= 0, `the page is ${found.wide} px wider than the window`);
  assert.deepEqual(found.pairs, [], "these overlap");
  assert.deepEqual(found.cut, [], "these texts do not fit their place");
  assert.ok(found.count > 0, `nothing matches ${boxes}`);
}

/** Every text, and every line or mark that means something, has the contrast WCAG AA asks for. */
export async function everythingIsReadable(page) {
  const { poor, texts, marks } = await page.evaluate(contrasts);
  assert.deepEqual(poor, []);
  assert.ok(texts > 5, "there is text to look at");
  return marks;
}

/** Runs in the page. Colours count as they are seen: through filters and opacity of all that is around. */
function contrasts() {
  const channels = (text) => {
    const numbers = text.match(/[\d.]+/g)?.map(Number) ?? [0, 0, 0, 0];
    // color(srgb r g b) counts from 0 to 1.
    return text.startsWith("color(") ? numbers.map((n, i) => (i < 3 ? n * 255 : n)) : numbers;
  };
  const luminance = ([r, g, b]) => {
    const linear = [r, g, b].map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const painted = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = channels(getComputedStyle(at).backgroundColor);
      if (colour[3] === undefined || colour[3] > 0.99) return { colour, at };
    }
    return { colour: [255, 255, 255], at: document.documentElement };
  };
  const seen = (colour, element) => {
    for (let at = element; at; at = at.parentElement) {
      const { filter, opacity } = getComputedStyle(at);
      const share = Number(/grayscale\(([\d.]+)\)/.exec(filter)?.[1] ?? 0);
      const grey = 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2];
      colour = colour.slice(0, 3).map((value) => value + (grey - value) * share);
      if (opacity === "1" || !at.parentElement) continue;
      const below = painted(at.parentElement).colour;
      colour = colour.map((value, index) => below[index] + (value - below[index]) * Number(opacity));
    }
    return colour;
  };
  const contrast = (colour, element, around = element) => {
    const behind = painted(around);
    const [a, b] = [luminance(seen(colour, element)), luminance(seen(behind.colour, behind.at))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const poor = new Set();
  const look = (element, what, got, least) => {
    if (got < least) poor.add(`${element.getAttribute("class") ?? element.tagName}: ${what} ${got.toFixed(2)}`);
  };
  const hidden = (element, but) => !element.checkVisibility() || element.closest(but);
  let texts = 0;
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || hidden(element, "svg, noscript, .dim, :disabled")) continue;
    texts += 1;
    const style = getComputedStyle(element);
    const large = parseFloat(style.fontSize) >= 24;
    look(element, element.textContent.trim().slice(0, 30), contrast(channels(style.color), element), large ? 3 : 4.5);
  }
  let marks = 0;
  const kinds = { ".edge-line, .sparkline .line": "stroke", ".swatch": "borderTopColor", ".dot:not(.idle)": "backgroundColor", ".dot.idle": "borderTopColor" };
  for (const [selector, property] of Object.entries(kinds)) {
    for (const element of document.querySelectorAll(selector)) {
      if (hidden(element, ".dim")) continue;
      marks += 1;
      look(element, property, contrast(channels(getComputedStyle(element)[property]), element, element.parentElement), 3);
    }
  }
  return { poor: [...poor], texts, marks };
}

/** Collects what must stay empty: script errors, violations of the policy, requests to elsewhere. */
export function watch(page, origin) {
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(`script: ${error.message}`));
  page.on("console", (message) => {
    const text = message.text();
    // A server that is switched off on purpose is told in the console by the browser itself.
    if (message.type() === "error" && !text.includes("Failed to load resource")) wrong.push(`console: ${text}`);
  });
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(origin) && !url.startsWith("about:") && !url.startsWith("blob:")) wrong.push(`elsewhere: ${url}`);
  });
  return wrong;
}

/** A browser page of the server at `hash`; fails on errors, violations and foreign requests. */
export async function visited(server, hash, options, body) {
  const { context, close } = await launch(options);
  try {
    const page = context.pages()[0];
    const wrong = watch(page, server.url);
    await page.goto(server.url + hash);
    await body(page);
    assert.deepEqual(wrong, []);
  } finally {
    await close();
  }
}
