//! From watchers to the mesh: changes that come together are taken in together, endpoints and rules alike, so
//! that proxies hear of a rollout's step once.

use std::{sync::Arc, time::Duration};

use heddle_runtime::{clock, task};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    client::{Api, Kind},
    health::Health,
    objects::{Bare, PodObject, ServiceObject, SliceObject},
    registry::Cluster,
    rules::RuleBook,
    served::{LOOK_INTERVAL, served},
    watch::{Change, Follower},
};
use crate::{
    control::{Control, RuleChange},
    registry::Touched,
};

/// Changes waiting to be taken in; beyond it watches are read no further.
const EVENTS_MAX: usize = 4_096;
/// Changes within this time of one another are one batch.
const SETTLE: Duration = Duration::from_millis(20);
/// A batch is taken in after this time though more comes.
const SETTLE_MAX: Duration = Duration::from_millis(100);
/// What stands for the question which kinds there are.
const KINDS: &str = "API groups";

/// What has happened in the cluster.
#[derive(Debug)]
pub(crate) enum Event {
    Service(Change<ServiceObject>),
    Pod(Change<PodObject>),
    Slice(Change<SliceObject>),
    Node(Change<Bare>),
    Namespace(Change<Bare>),
    Rule(Kind, Change<Value>),
}

/// What is followed, and where it goes.
#[derive(Debug)]
pub(crate) struct Source {
    /// Whom to ask.
    pub(crate) api: Api,
    /// Where it goes.
    pub(crate) control: Arc<Control>,
    /// How it goes.
    pub(crate) health: Arc<Health>,
    /// What is known of rules.
    pub(crate) book: RuleBook,
}

impl Source {
    /// Follows everything, for ever.
    pub(crate) async fn run(self) {
        let (events, mut taken) = mpsc::channel(EVENTS_MAX);
        // Until it is known which kinds of rules there are, it is not known whether all have been read.
        self.health.expect(KINDS);
        let core = |kind: &str, plural: &str| Kind::new("", "v1", kind, plural);
        let slices = Kind::new("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices");
        self.follow(core("Namespace", "namespaces"), &events, Event::Namespace);
        self.follow(core("Node", "nodes"), &events, Event::Node);
        self.follow(core("Service", "services"), &events, Event::Service);
        self.follow(core("Pod", "pods"), &events, Event::Pod);
        self.follow(slices, &events, Event::Slice);
        tokio::join!(self.look_for_rules(events), self.take(&mut taken));
    }

    fn follow<T: DeserializeOwned + 'static>(
        &self,
        kind: Kind,
        events: &mpsc::Sender<Event>,
        event: impl Fn(Change<T>) -> Event + 'static,
    ) -> JoinHandle<()> {
        self.health.expect(&kind.to_string());
        let follower = Follower {
            api: self.api.clone(),
            kind,
            events: events.clone(),
            event: Box::new(event),
            health: self.health.clone(),
        };
        task::spawn_contained("watch", follower.run())
    }

    /// Follows kinds of rules from when they are served; a follower ends by itself when its kind goes.
    async fn look_for_rules(&self, events: mpsc::Sender<Event>) {
        let mut followed: Vec<(Kind, JoinHandle<()>)> = Vec::new();
        loop {
            match served(&self.api).await {
                Ok(kinds) => {
                    followed.retain(|(_, task)| !task.is_finished());
                    for kind in kinds {
                        let same = |(one, _): &(Kind, _)| one.plural == kind.plural;
                        if followed.iter().any(same) {
                            continue;
                        }
                        tracing::info!(kind = %kind, version = kind.version, "a kind of rules is served");
                        let of = kind.clone();
                        let event = move |change| Event::Rule(of.clone(), change);
                        followed.push((kind.clone(), self.follow(kind, &events, event)));
                    }
                    self.health.synced(KINDS);
                }
                Err(error) => self.health.trouble(KINDS, &error),
            }
            clock::sleep(LOOK_INTERVAL).await;
        }
    }

    async fn take(&self, events: &mut mpsc::Receiver<Event>) {
        while let Some(first) = events.recv().await {
            let end = clock::now() + SETTLE_MAX;
            let mut batch = vec![first];
            while batch.len() < EVENTS_MAX && clock::now() < end {
                match clock::within(SETTLE, events.recv()).await {
                    Some(Some(event)) => batch.push(event),
                    Some(None) | None => break,
                }
            }
            self.take_batch(batch);
        }
    }

    fn take_batch(&self, batch: Vec<Event>) {
        let mut rules: Vec<RuleChange> = Vec::new();
        let mut objects = Vec::new();
        for event in batch {
            match event {
                Event::Rule(kind, change) => rules.extend(self.book.take(&kind, change)),
                other => objects.push(other),
            }
        }
        // What rules name may have come with them, and is there when they are looked at.
        if !objects.is_empty() {
            self.control.take_cluster(|cluster| taken(cluster, objects));
        }
        if !rules.is_empty() {
            let keys: Vec<_> = rules.iter().map(|change| change.key.clone()).collect();
            self.control.take_cluster_rules(rules);
            self.book.carry(&keys, self.control.newest());
        }
    }
}

fn taken(cluster: &mut Cluster, events: Vec<Event>) -> Touched {
    let mut touched = Touched::default();
    for event in events {
        touched.merge(match event {
            Event::Service(Change::Put(service)) => cluster.put_service(&service),
            Event::Service(Change::Gone(name)) => cluster.remove_service(&name),
            Event::Pod(Change::Put(pod)) => cluster.put_pod(pod),
            Event::Pod(Change::Gone(name)) => cluster.remove_pod(&name),
            Event::Slice(Change::Put(slice)) => cluster.put_slice(&slice),
            Event::Slice(Change::Gone(name)) => cluster.remove_slice(&name),
            Event::Node(Change::Put(node)) => cluster.put_node(&node),
            Event::Node(Change::Gone((_, name))) => cluster.remove_node(&name),
            Event::Namespace(Change::Put(namespace)) => {
                cluster.put_namespace(namespace);
                Touched::default()
            }
            Event::Namespace(Change::Gone((_, name))) => {
                cluster.remove_namespace(&name);
                Touched::default()
            }
            Event::Rule(..) => Touched::default(),
        });
    }
    touched
}
