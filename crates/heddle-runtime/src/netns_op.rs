//! Operations inside the mesh's hub network namespace, each in a fresh, single-threaded process:
//! the hub's bridge, a workload's namespace with its links, addresses, routes and rules.
//!
//! The holder stays in the host's namespaces and calls [`Hub`], which runs this binary again with
//! the arguments it was given (`heddle netns-op`); there, [`serve`] does the one operation, answers
//! on an inherited socket, and the process ends. A new namespace comes back as a descriptor and
//! lives as long as that.

use std::{
    ffi::OsString,
    fs::File,
    io,
    net::IpAddr,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    capability::Privileges,
    clock, fdpass,
    net::LOOPBACK_CALLER_V6,
    netlink::{HardwareAddress, Netlink, NetlinkError, Network},
    nft::{self, NftError},
    ns::{self, Namespaces, NsError, Step},
    redirect::{Escape, RedirectRules},
    signal::Signal,
    sock_diag,
    spawn::{SpawnError, SpawnOptions},
    sys,
};

/// Names the descriptor on which [`serve`] is asked.
const SOCKET_VARIABLE: &str = "HEDDLE_NETNS_OP_FD";
/// How long an operation may take; a workload's namespace takes some ten milliseconds.
const OPERATION_TIME_MAX: Duration = Duration::from_secs(20);
/// The name of a workload's link inside its namespace.
pub const WORKLOAD_LINK: &str = "eth0";
const LOOPBACK_LINK: &str = "lo";

/// The hub: a bridge and the addresses that are the workloads' gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubNet {
    /// Name of the bridge.
    pub bridge: String,
    /// The bridge's IPv4 and IPv6 address with their networks.
    pub addresses: Vec<Network>,
}

/// A workload's network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadNet {
    /// Name of the hub's side of its link: unique in the mesh, at most
    /// [`crate::netlink::LINK_NAME_MAX`] bytes.
    pub link: String,
    /// Name of the hub's bridge.
    pub bridge: String,
    /// Its addresses with their networks.
    pub addresses: Vec<Network>,
    /// Where everything else goes: one gateway per address family. Without a route a packet to a
    /// virtual address would be refused before any rule sees it.
    pub gateways: Vec<IpAddr>,
    /// Where these networks go, for a family that has no such gateway.
    pub routes: Vec<(Network, IpAddr)>,
    /// What is redirected to its sidecar.
    pub rules: RedirectRules,
}

/// What a `netns-op` process is asked.
#[derive(Debug, Serialize, Deserialize)]
enum Operation {
    SetUpHub(HubNet),
    CreateWorkload(Box<WorkloadNet>),
    DeleteWorkload { link: String },
}

/// What it answers; a new namespace's descriptor comes along.
#[derive(Debug, Serialize, Deserialize)]
enum Outcome {
    Done,
    Failed(Failure),
}

/// An operation inside the hub failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// What and why, in one line.
    pub text: String,
    /// The kernel's errno; 0 if there is none.
    pub errno: i32,
    /// Which part of the kernel refused.
    pub part: Part,
}

/// A part of the kernel that an operation needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// Namespaces.
    Namespaces,
    /// Links, addresses and routes.
    Links,
    /// nftables with NAT.
    Rules,
    /// sock_diag.
    Sockets,
}

