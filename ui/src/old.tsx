// Numbers that are no longer renewed: told by a sentence with their time, and by the look of the page.

import type { Live } from "./api";
import { clock } from "./format";

/** Is what is shown older than the last question? */
export function isOld(live: Live<unknown>): boolean {
  return live.error !== null && live.data !== null;
}

/** Above old numbers; nothing above fresh ones. `gone` is said where the server no longer knows them. */
export function OldNote({ live, gone }: { live: Live<{ at: number }>; gone?: string }) {
  if (live.error === null || live.data === null) return null;
  return (
    <p class="old" role="status">
      <b>
        {live.status === 404 && gone ? `${gone} ` : ""}
        The numbers below are from {clock(live.data.at, true)} and no longer change.
      </b>{" "}
      {live.status >= 400 && live.status !== 404 && `The server says: ${live.error}.`}
    </p>
  );
}
