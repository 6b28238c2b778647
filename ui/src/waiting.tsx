// Before the first answer of a page of lists, or instead of it.

export function Waiting({ refused }: { refused: string | null }) {
  if (refused === null) return <p class="note" aria-busy="true">Waiting for the first numbers …</p>;
  return (
    <div class="empty">
      <h1>This period cannot be shown</h1>
      <p>{refused}</p>
    </div>
  );
}
