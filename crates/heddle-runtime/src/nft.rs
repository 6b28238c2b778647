//! The redirection of a workload by nftables messages of our own: one atomic batch that replaces whatever an
//! earlier one installed. Which rules, and in which order, is [`crate::redirect`]'s.

use std::{io, net::IpAddr};

use crate::{
    netlink::{message::Message, socket::NetlinkSocket},
    redirect::{self, Chain, Condition, Hook, RedirectRules, TABLE},
};

mod expression;

use expression::Rule;

const NF_INET_PRE_ROUTING: u32 = 0;
const NF_INET_LOCAL_OUT: u32 = 3;
/// Kernels with IPv6 have it.
const IPV6_SETTINGS: &str = "/proc/sys/net/ipv6";

const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;

/// The kernel refused the rules.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}{}", detail.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
pub struct NftError {
    /// What was asked.
    pub what: &'static str,
    /// The kernel's errno.
    pub source: io::Error,
    /// The kernel's own words, if it had any.
    pub detail: Option<String>,
}

/// The table's family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// IPv4 and IPv6 in one table (NAT there since Linux 5.2).
    Both = 1,
    Ipv4 = 2,
    Ipv6 = 10,
}

/// Puts the rules in force in the current network namespace, in place of those of an earlier call:
/// no packet meets neither. On an error the earlier ones stay.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN, ENOENT or EOPNOTSUPP if the kernel lacks nf_tables, NAT or redirect.
pub fn install_redirect(rules: &RedirectRules) -> Result<(), NftError> {
    match send(install_batch(rules, &[Family::Both])) {
        Err(error) if lacks_family(&error.source) => {
            let both = [Family::Ipv4, Family::Ipv6];
            let has_ipv6 = std::fs::exists(IPV6_SETTINGS).unwrap_or(true);
            send(install_batch(rules, if has_ipv6 { &both } else { &both[..1] }))
        }
        result => result,
    }
}

fn lacks_family(error: &io::Error) -> bool {
    let unsupported = [libc::EAFNOSUPPORT, libc::EOPNOTSUPP, libc::ENOENT];
    error.raw_os_error().is_some_and(|errno| unsupported.contains(&errno))
}

fn send(batch: Vec<Message>) -> Result<(), NftError> {
    let what = "open a netfilter socket (is nf_tables in this kernel?)";
    let mut socket = NetlinkSocket::open(libc::NETLINK_NETFILTER).map_err(|source| NftError {
        what,
        source,
        detail: None,
    })?;
    let result = socket.batch(batch);
    let detail = socket.take_detail();
    let what = "change the redirection rules";
    result.map_err(|source| NftError { what, source, detail })
}

fn install_batch(rules: &RedirectRules, families: &[Family]) -> Vec<Message> {
    let mut changes = Vec::new();
    for family in families {
        changes.extend(fresh_table(*family));
        let chains = rules.chains();
        changes.extend(chains.iter().map(|own| chain(*family, own)));
        for Chain { name, rules, .. } in &chains {
            let own = rules.iter().filter(|rule| is_of(rule, *family));
            changes.extend(own.map(|own| rule(*family, name, &Rule::from(own))));
        }
    }
    batch(changes)
}

/// A rule about an address of another family means nothing in this one's table.
fn is_of(rule: &redirect::Rule, family: Family) -> bool {
    rule.conditions.iter().all(|condition| match condition {
        Condition::To(network) | Condition::NotBy(network) => match network.address {
            IpAddr::V4(_) => family != Family::Ipv6,
            IpAddr::V6(_) => family != Family::Ipv4,
        },
        _ => true,
    })
}

/// Changes that the kernel makes all at once or not at all; the last one is acknowledged.
fn batch(changes: Vec<Message>) -> Vec<Message> {
    let subsystem = NFNL_SUBSYS_NFTABLES.to_be_bytes();
    let header = [0, 0, subsystem[0], subsystem[1]];
    let mut batch = vec![Message::new(NFNL_MSG_BATCH_BEGIN, 0, &header)];
    batch.extend(changes);
    batch.push(Message::new(NFNL_MSG_BATCH_END, 0, &header));
    batch
}

