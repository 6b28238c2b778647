//! What may be typed: every subcommand with its flags, and nothing of what they do.
//!
//! A flag's doc comment is its help text. Values are checked by [`values`]; what only makes sense
//! together is checked by the command itself before it touches anything.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use heddle_model::{Locality, Protocol, discovery::Collector, name::DEFAULT_NAMESPACE};
use heddle_wire::local::{app_probes::HttpGet, holder_api::Publish};

pub(crate) mod asking;
pub(crate) mod cluster;
mod common;
pub(crate) mod figures;
pub(crate) mod hand;
pub(crate) mod live;
pub(crate) mod logs;
pub(crate) mod made;
pub(crate) mod pods;
pub(crate) mod selector;
pub(crate) mod tap;
pub(crate) mod tracing;
pub(crate) mod values;

pub(crate) use common::{ClusterFlags, MeshFlag, NamespaceFlags, Output, TargetFlags};
pub(crate) use tracing::{TraceArgs, TraceStoreArgs, TracesArgs};

use crate::demo::apps::AppArgs;
use asking::{DescribeArgs, ExplainArgs, WhyArgs};
use cluster::{CheckArgs, InstallArgs, TagArgs, UninstallArgs, UpgradeArgs};
use figures::FiguresArgs;
use hand::{FaultArgs, SplitArgs};
use live::{Side, Sort};
use logs::LogsArgs;
use made::{CompletionArgs, ExampleArgs, ManArgs};
use pods::{InitArgs, InjectArgs, SidecarReadyArgs};
use selector::Selector;
use tap::TapArgs;
use values::{LabelFlag, PortFlag};

