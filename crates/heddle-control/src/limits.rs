//! Every bound of the control plane, in one place, with its unit and reason.

use std::time::Duration;

use heddle_wire::discovery::transport::MESSAGE_BYTES_MAX;

/// Workloads in one mesh. A /16 of addresses holds more; memory and scrape time are the bound.
pub(crate) const WORKLOADS_MAX: usize = 10_000;
/// Ports one workload may declare.
pub(crate) const PORTS_PER_WORKLOAD_MAX: usize = 64;
/// Labels one workload may carry, `app` and `version` included.
pub(crate) const LABELS_MAX: usize = 64;
/// Kubernetes' bound on a label's value and on the name part of its key, bytes.
pub(crate) const LABEL_BYTES_MAX: usize = 63;
/// Kubernetes' bound on the prefix of a label's key, bytes.
pub(crate) const LABEL_PREFIX_BYTES_MAX: usize = 253;
/// How long a freed address is not given to another name, seconds: clients may still hold it.
pub(crate) const ADDRESS_QUARANTINE_SECONDS: u64 = 600;
/// First index given out in each range; those below are the hub's, the host gateway's and spare.
pub(crate) const ADDRESS_INDEX_FIRST: u32 = 10;
/// Tries to find a free id suffix before a join is refused.
pub(crate) const ID_TRIES_MAX: usize = 64;

/// Largest body of a call on `control.sock`, bytes: a cluster's export of 10,000 objects as JSON text.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest rule file, bytes; the reader of YAML has the same bound.
pub(crate) const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Rule files of the `--config` folder. Of one with more nothing new is read: half a folder may be
/// worse than what is in force.
pub(crate) const FILES_MAX: usize = 20_000;
/// Objects in force, from all sources: twice what a large cluster's export holds.
pub(crate) const RESOURCES_MAX: usize = 20_000;
/// Problems in one answer; the rest is counted in a last line.
pub(crate) const PROBLEMS_MAX: usize = 100;
/// Longest a call may ask to wait for acknowledgements.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(300);
/// How long a withdrawal waits for acknowledgements before the application is told to stop.
pub(crate) const WITHDRAW_WAIT: Duration = Duration::from_secs(1);

/// Files saved within this time of one another are one generation.
pub(crate) const FILES_SETTLE: Duration = Duration::from_millis(20);
/// A folder that never comes to rest is read after this time all the same.
pub(crate) const FILES_SETTLE_MAX: Duration = Duration::from_millis(200);
/// A file that is opened for writing and never closed is read after this time.
pub(crate) const FILE_WRITING_MAX: Duration = Duration::from_secs(1);
/// How often a vanished `--config` folder is looked for.
pub(crate) const FOLDER_RETRY: Duration = Duration::from_secs(1);
/// How often the targets of links in the `--config` folder are looked at.
pub(crate) const LINKS_INTERVAL: Duration = Duration::from_millis(500);
/// File events waiting to be handled; beyond it the whole folder is read again.
pub(crate) const FILE_EVENTS_MAX: usize = 1_024;

/// Least time between two writes of the member journal.
pub(crate) const JOURNAL_INTERVAL: Duration = Duration::from_millis(20);
/// How long a join waits for the journal; a folder that cannot be written must not stop it.
pub(crate) const JOURNAL_WAIT: Duration = Duration::from_secs(1);
/// Largest member journal read back, bytes.
pub(crate) const JOURNAL_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Generations reserved in the store at a time, so that an endpoint's change needs no disk write.
pub(crate) const GENERATION_RESERVE: u64 = 1_000;
/// How often a store that could not be written is tried again.
pub(crate) const STORE_RETRY: Duration = Duration::from_secs(1);
/// The store's page cache, bytes: it is read once at start.
pub(crate) const STORE_CACHE_BYTES: usize = 1024 * 1024;

/// Names one proxy may be subscribed to, all types together.
pub(crate) const SUBSCRIPTIONS_MAX: usize = 50_000;
/// Encoded resources kept per type (per client view for destinations), asked for or not.
pub(crate) const VIEWS_MAX: usize = 20_000;
/// Longest resource name, bytes: namespace, `/` and a host name.
pub(crate) const RESOURCE_NAME_BYTES_MAX: usize = 63 + 1 + 253;
/// Proxies connected at a time.
pub(crate) const SESSIONS_MAX: usize = WORKLOADS_MAX;
/// Response groups sent and not yet acknowledged, per proxy; further changes coalesce.
pub(crate) const GROUPS_IN_FLIGHT_MAX: usize = 64;
/// Resources in one response: keeps a message far below gRPC's 4 MiB.
pub(crate) const RESOURCES_PER_RESPONSE_MAX: usize = 500;
/// Bytes of resources in one response after which another one is begun.
pub(crate) const RESPONSE_BYTES_MAX: usize = 1024 * 1024;
/// Encoded bytes of one destination: with what may come beside it in a response, it stays below
/// what a proxy takes in one message.
pub(crate) const DESTINATION_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 2;
/// The same for the endpoints of one service, which are one resource too.
pub(crate) const ENDPOINTS_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 2;
/// Bytes of a NACK's text that are kept.
pub(crate) const NACK_BYTES_MAX: usize = 2_048;
/// How long after a restart sidecars are expected back: twice their longest pause between attempts.
pub(crate) const RETURN_WAIT: Duration = Duration::from_secs(2);
/// Generations of which the affected proxies are remembered for `wait`.
pub(crate) const GENERATIONS_REMEMBERED_MAX: usize = 1_024;