/// An operation could not be done.
#[derive(Debug, thiserror::Error)]
pub enum OpError {
    /// It was refused inside.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The process that does it could not be started.
    #[error("cannot start a process in the mesh's namespaces: {0}")]
    Start(#[from] SpawnError),
    /// It gave no answer.
    #[error("the process in the mesh's namespaces gave no answer: {0}")]
    NoAnswer(io::Error),
}

/// The mesh's hub, from outside.
#[derive(Debug)]
pub struct Hub {
    namespaces: Namespaces,
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Hub {
    /// `program` with `arguments` must call [`serve`] and nothing else; usually
    /// [`crate::process::own_program`] with the hidden subcommand.
    pub fn new(namespaces: Namespaces, program: PathBuf, arguments: Vec<OsString>) -> Self {
        Self { namespaces, program, arguments }
    }

    /// The hub's namespaces.
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// Makes the bridge with its addresses.
    ///
    /// # Errors
    /// [`OpError::Failed`] if a name is taken or the kernel lacks something.
    pub async fn set_up(&self, hub: HubNet) -> Result<(), OpError> {
        self.run(&Operation::SetUpHub(hub)).await.map(drop)
    }

    /// Makes a workload's namespace, linked to the bridge, its rules in force; it lives as long as
    /// its descriptor or a process in it.
    ///
    /// # Errors
    /// As [`Self::set_up`]; nothing is left behind.
    pub async fn create_workload(&self, workload: WorkloadNet) -> Result<Namespaces, OpError> {
        let fd = self.run(&Operation::CreateWorkload(Box::new(workload))).await?;
        let fd = fd.ok_or_else(|| OpError::NoAnswer(io::ErrorKind::InvalidData.into()))?;
        self.namespaces.with_net(fd).map_err(OpError::NoAnswer)
    }

    /// Removes a workload's link at once (the kernel would do so some time after the namespace's
    /// last descriptor is closed). One that is gone already is no error.
    ///
    /// # Errors
    /// As [`Self::set_up`].
    pub async fn delete_workload(&self, link: String) -> Result<(), OpError> {
        match self.run(&Operation::DeleteWorkload { link }).await {
            Err(OpError::Failed(failure)) if failure.errno == libc::ENODEV => Ok(()),
            result => result.map(drop),
        }
    }

    async fn run(&self, operation: &Operation) -> Result<Option<OwnedFd>, OpError> {
        let (ours, theirs) = UnixStream::pair().map_err(OpError::NoAnswer)?;
        let mut options = SpawnOptions::new();
        options.namespaces(&self.namespaces).map_err(OpError::NoAnswer)?;
        options.privileges(Privileges::All).die_with_parent(Signal::KILL);
        let number = options.inherit(theirs.into());
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env(SOCKET_VARIABLE, number.to_string());
        // It speaks on its socket only; what it logs goes where the caller's log goes.
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = options.spawn_tokio(command, true)?;

        ours.set_nonblocking(true).map_err(OpError::NoAnswer)?;
        let ours = tokio::net::UnixStream::from_std(ours).map_err(OpError::NoAnswer)?;
        let answered = clock::within(OPERATION_TIME_MAX, exchange(ours, operation)).await;
        if answered.is_none() {
            let _ended = child.start_kill();
        }
        // The process ends by itself after its answer, or when its socket closes.
        let _status = child.wait().await;
        let late = || Err(OpError::NoAnswer(io::ErrorKind::TimedOut.into()));
        answered.unwrap_or_else(late)
    }
}

async fn exchange(
    stream: tokio::net::UnixStream,
    operation: &Operation,
) -> Result<Option<OwnedFd>, OpError> {
    let question = serde_json::to_vec(operation)
        .map_err(|error| OpError::NoAnswer(io::Error::other(error)))?;
    let mut stream = fdpass::FdStream::new(stream);
    stream.send(&question, &[]).await.map_err(OpError::NoAnswer)?;
    let frame = stream.recv().await.map_err(OpError::NoAnswer)?;
    let (answer, fds) =
        frame.ok_or_else(|| OpError::NoAnswer(io::ErrorKind::UnexpectedEof.into()))?;
    match serde_json::from_slice(&answer) {
        Ok(Outcome::Done) => Ok(fds.into_iter().next()),
        Ok(Outcome::Failed(failure)) => Err(failure.into()),
        Err(error) => Err(OpError::NoAnswer(io::Error::other(error))),
    }
}

/// Does the one operation this process was started for. The process should end after it.
///
/// # Errors
/// Only if this process was not started by a [`Hub`] or that has gone; what the operation itself
/// says goes to the hub.
pub fn serve() -> io::Result<()> {
    let number = std::env::var(SOCKET_VARIABLE).ok().and_then(|text| text.parse().ok());
    let number = number.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "this command is started by heddle itself only")
    })?;
    let stream = UnixStream::from(crate::net::inherited_fd(number)?);
    let Some((question, _)) = fdpass::recv_blocking(&stream)? else { return Ok(()) };
    let operation = serde_json::from_slice(&question).map_err(io::Error::other)?;
    let (outcome, fd) = match perform(operation) {
        Ok(fd) => (Outcome::Done, fd),
        Err(failure) => (Outcome::Failed(failure), None),
    };
    let answer = serde_json::to_vec(&outcome).map_err(io::Error::other)?;
    let fds: Vec<BorrowedFd<'_>> = fd.iter().map(AsFd::as_fd).collect();
    fdpass::send_blocking(&stream, &answer, &fds)
}

fn perform(operation: Operation) -> Result<Option<OwnedFd>, Failure> {
    match operation {
        Operation::SetUpHub(hub) => set_up_hub(&hub).map(|()| None),
        Operation::CreateWorkload(workload) => create_workload(&workload).map(Some),
        Operation::DeleteWorkload { link } => {
            Netlink::open()?.delete_link(&link)?;
            Ok(None)
        }
    }
}

fn set_up_hub(hub: &HubNet) -> Result<(), Failure> {
    let mut netlink = Netlink::open()?;
    netlink.create_bridge(&hub.bridge, hardware(&hub.addresses))?;
    let bridge = netlink.link_index(&hub.bridge)?;
    for address in usable(hub.addresses.iter().copied(), |network| network.address) {
        netlink.add_address(bridge, address)?;
    }
    try_workload(hub)
}

