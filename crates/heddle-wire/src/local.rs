//! JSON spoken on one machine: command line, holder, control plane, sidecars and dashboard.

pub mod app_probes;
pub mod control_api;
pub mod holder_api;
pub mod last_scrape;
pub mod observe_api;
pub mod pod_environment;
pub mod proxy_config;
pub mod sidecar_api;
pub mod tap_api;
pub mod traces_api;