/// A service mesh in one binary: every call between your programs becomes visible and steerable,
/// without a change in them.
#[derive(Debug, Parser)]
#[command(name = "heddle", version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Which mesh, of any command that takes one [default: $HEDDLE_MESH]
    #[arg(long, value_name = "NAME", value_parser = values::label)]
    pub mesh: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run an example application in a mesh of its own
    Demo(DemoArgs),
    /// Start a mesh on this machine, and the programs of a file in it; it lasts until Ctrl-C
    ///
    /// With `-f FILE` each program starts when those it depends on are ready; Ctrl-C ends them in the other order.
    Up(UpArgs),
    /// Run a program as a member of a mesh
    Run(Box<RunArgs>),
    /// End a mesh and everything that runs in it
    Down(DownArgs),
    /// Put rules in force: Istio YAML from files, folders or standard input
    Apply(ApplyArgs),
    /// Show rules, services or workloads
    Get(GetArgs),
    /// Take rules out of force
    Delete(DeleteArgs),
    /// Inject delays, errors and broken connections into calls of a service, and list them
    ///
    /// Without an `--abort`, `--delay` or `--tcp` it lists what is in force. What it makes is a rule like any
    /// other: it prints it, and `heddle get faults` shows it.
    Fault(Box<FaultArgs>),
    /// Divide the calls of a service among its versions
    Split(SplitArgs),
    /// Wait until every connected proxy runs a generation of the rules
    Wait(WaitArgs),
    /// Show live calls of a service, a workload or an edge, one by one
    ///
    /// It lasts until Ctrl-C, `--max` or `--for`. Nothing is kept: what nobody looks at is not gathered.
    Tap(Box<TapArgs>),
    /// Show live traffic per service: rates, errors, latency, saturation
    ///
    /// A row has the figures of one side, which SIDE names: the callers', or the service's own; a wide terminal shows
    /// both. INJ/S are requests a fault rule aborted or delayed; SUCCESS and 5XX/S leave aborts out. BUSY is what is in
    /// flight now, TCP bytes both ways. Keys: `?` tells them, `q` ends.
    Top(TopArgs),
    /// Show who calls whom
    Graph(GraphArgs),
    /// Tell what would become of a call: which rule, which share, which endpoints, and why
    ///
    /// The caller's own sidecar says it, by the code that its calls go through; nothing is sent.
    Explain(Box<ExplainArgs>),
    /// Tell why a request was refused, by its x-request-id; without one, list what was refused lately
    Why(WhyArgs),
    /// Tell all about a service: ports, workloads, rules, callers, and what to look at first
    Describe(DescribeArgs),
    /// Print what a program or a part of the mesh has written
    ///
    /// Programs are those of `up -f FILE`; what was started with `run` writes where it was started, and its sidecar's
    /// log is shown.
    Logs(LogsArgs),
    /// List recent traces, or show one as a waterfall
    ///
    /// Filters are about one and the same span of a trace; without a service the times are those of the whole trace.
    Traces(TracesArgs),
    /// Show which proxy runs which generation of the rules
    ProxyStatus(StatusArgs),
    /// Show the mesh: its processes, workloads, problems
    Status(StatusArgs),
    /// Print the address of the dashboard; that of a cluster is forwarded to this machine until Ctrl-C
    Dashboard(DashboardArgs),
    /// Add the sidecar to workloads in Kubernetes manifests, as the cluster's webhook would
    ///
    /// What is no workload is printed unchanged.
    Inject(InjectArgs),
    /// Write the redirection rules of a pod (its init container)
    ///
    /// They replace those of an earlier call in one step. Afterwards connections are tried, and it fails where one
    /// is not captured. It needs root with CAP_NET_ADMIN, and nothing else.
    Init(InitArgs),
    /// Install the mesh into a Kubernetes cluster, or print its manifests
    Install(Box<InstallArgs>),
    /// Bring the mesh of a Kubernetes cluster to this version, and name the workloads to restart
    ///
    /// It shows what changes and changes it; what was given to `install` stays, and so do settings that were
    /// written into the ConfigMap heddle-injector.
    Upgrade(UpgradeArgs),
    /// Give revisions of the mesh in a Kubernetes cluster names of your own
    ///
    /// Labels `istio.io/rev` and `heddle.dev/rev` may name a tag instead of a revision, so that namespaces move to another
    /// revision by one command.
    Tag(TagArgs),
    /// Look whether a Kubernetes cluster can take the mesh, or whether the mesh in it is well
    Check(CheckArgs),
    /// Remove the mesh from a Kubernetes cluster
    Uninstall(UninstallArgs),
    /// Print an example of rules, or list the examples
    Example(ExampleArgs),
    /// Print what makes a shell complete heddle's commands and flags
    Completion(CompletionArgs),
    /// Print the man page, or write those of all commands
    Man(ManArgs),
    /// Print Heddle's version
    Version(VersionArgs),
    /// The mesh's holder (started by `up`)
    #[command(hide = true)]
    Holder(HolderArgs),
    /// The control plane (started by the holder)
    #[command(hide = true)]
    Control(ControlArgs),
    /// The metrics store and dashboard (started by the holder)
    #[command(hide = true)]
    Observe(ObserveArgs),
    /// A sidecar (started by the holder)
    #[command(hide = true)]
    Proxy(ProxyArgs),
    /// Have a part of the mesh restarted after a crash, or not
    #[command(hide = true)]
    Supervise(SuperviseArgs),
    /// Wait until the sidecar of this pod is ready (started by the kubelet)
    #[command(hide = true)]
    SidecarReady(SidecarReadyArgs),
    /// Tell callers of this pod to ask elsewhere (started by the kubelet)
    #[command(hide = true)]
    SidecarDrain,
    /// One operation inside the mesh's namespaces (started by the holder)
    #[command(hide = true)]
    NetnsOp,
    /// One of the demo's applications
    #[command(hide = true)]
    App(AppArgs),
}

/// How `get` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum GetOutput {
    /// A table
    #[default]
    Text,
    /// A table with more columns
    Wide,
    /// The documents as applied
    Yaml,
    /// One JSON document
    Json,
    /// KIND/NAME, one per line
    Name,
}

/// How `graph` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum GraphOutput {
    /// For people
    #[default]
    Text,
    /// For programs: one JSON document
    Json,
    /// For Graphviz
    Dot,
}

