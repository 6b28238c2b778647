// Which side's numbers are a service's own.

import type { Rates } from "../api";

interface Sides {
  client: Rates;
  server: Rates;
}

/** The service's own numbers; its callers' where it has measured nothing. */
export function own(sides: Sides): Rates {
  return sides.server.per_second > 0 ? sides.server : sides.client;
}

/** The side that counts more: what callers sent, also where it never arrived. */
export function fuller(sides: Sides): Rates {
  return sides.client.per_second > sides.server.per_second ? sides.client : sides.server;
}

/** Share of failed calls on the worse side. */
export function failed(sides: Sides): number {
  return 1 - Math.min(sides.client.success, sides.server.success);
}
