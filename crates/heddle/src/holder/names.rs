//! The files that make names resolve in a workload: its own resolv.conf, nsswitch.conf and hosts.
//!
//! They are made when the workload joins, from the host's files of that moment, and bound over the
//! host's in the workload's mount namespace.

use std::{fs, io, net::IpAddr, os::unix::fs::PermissionsExt as _, path::Path};

use heddle_model::{Addresses, Workload, name::service_suffix};
use heddle_runtime::resolv::{self, ResolverConfig};

/// Everybody may read the files, also a program that changes its user; the folder they are in is
/// private, but what is bound from it is not.
const READABLE: u32 = 0o644;

/// Writes the three files into `etc`.
///
/// # Errors
/// Where they cannot be written.
pub(crate) fn write(etc: &Path, workload: &Workload, nameserver: IpAddr) -> io::Result<()> {
    let host =
        |path: &str| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let resolv = resolv_conf(
        ResolverConfig::read(Path::new(resolv::RESOLV_CONF)),
        &host("/proc/sys/kernel/hostname"),
        &workload.namespace,
        nameserver,
    );
    let nsswitch = resolv::nsswitch_for_workload(&host(resolv::NSSWITCH_CONF));
    let hosts = hosts(&host("/etc/hosts"), &workload.id.0, workload.addresses);
    for (name, text) in [("resolv.conf", resolv), ("nsswitch.conf", nsswitch), ("hosts", hosts)] {
        let path = etc.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(READABLE))?;
    }
    Ok(())
}

fn resolv_conf(
    mut host: ResolverConfig,
    hostname: &str,
    namespace: &str,
    nameserver: IpAddr,
) -> String {
    if host.search.is_empty() {
        // What a resolver derives from the host's name where no line says otherwise; our own
        // search line would take that away.
        let domain = hostname.trim().split_once('.').map(|(_, domain)| domain.to_owned());
        host.search.extend(domain);
    }
    let mesh = [format!("{namespace}.{}", service_suffix()), service_suffix().to_owned()];
    host.for_workload(nameserver, &mesh)
}

/// The host's lines, and the workload's own name.
fn hosts(host: &str, workload: &str, addresses: Addresses) -> String {
    let own: String = addresses.iter().map(|ip| format!("{ip} {workload}\n")).collect();
    format!("{}\n{own}", host.trim_end())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HUB: IpAddr = IpAddr::V4(Ipv4Addr::new(240, 241, 0, 1));

    #[test]
    fn the_domain_of_the_hosts_name_counts_where_nothing_is_said() {
        let silent = ResolverConfig::parse("nameserver 10.0.0.2\n");
        let text = resolv_conf(silent, "box.example.com\n", "shop", HUB);
        assert!(
            text.contains("\nsearch shop.svc.cluster.local svc.cluster.local example.com\n"),
            "{text}"
        );
        let said = ResolverConfig::parse("search corp.test\n");
        let text = resolv_conf(said, "box.example.com\n", "shop", HUB);
        assert!(text.ends_with("svc.cluster.local corp.test\n"), "{text}");
    }

    #[test]
    fn the_hosts_file_keeps_the_hosts_lines() {
        let own = Addresses::Both([240, 241, 0, 10].into(), "fd68::a".parse().unwrap());
        assert_eq!(
            hosts("127.0.0.1 localhost\n", "web-1", own),
            "127.0.0.1 localhost\n240.241.0.10 web-1\nfd68::a web-1\n"
        );
    }
}
