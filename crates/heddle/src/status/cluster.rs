//! `status` and `proxy-status` of a mesh in a cluster: its control plane's replicas, who leads, the proxies of all of
//! them, and first of all what is wrong.

use std::{collections::BTreeSet, fmt::Write as _};

use heddle_control::reach::PodAt;
use heddle_wire::local::control_api::{Problem, ProxyStatus, Replica, Status};
use serde::Serialize;

use super::proxies::{proxy_row, proxy_state};
use crate::{
    cli::{NamespaceFlags, Output},
    cluster_mesh::ClusterMesh,
    control_client::problem_line,
    failure::Failure,
    output,
};

/// Of things of one sort that are wrong so many are told one by one.
const TOLD: usize = 20;

/// A pod of the mesh's own.
#[derive(Debug, Clone, Serialize)]
struct PodRow {
    name: String,
    ready: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
}

/// A replica of the control plane.
#[derive(Debug, Serialize)]
struct ReplicaRow {
    #[serde(flatten)]
    pod: PodRow,
    /// What it says of itself; absent where it says nothing.
    itself: Option<Replica>,
    generation: u64,
}

/// A proxy, as the replica tells of it that serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ProxyRow {
    #[serde(flatten)]
    proxy: ProxyStatus,
    /// Which one; absent where it is connected to none.
    control: Option<String>,
    /// `in force`, `pending`, `refused: …` or `not connected`.
    state: String,
}

/// How many proxies are in which state.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Counts {
    connected: usize,
    in_force: usize,
    pending: usize,
    refused: usize,
    not_connected: usize,
}

/// `heddle proxy-status` as one document.
#[derive(Debug, Serialize)]
struct Proxies {
    context: String,
    namespace: String,
    control: Vec<ReplicaRow>,
    proxies: Vec<ProxyRow>,
}

/// `heddle status` as one document.
#[derive(Debug, Serialize)]
struct MeshStatus {
    /// What is wrong, the worst first.
    wrong: Vec<String>,
    context: String,
    namespace: String,
    revision: String,
    control: Vec<ReplicaRow>,
    observe: Vec<PodRow>,
    proxies: Counts,
    without_sidecar: Vec<String>,
    out_of_force: Vec<Problem>,
    problems: Vec<Problem>,
}

/// What all replicas say.
struct Asked {
    control: Vec<ReplicaRow>,
    statuses: Vec<(String, Status)>,
    /// Why none of them says anything.
    silent: Option<String>,
}

async fn ask(mesh: &ClusterMesh) -> Result<Asked, Failure> {
    let answers = async {
        let replicas = mesh.get_of_each::<Replica>("/v1/replica").await?;
        Ok::<_, Failure>((replicas, mesh.get_of_each::<Status>("/v1/status").await?))
    };
    let (replicas, statuses, silent) = match answers.await {
        Ok((replicas, statuses)) => (replicas, statuses, None),
        Err(failure) => (Vec::new(), Vec::new(), Some(failure.message)),
    };
    let row = |pod: &PodAt| ReplicaRow {
        pod: pod_row(pod),
        itself: replicas.iter().find(|(of, _)| of.name == pod.name).map(|(_, one)| one.clone()),
        generation: statuses
            .iter()
            .find(|(of, _)| of.name == pod.name)
            .map_or(0, |(_, status)| status.generation),
    };
    let control = mesh.control.iter().map(row).collect();
    let statuses = statuses.into_iter().map(|(pod, status)| (pod.name.clone(), status)).collect();
    Ok(Asked { control, statuses, silent })
}

fn pod_row(pod: &PodAt) -> PodRow {
    PodRow { name: pod.name.clone(), ready: pod.ready, why: pod.why.clone() }
}

