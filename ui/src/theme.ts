// Light, dark, or as the system says: one attribute on the root element, one set of CSS variables.

import { useEffect, useState } from "preact/hooks";

type Theme = "auto" | "light" | "dark";
const KEY = "heddle.theme";
const NEXT: Record<Theme, Theme> = { auto: "light", light: "dark", dark: "auto" };

function stored(): Theme {
  try {
    const value = localStorage.getItem(KEY);
    return value === "light" || value === "dark" ? value : "auto";
  } catch {
    return "auto";
  }
}

function show(theme: Theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

show(stored());

/** The theme chosen, and a step to the next one. */
export function useTheme(): [Theme, () => void] {
  const [theme, setTheme] = useState<Theme>(stored);
  useEffect(() => {
    show(theme);
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // Without storage the choice lasts as long as the page.
    }
    window.dispatchEvent(new Event("heddle-theme"));
  }, [theme]);
  return [theme, () => setTheme(NEXT[theme])];
}

/** Calls back whenever colours change: charts are drawn on canvas and must be drawn anew. */
export function useThemeChange(changed: () => void) {
  useEffect(() => {
    const query = window.matchMedia("(prefers-color-scheme: dark)");
    window.addEventListener("heddle-theme", changed);
    query.addEventListener("change", changed);
    return () => {
      window.removeEventListener("heddle-theme", changed);
      query.removeEventListener("change", changed);
    };
  }, []);
}

/** A CSS variable as the colour it is now: canvas does not understand `light-dark()`. */
export function colour(name: string): string {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}
