//! Every limit of the data path, each with its unit and its reason; those of pools and replays are in
//! `heddle_logic::retry`, those of heads and bodies in `heddle_wire::http1`.

use std::time::Duration;

use heddle_model::discovery::MetricChange;

/// Time from a request head's first byte to its last. Slow-header attacks end here.
pub const HEAD_READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Idle time after which an outbound listener closes an application's keep-alive connection. Long,
/// because the application's own pool decides how long it keeps what it opened.
pub const OUTBOUND_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// The same for an inbound listener: far longer than any outbound pool keeps a connection, so the
/// client's side always closes first and no request meets a closing server.
pub const INBOUND_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Time to establish a connection to one endpoint.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The same while other endpoints are left to try: a lost SYN is sent again only after a second, so by
/// then an endpoint that answers has.
pub const CONNECT_ELSEWHERE: Duration = Duration::from_secs(1);

/// How often in a row a connection that a rule allows no other of goes from one request of a worker to
/// the next, while requests of other workers wait for one.
pub const LEFT_IN_A_ROW: u32 = 8;

/// Finished spans on their way from the workers to thread 0; more are dropped.
pub const SPANS_HANDED_OVER: usize = 1024;

/// Readers of live calls at one time; a further one is refused.
pub const TAPS: usize = 8;
/// Lines that wait for one reader of live calls; more are dropped and told.
pub const TAP_LINES_WAITING: usize = 1024;
/// Bytes of them after which more are dropped, too.
pub const TAP_BYTES_WAITING: usize = 256 << 10;
/// Bytes of a path that are shown of a live call.
pub const TAP_PATH_BYTES: usize = 1024;
/// Bytes of any other text of it: a field's value, a reason.
pub const TAP_TEXT_BYTES: usize = 256;

/// Bytes of spans that wait for one receiver, about; more are dropped.
pub const SPANS_WAITING_BYTES: usize = 2 << 20;

/// Spans that are sent at once, so that a message is far below what receivers take (4 MiB of gRPC).
pub const SPANS_AT_ONCE: usize = 256;

/// How long a span waits at most for others that are sent with it.
pub const SPANS_GATHERED: Duration = Duration::from_secs(1);

/// Most time for one batch, connecting included, where its receiver's settings say nothing.
pub const SPANS_TIME: Duration = Duration::from_secs(5);

/// Pause before a receiver that failed is tried again, the first and the longest.
pub const SPANS_RETRY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];

/// Times that a batch is tried before it is dropped.
pub const SPANS_TRIES: u32 = 4;

/// How long a sidecar that ends waits at most until the observer has scraped it once more. It does so while its last
/// spans are sent.
pub const LAST_SCRAPE_MAX: Duration = Duration::from_secs(2);

/// How long what waits is sent on when the sidecar ends.
pub const SPANS_LAST: Duration = Duration::from_secs(1);

/// Receivers of spans at once; those of rules that are gone leave after a while.
pub const SPAN_RECEIVERS: usize = 16;

/// Events of one span; more are counted.
pub const SPAN_EVENTS: usize = 32;

/// Longest value of a span's tag or event, bytes.
pub const SPAN_TAG_BYTES: usize = 1024;

/// Idle connections kept per endpoint and worker; more are closed after use.
pub const POOL_PER_ENDPOINT: usize = 256;

/// How often a worker closes pooled connections that were idle for too long.
pub const POOL_SWEEP: Duration = Duration::from_millis(500);

/// A server that acknowledges nothing for as long, though there is something to acknowledge, is gone, as far
/// as connections are concerned that many requests share. The kernel would wait for a quarter of an hour.
pub const SERVER_SILENCE: Duration = Duration::from_secs(10);

/// A pooled connection idle for less than this is trusted to readiness events alone for requests
/// that may be replayed; others are asked (one system call) whether the peer closed.
pub const POOL_TRUST: Duration = Duration::from_millis(20);

/// A server at which requests wait on new connections counts as held up by idle ones when nobody's turn
/// has come for so long: longer than most answers take, and nothing that a person notices.
pub const BACKLOG_PATIENCE: Duration = Duration::from_millis(20);