/// `heddle demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Name of the demo's mesh [default: demo, or the next free one of demo-2, demo-3, …]
    #[arg(long, value_name = "NAME", value_parser = values::label)]
    pub mesh: Option<String>,
    /// Run unattended for this long, then end
    #[arg(long = "for", value_name = "DURATION", value_parser = values::duration)]
    pub duration: Option<Duration>,
    /// How to print the result; `json` prints one object at the end and progress to stderr
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
    /// Where the dashboard listens [default: a port of 127.0.0.1 that stays the mesh's own]
    #[arg(long, value_name = "ADDR:PORT", value_parser = values::listen_address)]
    pub dashboard: Option<SocketAddr>,
    /// Where the application listens [default: a free port of 127.0.0.1]
    #[arg(long, value_name = "ADDR:PORT", value_parser = values::listen_address)]
    pub publish: Option<SocketAddr>,
    /// Folder of YAML files with rules; it is watched, a saved file is in force at once
    #[arg(long, value_name = "DIR")]
    pub config: Option<PathBuf>,
    /// Calls per second of the load generator
    #[arg(long, value_name = "N", default_value = "20", value_parser = values::rate)]
    pub rate: f64,
    /// Where spans go.
    #[command(flatten)]
    pub tracing: TraceArgs,
}

/// `heddle up`.
#[derive(Debug, Clone, Args)]
pub(crate) struct UpArgs {
    /// Name of the mesh [default: $HEDDLE_MESH, else what the file says, else local]
    #[arg(long, value_name = "NAME", value_parser = values::label)]
    pub mesh: Option<String>,
    /// File of programs that are started with the mesh and end with it; `-` for standard input
    #[arg(long, short, value_name = "FILE")]
    pub filename: Option<PathBuf>,
    /// Do not print what the programs write: `heddle logs` shows it
    #[arg(long, short, requires = "filename")]
    pub quiet: bool,
    /// Folder of YAML files with rules; it is watched, a saved file is in force at once
    #[arg(long, value_name = "DIR")]
    pub config: Option<PathBuf>,
    /// Where rules and addresses are kept across restarts [default: /var/lib/heddle/NAME as root, else ~/.local/state/heddle/NAME]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where the dashboard listens [default: a port of 127.0.0.1 that stays the mesh's own]
    #[arg(long, value_name = "ADDR:PORT", value_parser = values::listen_address)]
    pub dashboard: Option<SocketAddr>,
    /// Who keeps what was measured.
    #[command(flatten)]
    pub figures: FiguresArgs,
    /// Where spans go.
    #[command(flatten)]
    pub tracing: TraceArgs,
    /// How to print what was started
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// `heddle run`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// Service the program belongs to; others reach it under this name
    #[arg(long, value_name = "NAME", value_parser = values::label)]
    pub service: String,
    /// Namespace of the service
    #[arg(long, short, value_name = "NS", default_value = DEFAULT_NAMESPACE, value_parser = values::label)]
    pub namespace: String,
    /// Version, e.g. v2; rules can tell versions apart
    #[arg(long, value_name = "V", default_value = "", hide_default_value = true, value_parser = values::label_value)]
    pub version: String,
    /// Where the program runs, as REGION[/ZONE[/SUBZONE]]: rules can prefer what is near
    #[arg(long, value_name = "LOCALITY", value_parser = Locality::parse)]
    pub locality: Option<Locality>,
    /// A further label rules can select by; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::label_flag)]
    pub label: Vec<LabelFlag>,
    /// A port the program serves; may be repeated, without any it is a client only
    #[arg(long, value_name = "[NAME:]NUMBER", value_parser = values::port_flag)]
    pub port: Vec<PortFlag>,
    /// What the ports speak: http, http2, grpc, tls, tcp, redis, mysql, mongo [default: told by a port's name, else by its bytes]
    #[arg(long, value_name = "P", value_parser = values::protocol, requires = "port")]
    pub protocol: Option<Protocol>,
    /// Let the host in: connections to HOSTPORT (on 127.0.0.1 unless ADDR is given) reach PORT; of a range (8080-8089:80) the first free port is taken; may be repeated
    #[arg(long, value_name = "[ADDR:]HOSTPORT:PORT", value_parser = values::publish)]
    pub publish: Vec<Publish>,
    /// Let the host in to this port too, where `up` asks whether the program is ready
    #[arg(long, value_name = "PORT", value_parser = values::port, hide = true)]
    pub ready_port: Option<u16>,
    /// Show the program this port of the host's 127.0.0.1 on its own 127.0.0.1; may be repeated
    #[arg(long, value_name = "PORT", value_parser = values::port)]
    pub host_port: Vec<u16>,
    /// Memory the sidecar stays within, e.g. 64Mi: near it, it refuses calls rather than exceed it [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = values::memory)]
    pub memory_limit: Option<u64>,
    /// Where the program shows metrics of its own, path /metrics unless given: they stand behind those of its sidecar, at its port 15020 and for whoever scrapes through the dashboard
    #[arg(long, value_name = "PORT[/PATH]", value_parser = values::app_metrics)]
    pub app_metrics: Option<HttpGet>,
    /// Which mesh.
    #[command(flatten)]
    pub mesh: MeshFlag,
    /// The program and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// `heddle down`.
#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// Which mesh.
    #[command(flatten)]
    pub mesh: MeshFlag,
}

