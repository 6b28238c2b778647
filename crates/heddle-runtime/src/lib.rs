//! The only door to the OS: clock, tasks, sockets, splice, namespaces, netlink, processes.
//!
//! Everything unsafe is in the private `sys` module; the modules here are its safe face. Nothing in
//! this crate knows a mesh resource: it is told addresses, ports, marks and paths, and what TLS to begin.
//!
//! | question | module |
//! |---|---|
//! | connections of the data path | [`transport`], [`tls`], [`net`], [`splice`] |
//! | descriptors between processes | [`fdpass`], [`kept`] |
//! | the mesh's namespaces and a workload's | [`ns`], [`netns_op`], [`netlink`], [`mount`] |
//! | whose connections go to the sidecar | [`redirect`], [`nft`], [`iptables`], [`proof`] |
//! | children, capabilities, signals | [`process`], [`spawn`], [`capability`], [`signal`] |
//! | what the host says | [`resolv`], [`sock_diag`], [`preflight`] |
//! | time, tasks and memory | [`clock`], [`task`], [`memory`], [`figures`] |
//! | the local JSON APIs | [`local_http`] |
//! | the terminal | [`terminal`] |

pub mod capability;
pub mod clock;
pub mod fdpass;
pub mod figures;
pub mod iptables;
pub mod kept;
pub mod local_http;
pub mod memory;
pub mod mount;
pub mod net;
pub mod netlink;
pub mod netns_op;
pub mod nft;
pub mod ns;
pub mod path_socket;
pub mod preflight;
pub mod process;
pub mod proof;
pub mod pulse;
pub mod redirect;
pub mod resolv;
pub mod signal;
pub mod sock_diag;
pub mod spawn;
pub mod splice;
pub mod task;
pub mod terminal;
pub mod tls;
pub mod transport;

mod sys;
