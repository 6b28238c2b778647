//! Counts that many threads share.

use std::{sync::Barrier, thread};

use heddle_model::{ServiceName, discovery::OutlierDetection};
use heddle_runtime::task;

use super::*;

const THREADS: usize = 4;

fn policy(outlier: Option<OutlierDetection>, pool: ConnectionPool) -> Arc<ClusterPolicy> {
    let service = ServiceName::new("reviews", "default").unwrap();
    Arc::new(ClusterPolicy {
        cluster: ClusterKey { service, subset: None, port: 80 },
        provenance: Provenance("DestinationRule/default/reviews".into()),
        outlier,
        pool: Some(pool),
        tls: None,
        balancing: None,
        retry_budget: None,
    })
}

fn id(last: u8) -> EndpointId {
    (WorkloadId(format!("reviews-{last}")), IpAddr::from([240, 241, 0, last]), 80)
}

/// Runs this on as many threads at once.
fn on_threads(run: impl Fn() + Sync) {
    let together = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                together.wait();
                run();
            });
        }
    });
}

#[test]
fn threads_together_never_count_more_than_the_limit() {
    let limits = ConnectionPool { max_requests: Some(3), ..ConnectionPool::default() };
    let breaker = Breakers::default().of(policy(None, limits));
    let (now, most, refused) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    on_threads(|| {
        for _ in 0..10_000 {
            let mut held = Vec::new();
            for _ in 0..2 {
                match breaker.enter(Limit::Requests) {
                    Ok(counted) => {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        held.push(counted);
                    }
                    Err(_) => drop(refused.fetch_add(1, Ordering::SeqCst)),
                }
            }
            now.fetch_sub(u32::try_from(held.len()).unwrap(), Ordering::SeqCst);
        }
    });
    assert!(most.into_inner() <= 3);
    let free = [(); 4].map(|()| breaker.enter(Limit::Requests));
    assert_eq!(free.map(|one| one.is_ok()), [true, true, true, false], "nothing is left counted");
}

#[test]
fn whoever_waits_for_a_connection_on_any_thread_gets_one() {
    let limits = ConnectionPool { max_connections: Some(1), ..ConnectionPool::default() };
    let breakers = Breakers::default();
    let breaker = breakers.of(policy(None, limits));
    let (now, served) = (AtomicU32::new(0), AtomicU32::new(0));
    on_threads(|| {
        task::run_local(async {
            for _ in 0..500 {
                let counted = breaker.connection(|| {}).await;
                assert!(counted.is_some());
                assert_eq!(now.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
                tokio::task::yield_now().await;
                now.fetch_sub(1, Ordering::SeqCst);
                served.fetch_add(1, Ordering::SeqCst);
            }
        })
        .unwrap();
    });
    assert_eq!(served.into_inner() as usize, THREADS * 500);
    assert!(!breaker.is_waited_for());
}

#[test]
fn threads_together_take_an_endpoint_out_once_and_one_of_them_tries_it() {
    let rule = OutlierDetection {
        consecutive_5xx: 100,
        max_ejection_percent: 100,
        ..OutlierDetection::default()
    };
    let breakers = Breakers::default();
    let breaker = breakers.of(policy(Some(rule.clone()), ConnectionPool::default()));
    let places = [1, 2].map(|last| breaker.place(id(last)));
    breaker.is_of([1, 2].map(id).into_iter());
    let now = clock::now();
    on_threads(|| {
        for _ in 0..25 {
            places[0].saw(Seen::Answer(500), now);
        }
    });
    let out = breakers.ejections();
    assert_eq!(out.iter().map(|(_, _, count)| *count).collect::<Vec<_>>(), [1], "at the hundredth");
    let both = [&places[0], &places[1]];
    assert_eq!(breaker.admitted(&both, Tries::AtOnce, now), Admitted::Some(vec![1]));
    let due = now + rule.base_ejection_time;
    // Whoever hears nothing of what comes of it tries nobody, and takes nobody's place who would.
    assert_eq!(breaker.admitted(&both, Tries::Never, due), Admitted::Some(vec![1]));
    let tries = AtomicU32::new(0);
    on_threads(|| {
        if breaker.admitted(&both, Tries::AtOnce, due) == Admitted::Probe(0) {
            tries.fetch_add(1, Ordering::SeqCst);
        }
    });
    assert_eq!(tries.into_inner(), 1);
    places[0].tried(Some(Seen::Answer(200)), due);
    assert!(!breaker.has_ejected());
    assert_eq!(breakers.ejected(), []);
}

#[test]
fn an_endpoint_that_leaves_is_out_no_more_and_one_that_stays_is() {
    let rule = OutlierDetection { consecutive_5xx: 1, ..OutlierDetection::default() };
    let breakers = Breakers::default();
    let breaker = breakers.of(policy(Some(rule), ConnectionPool::default()));
    let place = breaker.place(id(1));
    breaker.is_of([1, 2].map(id).into_iter());
    place.saw(Seen::Unreachable, clock::now());
    breaker.is_of([1, 3].map(id).into_iter());
    assert_eq!(breakers.ejected().len(), 1);
    breaker.is_of([3].map(id).into_iter());
    assert!(!breaker.has_ejected());
    place.saw(Seen::Unreachable, clock::now());
    assert_eq!(breakers.ejected(), []);
}