/// `heddle apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// File, folder (its .yaml, .yml and .json files) or `-` for standard input; may be repeated
    #[arg(long, short, value_name = "FILE", required = true)]
    pub filename: Vec<PathBuf>,
    /// Namespace of documents that name none [default: `default`; in a cluster that of the context]
    #[arg(long, short, value_name = "NS", value_parser = values::label)]
    pub namespace: Option<String>,
    /// Check only, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Also make an edit that leaves another rule naming something absent
    #[arg(long)]
    pub force: bool,
    /// Refuse files that hold anything which would not be in force as written: kinds and fields that
    /// this version does not enforce, and objects that are no rules
    #[arg(long)]
    pub strict: bool,
    /// How long to wait for the proxies; 0 returns at once
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    pub timeout: Duration,
    /// Which mesh.
    #[command(flatten)]
    pub mesh: TargetFlags,
    /// How to print what was done
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// `heddle get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// KIND[,KIND…] [NAME…], or KIND/NAME …: kinds are virtualservices (vs), destinationrules (dr), another kind of rule, services, workloads, or `all` rules [default: all]
    #[arg(value_name = "WHAT")]
    pub what: Vec<String>,
    /// Only what has these labels: `k=v`, `k!=v`, `k` or `!k`, with commas between
    #[arg(long, short = 'l', value_name = "SELECTOR", value_parser = selector::parse)]
    pub selector: Option<Selector>,
    /// After what there is, print what changes, until Ctrl-C; with JSON one object per line
    #[arg(long, short)]
    pub watch: bool,
    /// Only this namespace [default: all; where a name is given, `default`, in a cluster that of the context]
    #[arg(long, short, value_name = "NS", value_parser = values::label)]
    pub namespace: Option<String>,
    /// All namespaces
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// Which mesh.
    #[command(flatten)]
    pub mesh: TargetFlags,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    pub output: GetOutput,
}

