//! Flags of what is about a pod: `inject`, and what injection lets a pod's containers run.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use heddle_model::name::DEFAULT_NAMESPACE;
use heddle_runtime::netlink::Network;
use heddle_wire::local::proxy_config::{PORT_DNS, PORT_INBOUND, PORT_OUTBOUND};

use super::values;

/// How `inject` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum InjectOutput {
    /// YAML documents
    #[default]
    Yaml,
    /// One JSON document: the object, or a List of several
    Json,
}

/// `heddle inject`.
#[derive(Debug, Args)]
pub(crate) struct InjectArgs {
    /// File, folder (its .yaml, .yml and .json files) or `-` for standard input; may be repeated
    #[arg(long, short, value_name = "FILE", required = true)]
    pub filename: Vec<PathBuf>,
    /// Namespace of documents that name none
    #[arg(long, short, value_name = "NS", default_value = DEFAULT_NAMESPACE, value_parser = values::label)]
    pub namespace: String,
    /// The mesh's injection settings, `settings.yaml` of the ConfigMap heddle-injector [default: as installed without flags]
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    pub output: InjectOutput,
}

/// `heddle sidecar-ready`.
#[derive(Debug, Args)]
pub(crate) struct SidecarReadyArgs {
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "300s", value_parser = values::duration)]
    pub timeout: Duration,
}

/// Whom the application sees as its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum InterceptionMode {
    /// The sidecar
    #[default]
    Redirect,
    /// The caller itself, by its address; the sidecar needs the capability NET_RAW for it, and the group of --proxy-gid
    Tproxy,
}

/// `heddle init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// User of the sidecar, whose own connections are let through
    #[arg(long, value_name = "UID", default_value_t = 1337)]
    pub proxy_uid: u32,
    /// Group of the sidecar, likewise
    #[arg(long, value_name = "GID", default_value_t = 1337)]
    pub proxy_gid: u32,
    /// Where the sidecar takes outgoing connections
    #[arg(long, value_name = "PORT", default_value_t = PORT_OUTBOUND)]
    pub outbound_port: u16,
    /// Where it takes incoming connections
    #[arg(long, value_name = "PORT", default_value_t = PORT_INBOUND)]
    pub inbound_port: u16,
    /// Where it answers for names
    #[arg(long, value_name = "PORT", default_value_t = PORT_DNS)]
    pub dns_port: u16,
    /// Leave port 53 alone
    #[arg(long)]
    pub no_dns: bool,
    /// Networks to which connections are captured: `*` or a list with commas
    #[arg(long, value_name = "CIDRS", default_value = "*", value_parser = networks)]
    pub include_outbound_ranges: Listed<Network>,
    /// Networks to which they are not
    #[arg(long, value_name = "CIDRS", default_value = "", hide_default_value = true, value_parser = networks)]
    pub exclude_outbound_ranges: Listed<Network>,
    /// Ports to which connections are captured whatever the network: `*` or a list with commas
    #[arg(long, value_name = "PORTS", default_value = "", hide_default_value = true, value_parser = ports)]
    pub include_outbound_ports: Listed<u16>,
    /// Ports to which they are not
    #[arg(long, value_name = "PORTS", default_value = "", hide_default_value = true, value_parser = ports)]
    pub exclude_outbound_ports: Listed<u16>,
    /// Ports of the pod to which connections are captured: `*` or a list with commas
    #[arg(long, value_name = "PORTS", default_value = "*", value_parser = ports)]
    pub include_inbound_ports: Listed<u16>,
    /// Ports of the pod to which they are not, beside the sidecar's own
    #[arg(long, value_name = "PORTS", default_value = "", hide_default_value = true, value_parser = ports)]
    pub exclude_inbound_ports: Listed<u16>,
    /// Interfaces whose traffic is left alone: a list with commas
    #[arg(long, value_name = "NAMES", default_value = "", hide_default_value = true, value_parser = interfaces)]
    pub exclude_interfaces: Listed<String>,
    /// Whom the application sees as its caller
    #[arg(long, value_enum, default_value_t)]
    pub mode: InterceptionMode,
    /// The pod's addresses, with commas, at most one of each family: where callers are seen by their own addresses
    /// [default: the first of each family that a link has]
    #[arg(long, value_name = "IPS", default_value = "", hide_default_value = true, value_parser = addresses)]
    pub pod_ips: Listed<IpAddr>,
    /// Print the rules in nft's language, with the routes as comments, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// A list with commas, or everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listed<T> {
    /// `*`.
    All,
    /// These; may be none.
    These(Vec<T>),
}

impl<T> Listed<T> {
    fn read(text: &str, one: impl Fn(&str) -> Result<T, String>) -> Result<Self, String> {
        if text.trim() == "*" {
            return Ok(Self::All);
        }
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        words.map(one).collect::<Result<Vec<_>, _>>().map(Self::These)
    }
}

fn networks(text: &str) -> Result<Listed<Network>, String> {
    Listed::read(text, |word| word.parse().map_err(|error| format!("{error}")))
}

fn ports(text: &str) -> Result<Listed<u16>, String> {
    Listed::read(text, |word| match word.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("`{word}` is no port: a number from 1 to 65535")),
    })
}

fn addresses(text: &str) -> Result<Listed<IpAddr>, String> {
    let is = |is_v4: bool| move |ip: &&IpAddr| ip.is_ipv4() == is_v4;
    let read =
        Listed::read(text, |word| word.parse().map_err(|_| format!("`{word}` is no IP address")))?;
    match &read {
        Listed::These(ips)
            if [true, false].iter().all(|v4| ips.iter().filter(is(*v4)).count() < 2) =>
        {
            Ok(read)
        }
        _ => Err("use one address of each family at most, as `status.podIPs` has them".to_owned()),
    }
}

fn interfaces(text: &str) -> Result<Listed<String>, String> {
    Listed::read(text, |word| match word.len() {
        1..=15 => Ok(word.to_owned()),
        _ => Err(format!("`{word}` is no interface's name: it has at most 15 bytes")),
    })
}
