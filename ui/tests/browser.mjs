// Debian's Chromium, with nothing of its own going on in the background.

import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const EXECUTABLE = process.env.CHROMIUM ?? "/usr/bin/chromium";
const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Why the browser tests cannot run here; false if they can. */
export const missing = existsSync(EXECUTABLE)
  ? false
  : `SKIPPED: no Chromium at ${EXECUTABLE}; install it (apt-get install chromium) or set CHROMIUM`;

/** A browser with a profile of its own; `close` removes both. */
export async function launch(options = {}) {
  const profile = await mkdtemp(join(tmpdir(), "heddle-ui-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: EXECUTABLE,
    args: FLAGS,
    viewport: { width: 1280, height: 800 },
    ...options,
  });
  return {
    context,
    close: async () => {
      await context.close();
      await rm(profile, { recursive: true, force: true });
    },
  };
}
