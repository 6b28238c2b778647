import { defineConfig } from "vite";

// One page, one script, one style sheet: nothing is loaded from elsewhere, and the names of the files
// change with their content, so a browser may keep them for ever.
export default defineConfig({
  base: "./",
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: false, chunkSizeWarningLimit: 300 },
  // For `npm run dev` beside a running mesh: HEDDLE_DASHBOARD=http://127.0.0.1:PORT
  server: { proxy: { "/api": process.env.HEDDLE_DASHBOARD ?? "http://127.0.0.1:15080" } },
});