/// The proxies of all replicas: each once, as the one tells of it to which it is connected.
fn merged(statuses: &[(String, Status)], namespaces: &NamespaceFlags) -> Vec<ProxyRow> {
    let mut rows: Vec<ProxyRow> = Vec::new();
    for (replica, status) in statuses {
        for proxy in &status.proxies {
            // The ids of pods begin with their namespace.
            let namespace = proxy.workload.0.split_once('.').map_or("", |(namespace, _)| namespace);
            if !namespaces.has(namespace) {
                continue;
            }
            let row = ProxyRow {
                proxy: proxy.clone(),
                control: proxy.connected.then(|| replica.clone()),
                state: proxy_state(proxy, status.generation),
            };
            match rows.iter_mut().find(|known| known.proxy.workload == proxy.workload) {
                Some(known) if row.proxy.connected => *known = row,
                Some(_) => {}
                None => rows.push(row),
            }
        }
    }
    rows.sort_by(|a, b| a.proxy.workload.cmp(&b.proxy.workload));
    rows
}

fn counted(rows: &[ProxyRow]) -> Counts {
    let mut counts = Counts::default();
    for row in rows {
        match row.state.as_str() {
            "not connected" => counts.not_connected += 1,
            "in force" => counts.in_force += 1,
            "pending" => counts.pending += 1,
            _ => counts.refused += 1,
        }
        counts.connected += usize::from(row.proxy.connected);
    }
    counts
}

/// `heddle proxy-status`.
///
/// # Errors
/// A refusal where no replica answers.
pub(super) async fn proxy_status(
    mesh: &ClusterMesh,
    namespaces: &NamespaceFlags,
    format: Output,
) -> Result<(), Failure> {
    let asked = ask(mesh).await?;
    if let Some(reason) = asked.silent {
        return Err(Failure::refused(reason));
    }
    let proxies = merged(&asked.statuses, namespaces);
    if format == Output::Json {
        return output::json(&Proxies {
            context: mesh.reach.context().to_owned(),
            namespace: mesh.namespace.clone(),
            control: asked.control,
            proxies,
        });
    }
    let counts = counted(&proxies);
    let generations: Vec<String> =
        asked.control.iter().map(|row| row.generation.to_string()).collect();
    let rows: Vec<Vec<String>> = proxies
        .iter()
        .map(|row| {
            let mut cells = proxy_row(&row.proxy, row.state.clone());
            cells.push(row.control.clone().unwrap_or_else(|| "-".to_owned()));
            cells
        })
        .collect();
    output::line(format!(
        "generation {}: acknowledged by {} of {} proxies\n{}",
        generations.join(", "),
        counts.in_force,
        proxies.len(),
        output::table(&["WORKLOAD", "GENERATION", "STATE", "CALLS", "CONTROL"], &rows)
    ));
    Ok(())
}

/// `heddle status`.
///
/// # Errors
/// The API server does not answer.
pub(super) async fn status(
    mesh: &ClusterMesh,
    namespaces: &NamespaceFlags,
    format: Output,
) -> Result<(), Failure> {
    let asked = ask(mesh).await?;
    let observe: Vec<PodRow> = mesh.observers().await?.iter().map(pod_row).collect();
    let proxies = merged(&asked.statuses, namespaces);
    let replicas: Vec<&Replica> =
        asked.control.iter().filter_map(|row| row.itself.as_ref()).collect();
    // The one that writes knows best; the others see the same a moment later.
    let best = replicas.iter().find(|one| one.leads).or_else(|| replicas.first());
    let told = best.and_then(|best| asked.statuses.iter().find(|(name, _)| *name == best.name));
    let told = told
        .or_else(|| asked.statuses.first())
        .map(|(_, status)| status.clone())
        .unwrap_or_default();
    let in_namespace =
        |pod: &&String| namespaces.has(pod.split_once('/').map_or("", |(namespace, _)| namespace));
    let without = best.map(|best| best.without_sidecar.iter().filter(in_namespace).cloned());
    let mut status = MeshStatus {
        wrong: Vec::new(),
        context: mesh.reach.context().to_owned(),
        namespace: mesh.namespace.clone(),
        revision: mesh.revision.clone(),
        proxies: counted(&proxies),
        without_sidecar: without.map(Iterator::collect).unwrap_or_default(),
        out_of_force: told.out_of_force,
        problems: told.problems,
        control: asked.control,
        observe,
    };
    status.wrong = wrong(&status, &proxies, asked.silent);
    match format {
        Output::Json => output::json(&status)?,
        Output::Text => output::line(text(&status)),
    }
    Ok(())
}

