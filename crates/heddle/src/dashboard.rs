//! `heddle dashboard`: where it is. That of a cluster is brought to a port of this machine, which stays the same
//! from one day to the next, and is there until Ctrl-C.

use std::{
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use heddle_control::reach::{Part, PodAt};
use heddle_runtime::{clock, task};
use heddle_wire::local::observe_api::Ejection;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use crate::{
    chosen::{Chosen, Dashboard},
    cli::DashboardArgs,
    cluster_mesh::{ClusterMesh, port_taken},
    failure::{Doing as _, Failure},
    output,
    termination::Termination,
};

mod browser;

/// Connections that are forwarded at one time: a browser opens six.
const CONNECTIONS_MAX: usize = 64;
/// Pause after a failed accept (out of descriptors): nothing else would slow the loop down.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// `heddle dashboard`.
///
/// # Errors
/// A refusal where no such mesh runs, or its dashboard cannot be reached.
pub(crate) async fn dashboard(args: DashboardArgs) -> Result<(), Failure> {
    match Chosen::of(&args.mesh).await?.dashboard().await? {
        Dashboard::Local(address) => {
            tell(address, args.open);
            Ok(())
        }
        dashboard => forward(&dashboard, args.port, args.open).await,
    }
}

/// Prints the address, and has the browser show it.
fn tell(address: SocketAddr, open: bool) {
    let url = format!("http://{address}");
    output::line(&url);
    if !open {
        return;
    }
    if let Err(error) = browser::open(&url) {
        output::notice(format!("no browser can be started here ({error}): open {url} yourself"));
    }
}

async fn forward(dashboard: &Dashboard, port: u16, open: bool) -> Result<(), Failure> {
    let Dashboard::Cluster { mesh, .. } = dashboard else { return Ok(()) };
    let mut signals = Termination::watch().doing(|| "watch for signals".to_owned())?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    let listener = listener.map_err(|error| port_taken(port, &error))?;
    // What would fail for every connection is told now.
    dashboard.ask::<Vec<Ejection>>("/api/v1/ejections").await?;
    let address = listener.local_addr().doing(|| "listen".to_owned())?;
    tell(address, open);
    output::notice(format!(
        "the dashboard of the mesh in namespace {} of context `{}`, until Ctrl-C",
        mesh.namespace,
        mesh.reach.context()
    ));
    tokio::select! {
        () = accept(listener, mesh) => {}
        () = signals.next() => {}
    }
    Ok(())
}

async fn accept(listener: TcpListener, mesh: &ClusterMesh) {
    let slots = std::sync::Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mesh = Rc::new(mesh.clone());
    loop {
        let Ok(slot) = std::sync::Arc::clone(&slots).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            clock::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let mesh = Rc::clone(&mesh);
        drop(task::spawn_contained("forwarded connection", async move {
            let _slot = slot;
            if let Err(failure) = one(stream, &mesh).await {
                output::failure(&failure);
            }
        }));
    }
}

/// One connection, to whichever pod serves now.
async fn one(mut stream: TcpStream, mesh: &ClusterMesh) -> Result<(), Failure> {
    let pods: Vec<PodAt> = mesh.serving_observers().await?;
    let mut refused = None;
    for pod in pods.iter().take(2) {
        match mesh.reach.forward(pod, Part::Observe.port()).await {
            Ok(mut forwarded) => {
                // A browser that goes away is no error, and neither is a pod that does: the page says so.
                let _ended = copy_bidirectional(&mut stream, &mut forwarded.stream).await;
                return Ok(());
            }
            Err(error) if error.is_final => return Err(error.into()),
            Err(error) => refused = Some(error),
        }
    }
    refused.map_or(Ok(()), |error| Err(error.into()))
}