/// But no sooner than after so many times what connecting to it took.
pub const BACKLOG_CONNECTS: u32 = 4;

/// It counts so for as long as requests wait, and at most for this long before it is looked at anew.
pub const BACKLOG_ROOM: Duration = Duration::from_secs(1);

/// Open connections per direction and proxy, where the limit of open files allows so many.
pub const CONNECTIONS_TOTAL: usize = 20_000;

/// Descriptors of a connection: its own and that to where it goes.
pub const DESCRIPTORS_PER_CONNECTION: usize = 2;

/// Descriptors a sidecar needs besides: listeners, the control plane, DNS, pipes, connections kept at
/// hand. At most a quarter of all.
pub const DESCRIPTORS_RESERVED: usize = 512;

/// Connections of one direction that a process with so many descriptors can keep its promise of.
#[must_use]
pub fn connections_within(open_files: u64) -> usize {
    let open_files = usize::try_from(open_files).unwrap_or(usize::MAX);
    let left = open_files - DESCRIPTORS_RESERVED.min(open_files / 4);
    let both = left / DESCRIPTORS_PER_CONNECTION;
    (both / 2).clamp(1, CONNECTIONS_TOTAL)
}

/// Open inbound connections per source address and proxy, all workers together.
pub const CONNECTIONS_PER_SOURCE: usize = 10_000;

/// On an undeclared port known to speak HTTP the early dial waits for this much client silence.
pub const EARLY_DIAL_SILENCE: Duration = Duration::from_secs(1);

/// A client that nobody can serve is reset, as it would have been without a mesh, and at once as far
/// as anybody can tell. So much later only that the request of an HTTP client, which follows its
/// connect by less, is answered with a reason.
pub const REFUSAL_GRACE: Duration = Duration::from_millis(50);

/// From a client's first byte of TLS to the end of its ClientHello, of which at most
/// [`CLIENT_HELLO_BYTES_MAX`](heddle_wire::client_hello::CLIENT_HELLO_BYTES_MAX) are waited for. Then it is
/// served as one that names nobody.
pub const CLIENT_HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait of a finished inbound request's record for its peer's identity.
pub const PEER_WAIT: Duration = Duration::from_secs(2);

/// Bytes of a buffer: a head with a body of 16 KiB in one read.
pub const BUFFER_BYTES: usize = 24 * 1024;

/// A body part up to this size is copied behind its head and written with it; a larger one is
/// written from where it was read.
pub const COPY_BYTES: usize = 4 * 1024;

/// Free buffers a worker keeps.
pub const BUFFERS_KEPT: usize = 64;

/// A body (or rest of one) of at least this many bytes is moved by splice.
pub const SPLICE_BODY_BYTES: u64 = 64 * 1024;

/// A TCP direction is bulky, and moved by splice, after this many full buffers in a row.
pub const SPLICE_AFTER_FULL_READS: u32 = 8;

/// Behind a response that ends a connection, what the client still sends is read and dropped, since a
/// reset would destroy the response on its way: for this long at most. Clients that read no response
/// before all of their upload is sent need the time (nginx: `lingering_time`).
pub const LINGER_TIME: Duration = Duration::from_secs(30);

/// So long a silence ends that reading (nginx: `lingering_timeout`).
pub const LINGER_SILENCE: Duration = Duration::from_secs(5);

/// Most bytes that are read and dropped so.
pub const LINGER_BYTES: u64 = 1 << 30;

/// How often a sidecar with a memory limit looks at its memory: what an attack can take in this time
/// is what it may exceed a step by.
pub const MEMORY_LOOK: Duration = Duration::from_millis(50);

/// How often a sidecar looks whether it keeps memory that is free.
pub const MEMORY_RETURN: Duration = Duration::from_secs(5);

/// Streams that a client of HTTP/2 may have open at once on one connection.
pub const HTTP2_STREAMS: u32 = 100;

/// Bytes of one stream's body that a peer of HTTP/2 may send before they are passed on.
pub const HTTP2_STREAM_WINDOW: u32 = 256 * 1024;

/// The same for all streams of one connection together: what a slow side can make this one hold.
pub const HTTP2_CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Bytes of the fields of one head of HTTP/2, uncompressed, as HPACK counts them.
pub const HTTP2_HEADER_LIST_BYTES: u32 = 64 * 1024;