/// `heddle delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// KIND NAME…, KIND/NAME …, or KIND[,KIND…] with --all or --selector
    #[arg(value_name = "WHAT", conflicts_with = "filename")]
    pub what: Vec<String>,
    /// All rules of the kinds in the namespace
    #[arg(long, conflicts_with = "filename", requires = "what")]
    pub all: bool,
    /// Those of them with these labels: `k=v`, `k!=v`, `k` or `!k`, with commas between
    #[arg(long, short = 'l', value_name = "SELECTOR", value_parser = selector::parse, conflicts_with = "filename", requires = "what")]
    pub selector: Option<Selector>,
    /// In all namespaces
    #[arg(long, short = 'A', conflicts_with_all = ["namespace", "filename"])]
    pub all_namespaces: bool,
    /// Delete what these files, folders or standard input (`-`) define; may be repeated
    #[arg(long, short, value_name = "FILE")]
    pub filename: Vec<PathBuf>,
    /// Namespace of the rule, and of documents that name none [default: `default`; in a cluster that of the context]
    #[arg(long, short, value_name = "NS", value_parser = values::label)]
    pub namespace: Option<String>,
    /// Also delete what another rule names
    #[arg(long)]
    pub force: bool,
    /// How long to wait for the proxies; 0 returns at once
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    pub timeout: Duration,
    /// Which mesh.
    #[command(flatten)]
    pub mesh: TargetFlags,
    /// How to print what was done
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// `heddle wait`.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// The generation, as `apply` prints it [default: the newest]
    #[arg(long, value_name = "N")]
    pub generation: Option<u64>,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = values::duration)]
    pub timeout: Duration,
    /// Which mesh.
    #[command(flatten)]
    pub mesh: TargetFlags,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// `heddle top`.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Of which namespaces.
    #[command(flatten)]
    pub namespaces: NamespaceFlags,
    /// Which mesh.
    #[command(flatten)]
    pub mesh: TargetFlags,
    /// Print one table and end, as it does anyway where the output is no terminal
    #[arg(long)]
    pub once: bool,
    /// What rows are ordered by; keys change it
    #[arg(long, value_enum, default_value_t)]
    pub sort: Sort,
    /// Only services whose name has this in it
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Whose figures a row shows where there is room for one side only, and is ordered by; JSON has both
    #[arg(long, value_enum, default_value_t)]
    pub side: Side,
    /// A row for each version too; JSON has them anyway
    #[arg(long)]
    pub versions: bool,
    /// Time between two tables
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = values::interval)]
    pub interval: Duration,
    /// How to print; `json` prints one document per interval, or one where the output is no terminal
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// `heddle graph`.
#[derive(Debug, Args)]
pub(crate) struct GraphArgs {
    /// Of which namespaces.
    #[command(flatten)]
    pub namespaces: NamespaceFlags,
    /// Which mesh.
    #[command(flatten)]
    pub mesh: TargetFlags,
    /// Over which time, at most; it is counted anew after a change of the rules
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = values::window)]
    pub window: Duration,
    /// Count what was before the last change of the rules too
    #[arg(long)]
    pub across_changes: bool,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    pub output: GraphOutput,
}

/// `heddle proxy-status` and `heddle status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Of which namespaces.
    #[command(flatten)]
    pub namespaces: NamespaceFlags,
    /// Which mesh.
    #[command(flatten)]
    pub mesh: TargetFlags,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// `heddle dashboard`.
#[derive(Debug, Args)]
pub(crate) struct DashboardArgs {
    /// Which mesh.
    #[command(flatten)]
    pub mesh: TargetFlags,
    /// Show it in the browser as well
    #[arg(long)]
    pub open: bool,
    /// Where it listens on this machine's 127.0.0.1 while it forwards to a cluster
    #[arg(long, value_name = "PORT", default_value = "15040", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
}

/// `heddle supervise`: for benches and tests.
#[derive(Debug, Args)]
pub(crate) struct SuperviseArgs {
    /// Which part
    #[arg(value_parser = ["control", "observe"])]
    pub part: String,
    /// Restart it when it ends? Starts it if it does not run
    #[arg(long, action = clap::ArgAction::Set)]
    pub restart: bool,
    /// Which mesh.
    #[command(flatten)]
    pub mesh: MeshFlag,
}

/// `heddle version`.
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// `heddle holder`: standard input is the locked lock file, standard output a socket to its starter.
#[derive(Debug, Args)]
pub(crate) struct HolderArgs {
    /// Name of the mesh
    #[arg(long)]
    pub mesh: String,
    /// Folder of rules
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Folder of the store
    #[arg(long)]
    pub state_dir: PathBuf,
    /// Where the dashboard listens: the first of these that is free
    #[arg(long, required = true)]
    pub dashboard: Vec<SocketAddr>,
    /// Who keeps what was measured.
    #[command(flatten)]
    pub figures: FiguresArgs,
    /// Where spans go.
    #[command(flatten)]
    pub tracing: TraceArgs,
}

