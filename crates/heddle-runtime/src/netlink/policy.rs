//! Routes by mark: packets that carry it are this machine's own, wherever they are addressed to.

use std::{fmt, io};

use super::{Netlink, NetlinkError, RTMSG_BYTES, message::Message};

const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FR_ACT_TO_TBL: u8 = 1;
/// Length of a struct fib_rule_hdr.
const RULE_BYTES: usize = 12;

/// An address family with routes of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl RouteFamily {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    fn number(self) -> u8 {
        match self {
            Self::V4 => libc::AF_INET as u8,
            Self::V6 => libc::AF_INET6 as u8,
        }
    }
}

impl fmt::Display for RouteFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

impl Netlink {
    /// Routes what is marked with `mark` to the loopback link, as if this machine had every address: a rule with the
    /// priority `table` leads to a route in that table. As often as one likes.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN, EOPNOTSUPP or EAFNOSUPPORT if the kernel lacks rules or the family.
    pub fn route_marked_here(
        &mut self,
        family: RouteFamily,
        mark: u32,
        table: u8,
    ) -> Result<(), NetlinkError> {
        let loopback = self.link_index("lo")?;
        let replace = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let mut route = Message::new(libc::RTM_NEWROUTE, replace, &route_header(family, table));
        route.attribute(libc::RTA_OIF, &loopback.to_ne_bytes());
        self.request(route, || format!("route marked {family} to this machine in table {table}"))?;
        let create = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let rule = rule_message(RTM_NEWRULE, create, family, (mark, table));
        let added = self.request(rule, || format!("add the {family} rule for mark {mark:#x}"));
        unless(added, &[libc::EEXIST])
    }

    /// Takes that back, if it was.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN.
    pub fn forget_marked(
        &mut self,
        family: RouteFamily,
        mark: u32,
        table: u8,
    ) -> Result<(), NetlinkError> {
        // No rule, no table, no such route, or nothing of all that in this kernel.
        let absent = [libc::ENOENT, libc::ESRCH, libc::EOPNOTSUPP, libc::EAFNOSUPPORT];
        let rule = rule_message(RTM_DELRULE, libc::NLM_F_ACK, family, (mark, table));
        let removed = self.request(rule, || format!("remove the {family} rule for mark {mark:#x}"));
        unless(removed, &absent)?;
        let header = route_header(family, table);
        let route = Message::new(libc::RTM_DELROUTE, libc::NLM_F_ACK, &header);
        let removed = self.request(route, || format!("remove the {family} route of table {table}"));
        unless(removed, &absent)
    }
}

fn unless(result: Result<(), NetlinkError>, harmless: &[i32]) -> Result<(), NetlinkError> {
    let is_harmless =
        |error: &io::Error| error.raw_os_error().is_some_and(|errno| harmless.contains(&errno));
    match result {
        Err(error) if is_harmless(&error.source) => Ok(()),
        result => result,
    }
}

/// struct rtmsg of a route to everything, which is this machine.
fn route_header(family: RouteFamily, table: u8) -> [u8; RTMSG_BYTES] {
    let mut header = [0; RTMSG_BYTES];
    header[0] = family.number();
    header[4] = table;
    header[5] = libc::RTPROT_STATIC;
    header[6] = libc::RT_SCOPE_HOST;
    header[7] = libc::RTN_LOCAL;
    header
}

fn rule_message(kind: u16, flags: i32, family: RouteFamily, (mark, table): (u32, u8)) -> Message {
    let mut header = [0; RULE_BYTES];
    header[0] = family.number();
    header[4] = table;
    header[7] = FR_ACT_TO_TBL;
    let mut message = Message::new(kind, flags, &header);
    message
        .attribute(FRA_PRIORITY, &u32::from(table).to_ne_bytes())
        .attribute(FRA_FWMARK, &mark.to_ne_bytes());
    message
}
