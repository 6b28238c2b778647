//! Asks the host's resolvers about the names that rules name as endpoints outside, and again when an
//! answer's time is over, as long as this sidecar has those rules.
//!
//! IPv4 goes before IPv6: only of a name without the one the other is used, since the way out may not
//! carry both.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::Future,
    net::{IpAddr, Ipv4Addr},
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use heddle_runtime::{clock, task::spawn_contained};
use hickory_proto::{
    op::{Edns, Message, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use tokio::{sync::Semaphore, task::JoinHandle};

use super::{
    forward::{DnsTransport, Forwarder},
    resolve::HOST_NAME,
};
use crate::{
    Shared,
    limits::{
        RESOLVE_AT_ONCE, RESOLVE_FIRST_WAIT, RESOLVE_RETRY_MAX, RESOLVE_RETRY_MIN,
        RESOLVED_TTL_MAX, RESOLVED_TTL_MIN,
    },
    resolved::ResolvedNames,
};

/// Largest answer by datagram that is asked for (RFC 9715 §3.1: fits without fragments).
const EDNS_PAYLOAD: u16 = 1232;

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// In the order of the answer; empty where the name has no address.
    pub(super) addresses: Vec<IpAddr>,
    /// How long that holds.
    pub(super) ttl: Duration,
}

/// Keeps what `shared` knows of names up to date, for ever.
pub(super) async fn run(shared: Arc<Shared>) {
    let forwarder = Rc::new(Forwarder::new(shared.broker.clone()));
    let names = shared.state.resolved.clone();
    keep_all(names, move |host| {
        let (shared, forwarder) = (Arc::clone(&shared), Rc::clone(&forwarder));
        async move { ask(&shared, &forwarder, &host).await }
    })
    .await;
}

/// Asks about every name that is wanted, one task for each.
pub(super) async fn keep_all<F>(names: ResolvedNames, ask: impl Fn(Arc<str>) -> F + 'static)
where
    F: Future<Output = Result<Answer, String>> + 'static,
{
    let (ask, turns) = (Rc::new(ask), Rc::new(Semaphore::new(RESOLVE_AT_ONCE)));
    let tasks: RefCell<BTreeMap<Arc<str>, JoinHandle<()>>> = RefCell::default();
    loop {
        let wanted = names.wanted();
        tasks.borrow_mut().retain(|host, task| {
            let keep = wanted.contains(host) && !task.is_finished();
            if !keep {
                task.abort();
            }
            keep
        });
        for host in wanted {
            let begin = || {
                let (names, ask, turns) = (names.clone(), Rc::clone(&ask), Rc::clone(&turns));
                let host = Arc::clone(&host);
                spawn_contained("name outside", async move {
                    keep(&names, &host, &turns, || ask(Arc::clone(&host))).await;
                })
            };
            tasks.borrow_mut().entry(Arc::clone(&host)).or_insert_with(begin);
        }
        names.wants_other().await;
    }
}

/// Asks about one name, again and again.
async fn keep<F>(names: &ResolvedNames, host: &str, turns: &Semaphore, ask: impl Fn() -> F)
where
    F: Future<Output = Result<Answer, String>>,
{
    let mut retry = RESOLVE_RETRY_MIN;
    while names.is_wanted(host) {
        let mut asking = pin!(async {
            let _turn = turns.acquire().await;
            ask().await
        });
        let answer = match clock::within(RESOLVE_FIRST_WAIT, asking.as_mut()).await {
            Some(answer) => answer,
            None => {
                // Who waits is told so; the answer is still welcome.
                let limit = RESOLVE_FIRST_WAIT.as_millis();
                names.failed(
                    host,
                    &format!("no resolver of the host has answered within {limit} ms"),
                );
                asking.await
            }
        };
        let said = match answer {
            Ok(Answer { addresses, ttl }) if !addresses.is_empty() => {
                names.answered(host, addresses);
                retry = RESOLVE_RETRY_MIN;
                clock::sleep(ttl.clamp(RESOLVED_TTL_MIN, RESOLVED_TTL_MAX)).await;
                continue;
            }
            Ok(_) => "it has no address".to_owned(),
            Err(said) => said,
        };
        tracing::debug!(host, said, "a name outside does not resolve");
        names.failed(host, &said);
        clock::sleep(retry).await;
        retry = (retry * 2).min(RESOLVE_RETRY_MAX);
    }
}

/// The addresses of a name that no rule needs to be kept.
///
/// # Errors
/// Why there is none, for people.
pub(super) async fn addresses(
    shared: &Shared,
    forwarder: &Forwarder,
    host: &str,
) -> Result<Vec<IpAddr>, String> {
    let answer = ask(shared, forwarder, host).await;
    match answer.map_err(|said| format!("the name {host}: {said}"))?.addresses {
        none if none.is_empty() => Err(format!("the name {host} has no address")),
        addresses => Ok(addresses),
    }
}

/// What the host's resolvers say of a name.
async fn ask(shared: &Shared, forwarder: &Forwarder, host: &str) -> Result<Answer, String> {
    let fixed = |v4: Ipv4Addr| Ok(Answer { addresses: vec![v4.into()], ttl: RESOLVED_TTL_MAX });
    match (host, shared.ranges.host_gateway()) {
        (HOST_NAME, Some((v4, _))) => return fixed(v4),
        // Dialled from the host, it is the host's own.
        ("localhost", _) => return fixed(Ipv4Addr::LOCALHOST),
        _ => {}
    }
    let v4 = family(forwarder, host, RecordType::A).await;
    let answer = match v4 {
        Ok(answer) if !answer.addresses.is_empty() => answer,
        // No such name has no address of the other family either.
        Err(said) if said.starts_with("NXDomain") => return Err(said),
        v4 => match (v4, family(forwarder, host, RecordType::AAAA).await) {
            (_, Ok(v6)) if !v6.addresses.is_empty() => v6,
            (Err(said), _) | (_, Err(said)) => return Err(said),
            (Ok(answer), Ok(_)) => answer,
        },
    };
    if shared.state.resolved.uses_first(host) {
        shared.outside_names.know(host, &answer.addresses);
    }
    Ok(answer)
}

async fn family(forwarder: &Forwarder, host: &str, kind: RecordType) -> Result<Answer, String> {
    let query = query(host, kind).ok_or("it is no name that can be asked about")?;
    let silent = || "no resolver of the host answered".to_owned();
    let mut reply = forwarder.ask(&query, DnsTransport::Udp).await.ok_or_else(silent)?;
    let truncated = Message::from_vec(&reply).is_ok_and(|reply| reply.metadata.truncation);
    if truncated {
        reply = forwarder.ask(&query, DnsTransport::Tcp).await.ok_or_else(silent)?;
    }
    read(&reply)
}

fn query(host: &str, kind: RecordType) -> Option<Vec<u8>> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(format!("{host}.")).ok()?, kind));
    let mut edns = Edns::new();
    edns.set_max_payload(EDNS_PAYLOAD);
    message.set_edns(edns);
    message.to_vec().ok()
}

/// The addresses in a reply, and the time for which all that led to them holds.
fn read(reply: &[u8]) -> Result<Answer, String> {
    let reply = Message::from_vec(reply).map_err(|_| "the answer cannot be read".to_owned())?;
    let code = reply.metadata.response_code;
    if code != ResponseCode::NoError {
        return Err(match code {
            ResponseCode::NXDomain => "NXDomain: there is no such name".to_owned(),
            ResponseCode::ServFail => "ServFail: the resolver failed".to_owned(),
            ResponseCode::Refused => "Refused: the resolver refused to answer".to_owned(),
            other => format!("the resolver said {other}"),
        });
    }
    let mut answer = Answer { addresses: Vec::new(), ttl: RESOLVED_TTL_MAX };
    for record in &reply.answers {
        let ip = match &record.data {
            RData::A(ip) => Some(IpAddr::V4(ip.0)),
            RData::AAAA(ip) => Some(IpAddr::V6(ip.0)),
            _ => None,
        };
        answer.ttl = answer.ttl.min(Duration::from_secs(record.ttl.into()));
        answer.addresses.extend(ip.filter(|ip| !ip.is_unspecified()));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests;