/// Makes a workload's namespace on trial, so that a kernel that lacks something is found out when the
/// mesh starts and not at the first join. It is gone when this returns.
fn try_workload(hub: &HubNet) -> Result<(), Failure> {
    let own = current_net()?;
    let rules = RedirectRules::all(Escape::Mark(1), [1, 1, 1]);
    let trial = WorkloadNet {
        link: "trial".to_owned(),
        bridge: hub.bridge.clone(),
        addresses: Vec::new(),
        gateways: Vec::new(),
        routes: Vec::new(),
        rules,
    };
    // Held until its link is gone: the kernel would remove the link with the namespace, and
    // removing it once more would be an error.
    let held = create_workload(&trial)?;
    sys::namespace::setns(own.as_fd(), libc::CLONE_NEWNET).map_err(at(Step::EnterNet))?;
    Netlink::open()?.delete_link(&trial.link)?;
    drop(held);
    Ok(())
}

fn create_workload(workload: &WorkloadNet) -> Result<OwnedFd, Failure> {
    let hub = current_net()?;
    sys::namespace::unshare(libc::CLONE_NEWNET).map_err(at(Step::MakeNet))?;
    let own = current_net()?;
    sys::namespace::loopback_up().map_err(at(Step::Loopback))?;
    ns::allow_low_ports().map_err(at(Step::LowPorts))?;

    sys::namespace::setns(hub.as_fd(), libc::CLONE_NEWNET).map_err(at(Step::EnterNet))?;
    let mut netlink = Netlink::open()?;
    let bridge = netlink.link_index(&workload.bridge)?;
    let inside = (WORKLOAD_LINK, hardware(&workload.addresses));
    netlink.create_veth(&workload.link, bridge, inside, own.as_fd())?;

    sys::namespace::setns(own.as_fd(), libc::CLONE_NEWNET).map_err(at(Step::EnterNet))?;
    // Rules before addresses: nothing of this workload is ever sent or received around its sidecar.
    nft::install_redirect(&workload.rules)?;
    let mut netlink = Netlink::open()?;
    let loopback = netlink.link_index(LOOPBACK_LINK)?;
    let caller = Network::new(LOOPBACK_CALLER_V6.into(), 128);
    for address in usable([caller].into_iter(), |network| network.address) {
        netlink.add_address(loopback, address)?;
    }
    let link = netlink.link_index(WORKLOAD_LINK)?;
    for address in usable(workload.addresses.iter().copied(), |network| network.address) {
        netlink.add_address(link, address)?;
    }
    netlink.set_up(link)?;
    for gateway in usable(workload.gateways.iter().copied(), |gateway| *gateway) {
        netlink.add_default_route(gateway)?;
    }
    for (network, gateway) in usable(workload.routes.iter().copied(), |(_, gateway)| *gateway) {
        netlink.add_route(network, gateway)?;
    }
    // The sidecar will ask this way what listens; better refused here than there.
    sock_diag::listening_sockets().map_err(|error| Failure {
        text: format!("cannot ask the kernel which ports listen (sock_diag): {error}"),
        errno: error.raw_os_error().unwrap_or(0),
        part: Part::Sockets,
    })?;
    Ok(own)
}

/// Both families' addresses are one index's, so the first speaks for all.
fn hardware(addresses: &[Network]) -> Option<HardwareAddress> {
    addresses.first().map(|network| HardwareAddress::of(network.address))
}

fn current_net() -> Result<OwnedFd, Failure> {
    File::open("/proc/thread-self/ns/net").map(OwnedFd::from).map_err(at(Step::Hold))
}

/// All, or those of IPv4 where the kernel has no IPv6.
fn usable<T>(
    all: impl Iterator<Item = T>,
    address: impl Fn(&T) -> IpAddr,
) -> impl Iterator<Item = T> {
    let has_ipv6 = Path::new("/proc/sys/net/ipv6").exists();
    all.filter(move |item| has_ipv6 || address(item).is_ipv4())
}

fn at(step: Step) -> impl FnOnce(io::Error) -> Failure {
    move |source| NsError { step, source }.into()
}

impl From<NsError> for Failure {
    fn from(error: NsError) -> Self {
        let errno = error.source.raw_os_error().unwrap_or(0);
        Self { text: error.to_string(), errno, part: Part::Namespaces }
    }
}

impl From<NetlinkError> for Failure {
    fn from(error: NetlinkError) -> Self {
        let errno = error.source.raw_os_error().unwrap_or(0);
        Self { text: error.to_string(), errno, part: Part::Links }
    }
}

impl From<NftError> for Failure {
    fn from(error: NftError) -> Self {
        let errno = error.source.raw_os_error().unwrap_or(0);
        Self { text: error.to_string(), errno, part: Part::Rules }
    }
}