/// Adds the table (it may be there), removes it with all it holds, adds it anew.
fn fresh_table(family: Family) -> [Message; 3] {
    [NFT_MSG_NEWTABLE, NFT_MSG_DELTABLE, NFT_MSG_NEWTABLE].map(|kind| {
        let mut message = change(kind, family);
        message.text(NFTA_TABLE_NAME, TABLE);
        message
    })
}

fn chain(family: Family, Chain { name, kind, hook, .. }: &Chain) -> Message {
    let hook = match hook {
        Hook::Output => NF_INET_LOCAL_OUT,
        Hook::Prerouting => NF_INET_PRE_ROUTING,
    };
    let mut message = change(NFT_MSG_NEWCHAIN, family);
    message
        .text(NFTA_CHAIN_TABLE, TABLE)
        .text(NFTA_CHAIN_NAME, name)
        .nested(NFTA_CHAIN_HOOK, |attributes| {
            attributes
                .attribute(NFTA_HOOK_HOOKNUM, &hook.to_be_bytes())
                .attribute(NFTA_HOOK_PRIORITY, &kind.priority().to_be_bytes());
        })
        .text(NFTA_CHAIN_TYPE, &kind.to_string());
    message
}

fn rule(family: Family, chain: &str, expressions: &Rule) -> Message {
    let mut message = change(NFT_MSG_NEWRULE, family);
    message
        .text(NFTA_RULE_TABLE, TABLE)
        .text(NFTA_RULE_CHAIN, chain)
        .nested(NFTA_RULE_EXPRESSIONS, |list| expressions.write(list));
    message
}

fn change(kind: u16, family: Family) -> Message {
    // Every change asks for its acknowledgement: the last one's tells that all are in force.
    let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_APPEND;
    Message::new(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, &[family as u8, 0, 0, 0])
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        net::{TcpListener, TcpStream},
    };

    fn remove_batch(families: &[Family]) -> Vec<Message> {
        let mut changes = Vec::new();
        for family in families {
            let [add, delete, _] = fresh_table(*family);
            changes.extend([add, delete]);
        }
        batch(changes)
    }

    use super::*;
    use crate::sys;

    /// For kernels without NAT in one table for both families; redirection itself is tested from
    /// outside of this crate.
    #[test]
    fn a_table_for_each_family_works_too() {
        if sys::process::effective_ids().0 != 0 {
            let line = b"SKIPPED nft::tests::a_table_for_each_family_works_too: it needs root\n";
            io::stderr().write_all(line).expect("stderr takes a line");
            return;
        }
        // A thread of its own: it does not come back from its network namespace.
        let thread = std::thread::spawn(|| {
            sys::namespace::unshare(libc::CLONE_NEWNET).expect("a network namespace");
            sys::namespace::loopback_up().expect("comes up");
            let mut rules = RedirectRules::all(redirect::Escape::Mark(1), [15001, 15006, 15053]);
            rules.inbound_excluded = vec![15020];
            rules.callers_kept_at =
                ["192.0.2.7", "2001:db8::7"].map(|ip| ip.parse().unwrap()).to_vec();
            for _ in 0..2 {
                send(install_batch(&rules, &[Family::Ipv4, Family::Ipv6])).expect("installs");
            }
            for address in ["127.0.0.1", "::1"] {
                let listener = TcpListener::bind((address, 15053)).expect("binds");
                let client = TcpStream::connect((address, 53)).expect("is redirected");
                let (_, peer) = listener.accept().expect("accepts");
                assert_eq!(client.local_addr().expect("connected"), peer);
            }
            send(remove_batch(&[Family::Ipv4, Family::Ipv6])).expect("removes");
            TcpStream::connect(("127.0.0.1", 53)).expect_err("nobody listens there");
        });
        thread.join().expect("holds");
    }
}