/// Bytes of frames of one stream that wait to be written.
pub const HTTP2_SEND_BUFFER_BYTES: usize = 256 * 1024;

/// What small DATA frames that wait to be passed on may cost beyond their bytes, each up to 256 bytes, before a
/// connection of HTTP/2 ends: as many as a connection's window has room for, of gRPC's smallest messages (6
/// bytes), so that a slow receiver makes their sender wait, as flow control has it, and ends nobody.
pub const HTTP2_SMALL_FRAMES_BYTES: usize = HTTP2_CONNECTION_WINDOW as usize / 6 * 256;

/// Streams that were reset and are still known, and those that a client reset before they were looked at:
/// with more its connection ends with ENHANCE_YOUR_CALM.
pub const HTTP2_RESET_STREAMS: usize = 50;

/// Requests tried in vain that a sidecar knows, the newest: so many, and as many before those.
pub const SPENT_IDS: usize = 4_096;

/// And for so long at least, unless others come: longer than most requests take.
pub const SPENT_TIME: Duration = Duration::from_secs(30);

/// Copies for mirrors that a worker has on their way at once; of more requests none is made.
pub const MIRRORS_AT_ONCE: usize = 256;

/// Bytes of a copy's body that wait to be taken; one that falls further behind is cut.
pub const MIRROR_BUFFER_BYTES: usize = 256 * 1024;

/// Time for a copy and its answer.
pub const MIRROR_TIME: Duration = Duration::from_secs(60);

/// Bytes of a body that are compared with those of a mirror's; of longer ones their lengths are, besides.
pub const COMPARED_BODY_BYTES: u64 = 1024 * 1024;

/// Mirrors whose answers are counted each for itself; those of others together.
pub const COMPARED_MIRRORS: usize = 64;

/// Bytes above the fewest it ever had from which a sidecar asks its allocator for free memory.
pub const MEMORY_KEPT_FREE: u64 = 4 * 1024 * 1024;

/// Looks at most that pass after nothing was free: half a minute.
pub const MEMORY_RETURN_PAUSES: u32 = 6;

/// Percent of the memory limit from which idle connections and free buffers are given up.
pub const MEMORY_SHRINK: u128 = 85;

/// Percent of the memory limit from which new requests are refused.
pub const MEMORY_REFUSE_REQUESTS: u128 = 92;

/// Percent of the memory limit from which new connections are refused.
pub const MEMORY_REFUSE_CONNECTIONS: u128 = 97;

/// TCP keepalive idle time on accepted and dialled connections: a vanished peer is noticed.
pub const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// Label sets per proxy; further ones are folded into overflow series and counted.
pub const LABEL_SETS: usize = 2_000;

/// How often messages of calls of gRPC that go on are counted, where no rule says so (Istio's `reportingInterval`).
pub const REPORTING_INTERVAL: Duration = Duration::from_secs(5);

/// How often it is looked whether label sets are still in use.
pub const SERIES_SWEEP: Duration = Duration::from_secs(60);

/// A label set under which nothing was counted for so many looks makes room.
pub const SERIES_IDLE_SWEEPS: u32 = 60;

/// Longest value that a rule gives a tag, bytes: what a client says may be in it.
pub const TAG_VALUE_BYTES: usize = 128;

/// Most tags of one metric that rules change; further ones are left as they are.
pub const TAGS_CHANGED: usize = MetricChange::TAGS_MAX;

/// Values of tags per edge and worker whose series are at hand; beyond they are looked up again.
pub const TAGGED_AT_HAND: usize = 256;

/// Of all label sets, those of hosts outside the mesh; further ones are folded into one for all such hosts
/// per status class. Their names are whatever the workload asks for.
pub const LABEL_SETS_OUTSIDE: usize = 500;

/// Overflow label sets per proxy: one for each service and status class (another for injected aborts),
/// then one for all services.
pub const OVERFLOW_LABEL_SETS: usize = 256;

/// HTTP rules with counters of their own per proxy; further ones share theirs.
pub const RULES_COUNTED: usize = 256;

