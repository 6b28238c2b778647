//! Tells the control plane where the application listens: when it changes, and again after every
//! reconnect, since a restarted control plane knows nothing of it.

use std::net::{IpAddr, SocketAddr};

use heddle_runtime::clock;
use heddle_wire::discovery::{
    proto::{Listening, ReportRequest},
    transport::DiscoveryClient,
};
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::lookup::FETCH_WAIT;

/// Pause after a report that failed on a connection that is up.
const RETRY_PAUSE: std::time::Duration = std::time::Duration::from_millis(200);

/// Sends reports for one workload.
#[derive(Debug)]
pub(crate) struct Reporter {
    /// Whose.
    pub(crate) workload: String,
    /// Where the application listens; the newest value counts.
    pub(crate) listening: watch::Receiver<Vec<SocketAddr>>,
    /// The connection to the control plane, when there is one.
    pub(crate) channel: watch::Receiver<Option<Channel>>,
}

impl Reporter {
    /// Reports for ever; ends with the other end of either watch.
    pub(crate) async fn run(mut self) {
        loop {
            let channel = self.channel.borrow_and_update().clone();
            let listening = self.listening.borrow_and_update().clone();
            let told = match channel {
                Some(channel) => self.report(channel, &listening).await,
                None => true,
            };
            tokio::select! {
                changed = self.channel.changed() => if changed.is_err() { return },
                changed = self.listening.changed() => if changed.is_err() { return },
                () = clock::sleep(RETRY_PAUSE), if !told => {}
            }
        }
    }

    async fn report(&self, channel: Channel, listening: &[SocketAddr]) -> bool {
        let request = ReportRequest {
            workload: self.workload.clone(),
            listening: listening.iter().map(on_the_wire).collect(),
        };
        let mut client = DiscoveryClient::new(channel);
        match clock::within(FETCH_WAIT, client.report(request)).await {
            Some(Ok(_)) => true,
            Some(Err(status)) => {
                tracing::debug!(%status, "the report of listening ports failed");
                false
            }
            None => {
                tracing::debug!("the report of listening ports was not answered");
                false
            }
        }
    }
}

fn on_the_wire(socket: &SocketAddr) -> Listening {
    let address = match socket.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    Listening { address, port: u32::from(socket.port()) }
}
