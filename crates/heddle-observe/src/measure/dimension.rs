//! What is counted at a place, by number.

/// What was counted, as a number that fits a slot: see the constants.
pub(crate) type Dimension = u16;

/// Latency buckets take the dimensions from 0.
pub(crate) const LATENCY: Dimension = 0;
/// TCP connections opened.
pub(crate) const OPENED: Dimension = 32;
/// TCP connections closed.
pub(crate) const CLOSED: Dimension = 33;
/// TCP connections that reached no endpoint.
pub(crate) const UNREACHED: Dimension = 34;
/// TCP bytes to the callee.
pub(crate) const BYTES_TO_CALLEE: Dimension = 35;
/// TCP bytes to the caller.
pub(crate) const BYTES_TO_CALLER: Dimension = 36;
/// Gauge: requests in flight.
pub(crate) const REQUESTS_IN_FLIGHT: Dimension = 37;
/// Gauge: connections open.
pub(crate) const CONNECTIONS_OPEN: Dimension = 38;
/// Milliseconds of all calls that are in a latency bucket, added up.
pub(crate) const LATENCY_SUM: Dimension = 39;
/// Refusals.
pub(crate) const REFUSED: Dimension = 40;
/// Whatever else a sidecar counts.
pub(crate) const COUNTED: Dimension = 41;
/// Gauge: requests of the workload's own in flight.
pub(crate) const OWN_REQUESTS_IN_FLIGHT: Dimension = 42;
/// Gauge: connections of the workload's own open.
pub(crate) const OWN_CONNECTIONS_OPEN: Dimension = 43;
/// Kinds of answers ([`super::Answers`]) take the dimensions from here.
pub(crate) const ANSWER: Dimension = 64;

/// Is it a gauge, whose values are averaged over rounds and not divided by time?
pub(crate) fn is_gauge(dimension: Dimension) -> bool {
    matches!(
        dimension,
        REQUESTS_IN_FLIGHT | CONNECTIONS_OPEN | OWN_REQUESTS_IN_FLIGHT | OWN_CONNECTIONS_OPEN
    )
}