/// Templates of paths with counters of their own per proxy; further ones share theirs.
pub const PATHS_COUNTED: usize = 64;
/// Templates that a worker has at hand; beyond it those are forgotten that nothing has answered yet.
pub const PATHS_AT_HAND: usize = 256;

/// Names without an address that are told; when there are more, the one asked for longest ago is forgotten.
pub const FAILED_NAMES: usize = 128;

/// `(destination, port)` pairs with protocol verdicts per proxy; further ones share one.
pub const VERDICT_PORTS: usize = 512;

/// Of those, pairs of one destination; its further ports share one, number 0. Outside the mesh all ports
/// are one destination's, and so are a workload's own undeclared ones.
pub const VERDICT_PORTS_PER_DESTINATION: usize = 128;

/// Bytes of metrics text that are made at once while a scraper takes them.
pub const SCRAPE_PIECE_BYTES: usize = 32 * 1024;

/// Peers whose series an inbound worker keeps at hand.
pub const PEERS_CACHED: usize = 1_024;

/// Bytes of a Host used as a label for destinations outside the mesh (a DNS name's longest).
pub const HOST_LABEL_BYTES: usize = 253;

/// Pause after accept failed for want of descriptors or memory, so that a full process does not spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Finished requests that wait for their caller's identity, per caller; more are recorded as unknown.
pub const RECORDS_WAITING: usize = 4_096;

/// Ports of services (and of this workload) whose state a worker keeps.
pub const PORTS_KEPT: usize = 1_024;

/// Addresses outside the mesh of which a worker remembers that they speak HTTP.
pub const HTTP_SEEN_KEPT: usize = 1_024;

/// Names outside whose addresses are known, to try another one where the first refuses.
pub const OUTSIDE_NAMES_KEPT: usize = 1_024;

/// Names outside that are resolved for rules (ServiceEntry `resolution: DNS`); more are refused by name.
pub const RESOLVED_NAMES_MAX: usize = 1_024;

/// Addresses of one such name that are used.
pub const RESOLVED_ADDRESSES_MAX: usize = 64;

/// An answer holds no shorter, so that a resolver that says 0 is not asked all the time.
pub const RESOLVED_TTL_MIN: Duration = Duration::from_secs(1);

/// An answer holds no longer.
pub const RESOLVED_TTL_MAX: Duration = Duration::from_secs(3_600);

/// Names that are asked about at one time.
pub const RESOLVE_AT_ONCE: usize = 16;

/// How long rules that name a host wait for its first answer: less than who asks for the rules.
pub const RESOLVE_FIRST_WAIT: Duration = Duration::from_millis(1_500);

/// How long a call waits that names a host which is looked up for it (`resolution: DYNAMIC_DNS`).
pub const LOOK_UP_WAIT: Duration = Duration::from_secs(3);

/// How long a host that calls named is kept up to date after the last one.
pub const LOOKED_UP_KEPT: Duration = Duration::from_secs(300);

/// Pause after the first answer that was none; it doubles.
pub const RESOLVE_RETRY_MIN: Duration = Duration::from_secs(1);

/// The longest such pause.
pub const RESOLVE_RETRY_MAX: Duration = Duration::from_secs(30);

/// Addresses of each family kept per name outside.
pub const OUTSIDE_ADDRESSES_PER_NAME: usize = 8;

/// Addresses tried for one connection to a name outside.
pub const OUTSIDE_ATTEMPTS: usize = 8;

/// Endpoints tried for one TCP connection; with more behind a service, that many in a row that do
/// not accept connections mean that trying on helps nobody.
pub const TCP_ATTEMPTS: usize = 16;

/// Least time between two warnings of one worker about single requests; the others are `debug`.
pub const WARNINGS_APART: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_connections_are_promised_than_there_are_descriptors_for() {
        for (open_files, connections) in [
            (1_048_576, CONNECTIONS_TOTAL),
            (80_512, CONNECTIONS_TOTAL),
            (20_000, 4_872),
            (1_024, 192),
            (100, 18),
            (0, 1),
            (u64::MAX, CONNECTIONS_TOTAL),
        ] {
            assert_eq!(connections_within(open_files), connections, "{open_files}");
        }
    }
}
