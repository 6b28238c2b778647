// What the mesh refused and which names were not found, as tables; also on the page of a service.

import { link, type Address } from "../address";
import { type NameFailure, type RefusalRow, type TlsFailure } from "../api";
import { clock, short } from "../format";
import { Bar, Box, Head } from "../table";
import { title } from "../words";
import { answerInWords, isOnPurpose, refusalInWords } from "./words";

export function Refused({ rows, address, note }: { rows: RefusalRow[]; address: Address; note: string }) {
  const most = Math.max(0, ...rows.map((row) => row.count));
  return (
    <Box title="Refused by the mesh" note={note} empty="No sidecar refused anything in this period." rows={rows.length}>
      <Head texts={["Why", "By the sidecar of", "Service"]} numbers={["Count"]} />
      <tbody>
        {rows.map((row) => (
          <tr key={`${row.by} ${row.direction} ${row.code}`} class={isOnPurpose(row.code) ? "on-purpose" : "failing"}>
            <td class="text wrap">
              {refusalInWords(row.code)} <small>{row.code}</small>
            </td>
            <td class="text">
              {row.by} <small>{row.direction === "outbound" ? "as the caller" : "as the callee"}</small>
            </td>
            <td class="text">
              <a href={link(address, { service: row.service })}>{title(row.service)}</a>
            </td>
            <Bar value={row.count} most={most}>{short(row.count).replace(/\.0$/, "")}</Bar>
          </tr>
        ))}
      </tbody>
    </Box>
  );
}

export function Names({ rows, address, note }: { rows: NameFailure[]; address: Address; note: string }) {
  return (
    <Box title="Names not found" note={note} empty="Every name that was asked for had an address." rows={rows.length}>
      <Head texts={["Name asked for", "Did you mean", "Answer", "Asked by", "Service"]} numbers={["Times", "Last"]} />
      <tbody>
        {rows.map((row) => (
          <tr key={`${row.by} ${row.name} ${row.answer}`} class="degraded">
            <td class="text wrap">{row.name}</td>
            <td class="text">{row.did_you_mean === null ? "–" : <b>{row.did_you_mean}</b>}</td>
            <td class="text">
              {answerInWords(row.answer)} <small>{row.answer}</small>
            </td>
            <td class="text">{row.by}</td>
            <td class="text">
              <a href={link(address, { service: row.service })}>{title(row.service)}</a>
            </td>
            <td>{short(row.count).replace(/\.0$/, "")}</td>
            <td>{clock(row.last, true)}</td>
          </tr>
        ))}
      </tbody>
    </Box>
  );
}

export function WithoutTls({ rows }: { rows: TlsFailure[] }) {
  if (rows.length === 0) return null;
  return (
    <Box title="Connections without TLS" note="in the last minute" empty="" rows={rows.length}>
      <Head texts={["Why", "By the sidecar of"]} numbers={["Since its start", "Last"]} />
      <tbody>
        {rows.map((row) => (
          <tr key={`${row.by} ${row.reason}`} class="failing">
            <td class="text wrap">{row.reason}</td>
            <td class="text">{row.by}</td>
            <td>{short(row.total).replace(/\.0$/, "")}</td>
            <td>{clock(row.last, true)}</td>
          </tr>
        ))}
      </tbody>
    </Box>
  );
}
