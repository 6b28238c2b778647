//! The host's resolver files, read and rewritten for a workload.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    path::Path,
};

/// Where the host's resolvers are told.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where the host's name services are told.
pub const NSSWITCH_CONF: &str = "/etc/nsswitch.conf";
/// libc reads three name servers and no more.
const NAMESERVERS_MAX: usize = 3;
const DNS_PORT: u16 = 53;

/// What resolv.conf says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResolverConfig {
    /// Name servers in order, at most three; 127.0.0.1 where none is named, as libc does.
    pub nameservers: Vec<SocketAddr>,
    /// Search domains in order.
    pub search: Vec<String>,
    /// Options, each as written (`ndots:2`, `rotate`).
    pub options: Vec<String>,
}

impl ResolverConfig {
    /// Reads a resolv.conf; one that is absent or unreadable says nothing, as for libc.
    pub fn read(path: &Path) -> Self {
        Self::parse(&String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()))
    }

    /// Parses a resolv.conf as libc does: unknown lines are skipped, the last `search` or `domain`
    /// counts, options add up.
    pub fn parse(text: &str) -> Self {
        let mut config = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") if config.nameservers.len() < NAMESERVERS_MAX => {
                    config.nameservers.extend(words.next().and_then(nameserver));
                }
                Some("search") => config.search = words.map(str::to_owned).collect(),
                Some("domain") => config.search = words.take(1).map(str::to_owned).collect(),
                Some("options") => config.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        if config.nameservers.is_empty() {
            config.nameservers.push((Ipv4Addr::LOCALHOST, DNS_PORT).into());
        }
        config
    }

    /// A workload's resolv.conf: one name server, the mesh's search domains before the host's, the
    /// host's options.
    pub fn for_workload(&self, nameserver: IpAddr, mesh_search: &[String]) -> String {
        let mut text = format!("# Written by heddle for this workload.\nnameserver {nameserver}\n");
        let mut search: Vec<&str> = mesh_search.iter().map(String::as_str).collect();
        for domain in &self.search {
            if !search.contains(&domain.as_str()) {
                search.push(domain);
            }
        }
        for (keyword, words) in [("search", search), ("options", self.option_words())] {
            if !words.is_empty() {
                let _infallible = writeln!(text, "{keyword} {}", words.join(" "));
            }
        }
        text
    }

    fn option_words(&self) -> Vec<&str> {
        self.options.iter().map(String::as_str).collect()
    }
}

/// An address, IPv6 with `%interface` where the interface is named by number. A name is left out: it
/// would need the host's interfaces, and libc's own resolver file rarely has one.
fn nameserver(word: &str) -> Option<SocketAddr> {
    let (address, scope) = word.split_once('%').unwrap_or((word, "0"));
    match address.parse().ok()? {
        IpAddr::V4(address) => Some((address, DNS_PORT).into()),
        IpAddr::V6(address) => {
            Some(SocketAddrV6::new(address, DNS_PORT, 0, scope_number(address, scope)?).into())
        }
    }
}

fn scope_number(address: Ipv6Addr, scope: &str) -> Option<u32> {
    match scope.parse() {
        Ok(number) => Some(number),
        Err(_) => {
            let number = std::fs::read_to_string(format!("/sys/class/net/{scope}/ifindex")).ok();
            let number = number.and_then(|text| text.trim().parse().ok());
            number.filter(|_| address.is_unicast_link_local())
        }
    }
}

/// A workload's nsswitch.conf: the host's, but `hosts` without the services that resolve names past
/// port 53 (`resolve` and the `mdns` family) and without what those services' results decide.
pub fn nsswitch_for_workload(host: &str) -> String {
    let mut text = String::new();
    let mut has_hosts = false;
    for line in host.lines() {
        match line.trim_start().strip_prefix("hosts:") {
            Some(services) => {
                has_hosts = true;
                let services = services.split('#').next().unwrap_or_default();
                let _infallible = writeln!(text, "hosts: {}", without_bypasses(services));
            }
            None => {
                let _infallible = writeln!(text, "{line}");
            }
        }
    }
    if !has_hosts {
        text.push_str("hosts: files dns\n");
    }
    text
}

fn without_bypasses(services: &str) -> String {
    // Actions such as `[NOTFOUND=return]` may hold blanks and belong to the service before them.
    let mut kept: Vec<String> = Vec::new();
    let mut keeping = false;
    let mut rest = services.trim();
    while !rest.is_empty() {
        let is_action = rest.starts_with('[');
        let end = if is_action { rest.find(']').map(|at| at + 1) } else { None }
            .or_else(|| rest.find(|c: char| c.is_ascii_whitespace() || c == '['))
            .filter(|end| *end > 0)
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if !is_action {
            keeping = word != "resolve" && !word.starts_with("mdns");
        }
        if keeping {
            kept.push(word.to_owned());
        }
        rest = after.trim_start();
    }
    if !kept.iter().any(|word| word == "dns") {
        kept.push("dns".to_owned());
    }
    kept.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_libc_reads_it() {
        let config = ResolverConfig::parse(
            "# a comment\nnameserver 127.0.0.53\nnameserver fe80::1%2 ; trailing\n\
             nameserver nonsense\nnameserver 10.0.0.1\nnameserver 10.0.0.2\n\
             domain old.example\nsearch a.example b.example\noptions edns0 ndots:2\noptions rotate\n",
        );
        let text: Vec<_> = config.nameservers.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["127.0.0.53:53", "[fe80::1%2]:53", "10.0.0.1:53"]);
        assert_eq!(config.search, ["a.example", "b.example"]);
        assert_eq!(config.options, ["edns0", "ndots:2", "rotate"]);
        let silent = ResolverConfig::read(Path::new("/nonexistent/resolv.conf"));
        assert_eq!(silent.nameservers, ["127.0.0.1:53".parse().expect("an address")]);
    }

    #[test]
    fn the_mesh_is_searched_before_the_host_and_options_stay() {
        let host = ResolverConfig::parse("search corp.example svc.cluster.local\noptions rotate");
        let mesh = ["default.svc.cluster.local".to_owned(), "svc.cluster.local".to_owned()];
        let text = host.for_workload(Ipv4Addr::new(240, 240, 0, 1).into(), &mesh);
        assert!(text.contains("\nnameserver 240.240.0.1\n"), "{text}");
        let search = "\nsearch default.svc.cluster.local svc.cluster.local corp.example\n";
        assert!(text.contains(search), "{text}");
        assert!(text.ends_with("\noptions rotate\n"), "{text}");
    }

    #[test]
    fn name_services_that_bypass_port_53_go_with_their_actions() {
        for (host, workload) in [
            ("hosts: files dns", "hosts: files dns\n"),
            (
                "passwd: files\n hosts:  mymachines resolve [!UNAVAIL=return] files myhostname dns\n",
                "passwd: files\nhosts: mymachines files myhostname dns\n",
            ),
            (
                "hosts: files mdns4_minimal [NOTFOUND=return SUCCESS=continue] dns [UNAVAIL=return] mdns",
                "hosts: files dns [UNAVAIL=return]\n",
            ),
            ("hosts: files resolve[!UNAVAIL=return] dns # comment", "hosts: files dns\n"),
            ("hosts: files resolve", "hosts: files dns\n"),
            ("hosts: [", "hosts: dns\n"),
            ("passwd: files", "passwd: files\nhosts: files dns\n"),
        ] {
            assert_eq!(nsswitch_for_workload(host), workload, "{host}");
        }
    }
}