/// What is wrong, the worst first: what stops the mesh, then what a proxy or rule lacks, then the rest.
fn wrong(status: &MeshStatus, proxies: &[ProxyRow], silent: Option<String>) -> Vec<String> {
    let mut lines: Vec<String> = silent.into_iter().collect();
    let unready = status.control.iter().filter(|row| !row.pod.ready && lines.is_empty());
    let unready: Vec<String> = unready
        .map(|row| {
            format!("replica {} of the control plane is not ready: {}", row.pod.name, row.pod.why)
        })
        .collect();
    lines.extend(unready);
    let replicas: Vec<&Replica> =
        status.control.iter().filter_map(|row| row.itself.as_ref()).collect();
    if !replicas.is_empty() && !replicas.iter().any(|one| one.leads) {
        lines.push("no replica of the control plane leads: no status of a rule is written, and no namespace gets the roots; see `kubectl get lease heddle-control`".to_owned());
    }
    for one in &replicas {
        let troubles = one.unread.iter().chain(&one.troubles);
        lines.extend(troubles.map(|trouble| format!("replica {}: {trouble}", one.name)));
    }
    let of_proxies = proxies.iter().filter(|row| !["in force", "pending"].contains(&&*row.state));
    tell(&mut lines, of_proxies.map(|row| match row.proxy.connected {
        true => format!("proxy {} {}", row.proxy.workload, row.state),
        false => format!("proxy {} is not connected: it goes on with the rules it has; see `kubectl logs` of its container heddle-proxy", row.proxy.workload),
    }), "proxies");
    tell(
        &mut lines,
        status.out_of_force.iter().map(|one| format!("out of force: {}", problem_line(one))),
        "rules out of force",
    );
    let lacks = |pod: &String| {
        format!("pod {pod} should have a sidecar and has none: delete it, so that it is made anew")
    };
    tell(&mut lines, status.without_sidecar.iter().map(lacks), "pods without their sidecar");
    if status.observe.is_empty() {
        lines.push("there is no observer: `heddle top`, `graph` and `dashboard` have no numbers; `heddle install` makes it".to_owned());
    }
    let unready = status.observe.iter().filter(|row| !row.ready);
    lines.extend(unready.map(|row| format!("observer {} is not ready: {}", row.name, row.why)));
    let known: BTreeSet<String> = status.out_of_force.iter().map(problem_line).collect();
    let rest = status.problems.iter().map(problem_line);
    let rest = rest.filter(|line| !known.contains(line) && !is_of_the_cluster(line));
    tell(&mut lines, rest, "findings");
    lines
}

/// What replicas note of the cluster is told above from newer facts.
fn is_of_the_cluster(line: &str) -> bool {
    line.contains(" should have a sidecar and has none") || line.ends_with("lack their sidecar")
}

fn tell(lines: &mut Vec<String>, some: impl Iterator<Item = String>, what: &str) {
    let mut more = 0;
    for (at, line) in some.enumerate() {
        if at < TOLD {
            lines.push(line);
        } else {
            more += 1;
        }
    }
    if more > 0 {
        lines.push(format!("and {more} more {what}"));
    }
}

fn text(status: &MeshStatus) -> String {
    let mut text: String = status.wrong.iter().map(|line| format!("problem: {line}\n")).collect();
    let mut versions: Vec<&str> =
        status.control.iter().filter_map(|row| Some(&*row.itself.as_ref()?.version)).collect();
    versions.sort_unstable();
    versions.dedup();
    let ready = |total: usize, ready: usize| format!("{ready} of {total} ready");
    let leader = status.control.iter().find(|row| row.itself.as_ref().is_some_and(|one| one.leads));
    let leader = leader.map_or_else(String::new, |row| format!(", {} leads", row.pod.name));
    let control = status.control.iter().filter(|row| row.pod.ready).count();
    let observe = status.observe.iter().filter(|row| row.ready).count();
    let generations: Vec<String> = status
        .control
        .iter()
        .filter(|row| row.itself.is_some())
        .map(|row| row.generation.to_string())
        .collect();
    let Counts { connected, in_force, pending, refused, not_connected } = &status.proxies;
    write!(
        text,
        "mesh in namespace {} of context {}, revision {}, heddle {}\n  control    {}{leader}\n  observe    {}\n  rules      generation {}, {} out of force\n  proxies    {connected} connected: {in_force} in force, {pending} pending, {refused} refused; {not_connected} not connected\n  pods       {} without their sidecar",
        status.namespace,
        status.context,
        status.revision,
        if versions.is_empty() { "of unknown version".to_owned() } else { versions.join(" and ") },
        ready(status.control.len(), control),
        ready(status.observe.len(), observe),
        if generations.is_empty() { "unknown".to_owned() } else { generations.join(", ") },
        status.out_of_force.len(),
        status.without_sidecar.len(),
    )
    .expect("invariant: writing to a String never fails");
    text
}