/// `heddle control`.
#[derive(Debug, Args)]
pub(crate) struct ControlArgs {
    /// Serve the pods of a cluster instead of a mesh of this machine
    #[arg(long)]
    pub kubernetes: bool,
    /// Which cluster, and how
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Name of the mesh
    #[arg(long, required_unless_present = "kubernetes")]
    pub mesh: Option<String>,
    /// The mesh's run-time folder, where the sockets go
    #[arg(long, required_unless_present = "kubernetes")]
    pub run_dir: Option<PathBuf>,
    /// Folder of the store
    #[arg(long, required_unless_present = "kubernetes")]
    pub state_dir: Option<PathBuf>,
    /// Folder of rules
    #[arg(long, conflicts_with = "kubernetes")]
    pub config: Option<PathBuf>,
    /// Where spans go.
    #[command(flatten)]
    pub tracing: TraceArgs,
    /// Where the mesh's own store of traces takes spans, as sidecars reach it
    #[arg(long, value_name = "HOST:PORT", value_parser = tracing::store_address)]
    pub trace_store: Option<Collector>,
}

/// What `heddle control --kubernetes` is told.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// The control plane's own namespace
    #[arg(long, default_value = "heddle-system", requires = "kubernetes")]
    pub namespace: String,
    /// Which of several control planes of the cluster this is
    #[arg(long, default_value = "default", requires = "kubernetes")]
    pub revision: String,
    /// Trust domain of all identities
    #[arg(long, default_value = "cluster.local", requires = "kubernetes")]
    pub trust_domain: String,
    /// Suffix of the cluster's names
    #[arg(long, default_value = "cluster.local", requires = "kubernetes")]
    pub cluster_domain: String,
    /// How to reach the API server [default: $KUBECONFIG, else as a pod does]
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    pub kubeconfig: Option<PathBuf>,
    /// Which of its contexts [default: its current one]
    #[arg(long, value_name = "NAME", requires = "kubeconfig")]
    pub context: Option<String>,
}

/// `heddle observe`.
#[derive(Debug, Args)]
pub(crate) struct ObserveArgs {
    /// Observe the pods of a cluster instead of a mesh of this machine
    #[arg(long)]
    pub kubernetes: bool,
    /// How it asks the control plane
    #[command(flatten)]
    pub cluster: ClusterObserveArgs,
    /// Name of the mesh
    #[arg(long, required_unless_present = "kubernetes")]
    pub mesh: Option<String>,
    /// The mesh's run-time folder, where the control plane's socket is
    #[arg(long, required_unless_present = "kubernetes")]
    pub run_dir: Option<PathBuf>,
    /// The inherited socket the dashboard listens on
    #[arg(long, required_unless_present = "kubernetes")]
    pub dashboard_fd: Option<i32>,
    /// The file in which what was measured is kept [default: it is in memory only]
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
    /// Who keeps what was measured.
    #[command(flatten)]
    pub figures: FiguresArgs,
    /// Where traces come from, and are kept.
    #[command(flatten)]
    pub traces: TraceStoreArgs,
}

/// What `heddle observe --kubernetes` is told.
#[derive(Debug, Args)]
pub(crate) struct ClusterObserveArgs {
    /// The control plane's name in the cluster
    #[arg(long, default_value = "heddle-control.heddle-system.svc", requires = "kubernetes")]
    pub control: String,
    /// File with the issuers that the control plane's certificate may be of
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/heddle/roots/root-cert.pem",
        requires = "kubernetes"
    )]
    pub roots: PathBuf,
    /// File with the token that is shown to the control plane
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/run/secrets/heddle/token",
        requires = "kubernetes"
    )]
    pub token: PathBuf,
    /// Time between two scrapes of a sidecar
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = values::interval, requires = "kubernetes")]
    pub interval: Duration,
    /// Suffix of the cluster's names
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local", value_parser = values::domain, requires = "kubernetes")]
    pub cluster_domain: String,
}

/// `heddle proxy`.
#[derive(Debug, Args)]
pub(crate) struct ProxyArgs {
    /// The sidecar's configuration, a JSON file
    #[arg(long, value_name = "FILE", required_unless_present = "kubernetes")]
    pub config: Option<PathBuf>,
    /// Runs in a pod: the configuration is the environment
    #[arg(long, conflicts_with = "config")]
    pub kubernetes: bool,
}
