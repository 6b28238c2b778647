//! `heddle init`: a pod's redirection rules, written by its init container and proven before it ends.
//!
//! By nftables; where the kernel has none, by the image's own iptables. Nothing of the machine is changed but the
//! rules and routes of this network namespace and two addresses of its loopback, so that a read-only root is enough.

use std::{io, net::IpAddr};

use heddle_runtime::{
    iptables,
    net::LOOPBACK_CALLER_V6,
    netlink::{Netlink, Network},
    nft::{self, NftError},
    proof,
    redirect::{Escape, RedirectRules},
};
use heddle_wire::local::proxy_config::PORTS_FOR_ALL;

use crate::{
    cli::pods::{InitArgs, InterceptionMode, Listed},
    failure::{Doing as _, Failure},
    output,
};

/// `heddle init`.
///
/// # Errors
/// A refusal that says what would help: rules that cannot be written, or do not do what they say.
pub(crate) fn init(args: InitArgs) -> Result<(), Failure> {
    let dry_run = args.dry_run;
    let rules = rules(args)?;
    if dry_run {
        output::line(rules.text().trim_end());
        return Ok(());
    }
    install(&rules)?;
    Netlink::open()
        .and_then(|mut netlink| rules.route_callers(&mut netlink))
        .doing(|| "route by callers' addresses".to_owned())?;
    loopback_caller();
    let proof = proof::prove(&rules).doing(|| "prove the redirection".to_owned())?;
    for address in &proof.captured {
        output::notice(format!("proven: a call to {address} goes to the sidecar"));
    }
    for address in &proof.callers_kept {
        output::notice(format!("proven: an application at {address} sees its caller's address"));
    }
    for reason in &proof.untried {
        output::notice(format!("not tried: {reason}"));
    }
    Ok(())
}

fn rules(args: InitArgs) -> Result<RedirectRules, Failure> {
    let escape = Escape::Owner { uid: args.proxy_uid, gid: args.proxy_gid };
    let ports = [args.outbound_port, args.inbound_port, args.dns_port];
    let (all_ports, outbound_ports_included) = match args.include_outbound_ports {
        Listed::All => (true, Vec::new()),
        Listed::These(ports) => (false, ports),
    };
    let mut inbound_excluded = PORTS_FOR_ALL.to_vec();
    inbound_excluded.extend(these("--exclude-inbound-ports", args.exclude_inbound_ports)?);
    inbound_excluded.sort_unstable();
    inbound_excluded.dedup();
    Ok(RedirectRules {
        dns_port: (!args.no_dns).then_some(args.dns_port),
        inbound_included: some(args.include_inbound_ports),
        inbound_excluded,
        outbound_included: some(args.include_outbound_ranges).filter(|_| !all_ports),
        outbound_excluded: these("--exclude-outbound-ranges", args.exclude_outbound_ranges)?,
        outbound_ports_included,
        outbound_ports_excluded: these("--exclude-outbound-ports", args.exclude_outbound_ports)?,
        interfaces_excluded: these("--exclude-interfaces", args.exclude_interfaces)?,
        callers_kept_at: match args.mode {
            InterceptionMode::Redirect => Vec::new(),
            InterceptionMode::Tproxy => own_addresses(these("--pod-ips", args.pod_ips)?)?,
        },
        ..RedirectRules::all(escape, ports)
    })
}

/// Where callers are to be seen by their own addresses: as `given`, else what links have.
fn own_addresses(given: Vec<IpAddr>) -> Result<Vec<IpAddr>, Failure> {
    if !given.is_empty() {
        return Ok(given);
    }
    let all = Netlink::open().and_then(|mut netlink| netlink.local_addresses());
    let own = proof::one_of_each_family(&all.doing(|| "find the pod's addresses".to_owned())?);
    if own.is_empty() {
        return Err(Failure::refused(
            "--mode tproxy: this network namespace has no address but the loopback's: give the pod's with --pod-ips",
        ));
    }
    Ok(own)
}

/// `None` for everything.
fn some<T>(listed: Listed<T>) -> Option<Vec<T>> {
    match listed {
        Listed::All => None,
        Listed::These(items) => Some(items),
    }
}

fn these<T>(flag: &str, listed: Listed<T>) -> Result<Vec<T>, Failure> {
    some(listed).ok_or_else(|| {
        Failure::usage(format!("{flag}: `*` stands for everything, which cannot be left out"))
    })
}

fn install(rules: &RedirectRules) -> Result<(), Failure> {
    let Err(refused) = nft::install_redirect(rules) else { return Ok(()) };
    if is_forbidden(&refused) {
        return Err(Failure::refused(format!(
            "{refused}: the container needs the capability NET_ADMIN, and to run as root"
        )));
    }
    match iptables::install_redirect(rules) {
        Ok(programs) => {
            let programs: Vec<_> = programs.iter().map(|path| path.display().to_string()).collect();
            output::notice(format!(
                "{refused}; the rules were written by {}",
                programs.join(" and ")
            ));
            Ok(())
        }
        Err(error) => Err(Failure::refused(format!(
            "{refused}; and without nftables, {error}: load the kernel's modules nf_tables, nft_chain_nat and \
             nft_redir on the node, or use an image with iptables for the init container"
        ))),
    }
}

fn is_forbidden(error: &NftError) -> bool {
    error.source.kind() == io::ErrorKind::PermissionDenied
}

/// Where the sidecar's calls of an application on ::1 come from. IPv4 has such an address by itself; without this
/// one they come from ::1.
fn loopback_caller() {
    let added = Netlink::open().and_then(|mut netlink| {
        let link = netlink.link_index("lo")?;
        netlink.add_address(link, Network::new(LOOPBACK_CALLER_V6.into(), 128))
    });
    if let Err(error) = added {
        tracing::debug!(%error, "the loopback has no further address");
    }
}