#[cfg(test)]
mod tests {
    use heddle_model::WorkloadId;

    use super::*;

    fn proxy(id: &str, connected: bool, generation: u64) -> ProxyStatus {
        ProxyStatus {
            workload: WorkloadId(id.to_owned()),
            connected,
            generation,
            nack: None,
            destinations: Vec::new(),
        }
    }

    fn status(generation: u64, proxies: Vec<ProxyStatus>) -> Status {
        Status { generation, proxies, ..Status::default() }
    }

    #[test]
    fn each_proxy_is_told_once_by_the_replica_that_serves_it() {
        let first = status(
            7,
            vec![proxy("shop.a", true, 7), proxy("shop.b", false, 0), proxy("bank.c", false, 0)],
        );
        let second = status(
            90,
            vec![proxy("shop.a", false, 0), proxy("shop.b", true, 89), proxy("bank.c", false, 0)],
        );
        let both = [("r1".to_owned(), first), ("r2".to_owned(), second)];
        let rows = merged(&both, &NamespaceFlags::default());
        let told: Vec<_> = rows
            .iter()
            .map(|row| (&*row.proxy.workload.0, row.control.as_deref(), &*row.state))
            .collect();
        assert_eq!(
            told,
            [
                ("bank.c", None, "not connected"),
                ("shop.a", Some("r1"), "in force"),
                ("shop.b", Some("r2"), "pending"),
            ]
        );
        let wanted = Counts { connected: 2, in_force: 1, pending: 1, refused: 0, not_connected: 1 };
        assert_eq!(counted(&rows), wanted);
        let shop = NamespaceFlags { namespace: Some("shop".to_owned()), all_namespaces: false };
        assert_eq!(merged(&both, &shop).len(), 2);
    }

    #[test]
    fn what_stops_the_mesh_is_told_before_what_a_rule_lacks() {
        let pod = |name: &str, ready, why: &str| PodRow {
            name: name.to_owned(),
            ready,
            why: why.to_owned(),
        };
        let itself =
            Replica { name: "r1".to_owned(), version: "1".to_owned(), ..Replica::default() };
        let status = MeshStatus {
            wrong: Vec::new(),
            context: "kind".to_owned(),
            namespace: "heddle-system".to_owned(),
            revision: "default".to_owned(),
            control: vec![
                ReplicaRow { pod: pod("r1", true, ""), itself: Some(itself), generation: 1 },
                ReplicaRow { pod: pod("r2", false, "ErrImagePull"), itself: None, generation: 0 },
            ],
            observe: Vec::new(),
            proxies: Counts::default(),
            without_sidecar: vec!["shop/x".to_owned()],
            out_of_force: vec![Problem { reason: "bad".to_owned(), ..Problem::default() }],
            problems: vec![
                Problem { reason: "bad".to_owned(), ..Problem::default() },
                Problem { reason: "dangling".to_owned(), ..Problem::default() },
            ],
        };
        let lines = wrong(&status, &[], None);
        let begins = [
            "replica r2",
            "no replica",
            "out of force: bad",
            "pod shop/x",
            "there is no observer",
            "dangling",
        ];
        assert_eq!(lines.len(), begins.len(), "{lines:?}");
        for (line, begin) in lines.iter().zip(begins) {
            assert!(line.starts_with(begin), "{line}");
        }
    }
}
