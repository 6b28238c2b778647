// What must hold on every page: nothing sticks out, nothing overlaps, text can be read.

import assert from "node:assert/strict";

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

/** Every text has the contrast WCAG AA asks for. */
export async function textIsReadable(page) {
  const { poor, looked } = await page.evaluate(() => {
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
    const background = (element) => {
      for (let at = element; at; at = at.parentElement) {
        const colour = channels(getComputedStyle(at).backgroundColor);
        if (colour[3] === undefined || colour[3] > 0.99) return colour;
      }
      return [255, 255, 255];
    };
    const result = [];
    let looked = 0;
    for (const element of document.querySelectorAll("body *")) {
      const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
      if (!own || !element.checkVisibility() || element.closest("svg, noscript, .dim, :disabled")) continue;
      looked += 1;
      const style = getComputedStyle(element);
      const [a, b] = [luminance(channels(style.color)), luminance(background(element))];
      const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      const large = parseFloat(style.fontSize) >= 24;
      if (contrast < (large ? 3 : 4.5)) {
        result.push(`${element.className || element.tagName}: ${element.textContent.trim().slice(0, 30)} ${contrast.toFixed(2)}`);
      }
    }
    return { poor: [...new Set(result)], looked };
  });
  assert.deepEqual(poor, []);
  assert.ok(looked > 5, "there is text to look at");
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
