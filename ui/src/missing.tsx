// An address that leads nowhere: what was asked for, and where one can go.

import { format, link, type Address } from "./address";
import type { Page } from "./pages";

export function Missing({ address, pages }: { address: Address; pages: Page[] }) {
  return (
    <main>
      <div class="empty">
        <h1>There is no such page</h1>
        <p>
          <code>{format({ ...address, filter: {}, range: "live", selected: null, table: false })}</code> leads nowhere. There are:
        </p>
        <ul class="places">
          {pages.filter((page) => page.link).map((page) => (
            <li key={page.path}>
              <a href={link(address, { page: page.path })}>{page.link}</a> <code>#/{page.path}</code>
            </li>
          ))}
          <li>
            a service <code>#/service/NAMESPACE/NAME</code>
          </li>
        </ul>
      </div>
    </main>
  );
}
