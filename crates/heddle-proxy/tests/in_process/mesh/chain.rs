//! Three services one behind the other, `a` → `b` → `c`, each with its sidecar and called under the same rule;
//! the last one fails always.

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use heddle_model::{Owner, discovery::Traffic};
use heddle_proxy::{
    metrics::scrape::Scrape,
    snapshot::{CompiledDestination, ResourceSet},
};
use heddle_runtime::{clock, task::spawn_contained};
use heddle_testkit::resources::{self, PORT};
use heddle_wire::trace::span::Span;

use super::{Application, CLIENT, End, Sidecar, Wires, address};

const SERVICES: [&str; 3] = ["a", "b", "c"];
/// The last byte of the first one's address, and of its virtual one.
const FIRST: u8 = 21;
const FIRST_VIP: u8 = 11;
const FAILS: &str = "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n";

/// What each of them was asked, and whether it passes on what came.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) asked: [Cell<usize>; 3],
    pub(crate) forwards: Cell<bool>,
    sidecars: RefCell<Vec<Rc<Sidecar>>>,
    /// The last head that each of them was sent.
    pub(crate) heads: RefCell<[String; 3]>,
}

pub(crate) struct Chain {
    pub(crate) client: Sidecar,
    pub(crate) counts: Rc<Counts>,
}

fn vip(position: usize) -> SocketAddr {
    SocketAddr::new(resources::vip(FIRST_VIP + position as u8), PORT)
}

/// Which of them is at this address.
fn position(at: IpAddr) -> usize {
    (0..SERVICES.len()).find(|one| address(FIRST + *one as u8) == at).expect("one of them")
}

impl Chain {
    /// All calls have this.
    pub(crate) fn under(traffic: &Traffic) -> Self {
        let counts = Rc::<Counts>::default();
        let told = Rc::clone(&counts);
        let application: Application = Rc::new(move |end| Box::pin(serve(end, Rc::clone(&told))));
        let network = Rc::new(Wires::default());
        let mut set = ResourceSet::default();
        for (at, name) in SERVICES.into_iter().enumerate() {
            let service = Owner::Service(resources::service(name));
            set.insert_address(resources::address(vip(at).ip(), service));
            set.insert_endpoints(resources::endpoints(name, &[FIRST + at as u8]));
            let all = vec![resources::target(name, None)];
            let mut destination = resources::destination(name, all);
            destination.vips = vec![vip(at).ip()];
            destination.ports[0].http[0].traffic = traffic.clone();
            set.insert_destination(CompiledDestination::new(destination).unwrap());
        }
        let start = |last, id: &str, service| {
            let mut set = set.clone();
            set.inbound = Some(Arc::new(resources::inbound_of(id, service, PORT)));
            Sidecar::start(last, (id, service), &set, &network, &application)
        };
        let client = start(CLIENT, "client-1", "client");
        let sidecar = |(at, name): (usize, &'static str)| {
            let last = FIRST + at as u8;
            Rc::new(start(last, &format!("{name}-{last}"), name))
        };
        *counts.sidecars.borrow_mut() = SERVICES.into_iter().enumerate().map(sidecar).collect();
        Self { client, counts }
    }

    /// From now on of so many in a hundred requests the trace is recorded.
    pub(crate) fn trace(&self, percent: f64) {
        self.client.trace(resources::tracing(percent));
        let sidecars = self.counts.sidecars.borrow();
        sidecars.iter().for_each(|sidecar| sidecar.trace(resources::tracing(percent)));
    }

    /// Spans of the client's sidecar and of that of each service.
    pub(crate) fn spans(&self) -> Vec<Vec<Span>> {
        let sidecars = self.counts.sidecars.borrow();
        let servers = sidecars.iter().map(|sidecar| sidecar.spans());
        std::iter::once(self.client.spans()).chain(servers).collect()
    }

    /// How often a metric was counted at the sidecar of this service.
    pub(crate) fn counted(&self, at: usize, metric: &str) -> f64 {
        let text = Scrape::new(Arc::clone(&self.counts.sidecars.borrow()[at].shared.metrics));
        let text = text.collect::<String>();
        let value = text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).unwrap_or(f64::NAN)
    }

    /// A request of the client's application to `a`, with these fields.
    pub(crate) async fn ask(&self, fields: &str) -> (String, String) {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        self.client.call(vip(0)).ask(&request).await
    }

    /// So many requests, 500 a second, to their end; how often each service was asked, per request.
    pub(crate) async fn offer(&self, requests: usize) -> [f64; 3] {
        let left = Rc::new(Cell::new(requests));
        let begun = clock::now();
        for number in 0..requests {
            let (mut call, left) = (self.client.call(vip(0)), Rc::clone(&left));
            drop(spawn_contained("request", async move {
                call.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
                left.set(left.get() - 1);
            }));
            clock::sleep_until(begun + Duration::from_millis(2) * (number as u32 + 1)).await;
        }
        while left.get() > 0 {
            clock::sleep(Duration::from_millis(100)).await;
        }
        std::array::from_fn(|at| self.counts.asked[at].get() as f64 / requests as f64)
    }
}

/// Asks the next one and answers with its status; the last one fails.
async fn serve(mut end: End, counts: Rc<Counts>) {
    let at = position(end.at);
    while let Some((head, _)) = end.message().await {
        counts.asked[at].set(counts.asked[at].get() + 1);
        counts.heads.borrow_mut()[at].clone_from(&head.to_ascii_lowercase());
        if at + 1 == SERVICES.len() {
            end.send(FAILS).await;
            continue;
        }
        let kept = ["x-request-id", "x-envoy-expected-rq-timeout-ms"];
        let forwarded = head.lines().filter(|line| {
            let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
            let is_context = name.starts_with("x-b3-") || name == "b3" || name.starts_with("trace");
            counts.forwards.get() && (kept.contains(&name.as_str()) || is_context)
        });
        let fields: String = forwarded.map(|line| format!("{line}\r\n")).collect();
        let request = format!("GET / HTTP/1.1\r\nHost: next\r\n{fields}\r\n");
        let sidecar = Rc::clone(&counts.sidecars.borrow()[at]);
        let (answer, body) = sidecar.call(vip(at + 1)).ask(&request).await;
        assert!(!answer.contains("x-heddle-mark"), "a mark is no application's to see: {answer}");
        let status = answer.lines().next().unwrap_or_default();
        end.send(&format!("{status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
    }
}
