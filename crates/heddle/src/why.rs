//! `heddle why`: which sidecars refused a request, by which rule and why, and what to do about it. Sidecars remember
//! their newest refusals; all of them are asked.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use heddle_proxy::recent::LEFT_MAX;
use heddle_runtime::clock;
use heddle_wire::local::{
    control_api::WorkloadView,
    proxy_config::left_refusals,
    sidecar_api::{Refusals, Refused},
};
use serde::Serialize;

use crate::{
    chosen::Chosen,
    cli::{Output, asking::WhyArgs},
    explain::{
        sources_of,
        text::{counted, with_source},
    },
    failure::Failure,
    naming::object,
    output, sidecars,
};

/// Refusals that are listed.
const LISTED: usize = 40;

/// A refusal, and whose sidecar it was.
#[derive(Debug, Clone, Serialize)]
struct Told {
    /// Whose sidecar refused.
    workload: String,
    #[serde(flatten)]
    refused: Refused,
    /// Where its rule comes from.
    source: Option<String>,
    /// What to do about it.
    advice: &'static str,
}

/// All that is known.
#[derive(Debug, Serialize)]
struct Answer {
    /// The oldest first where one id is asked for, else the newest.
    refusals: Vec<Told>,
    /// Sidecars that gave no answer, each with why.
    silent: Vec<String>,
    /// How many refusals were forgotten since, because newer ones took their place.
    forgotten: u64,
}

/// `heddle why`.
///
/// # Errors
/// A refusal where no sidecar knows the id: what may be the reason.
pub(crate) async fn why(args: WhyArgs) -> Result<(), Failure> {
    let mesh = Chosen::of(&args.mesh).await?;
    let all = mesh.workloads().await?;
    let mut live: Vec<&WorkloadView> = all.iter().filter(|view| view.sidecar).collect();
    let of = |namespace: &String| all.iter().any(|view| view.workload.namespace == *namespace);
    if let Some(namespace) = args.namespaces.namespace.as_ref().filter(|namespace| !of(namespace)) {
        return Err(Failure::refused(format!(
            "--namespace: no workload is in namespace `{namespace}`"
        )));
    }
    live.retain(|view| {
        args.namespaces.namespace.as_ref().is_none_or(|of| view.workload.namespace == *of)
    });
    let mut answer = gathered(&mesh, &live).await;
    if let (Chosen::Local(mesh), None) = (&mesh, &args.namespaces.namespace) {
        left_behind(&left_refusals(&mesh.paths.run_dir()))
            .into_iter()
            .for_each(|told| answer.take(told));
        answer.refusals.sort_by_key(|told| told.refused.at_ms);
    }
    match &args.id {
        Some(id) => answer.refusals.retain(|told| told.refused.id == *id),
        None => answer.refusals.reverse(),
    }
    if args.id.is_none() {
        answer.refusals.truncate(LISTED);
    }
    with_sources(&mesh, &mut answer).await?;
    match (&args.id, args.output) {
        (Some(id), _) if answer.refusals.is_empty() => Err(unknown(id, &answer, live.len())),
        (_, Output::Json) => output::json(&answer),
        (Some(_), Output::Text) => {
            output::line(one(&answer));
            Ok(())
        }
        (None, Output::Text) => {
            output::line(list(&answer));
            Ok(())
        }
    }
}

impl Answer {
    fn take(&mut self, told: Refusals) {
        self.forgotten += told.forgotten;
        self.refusals.extend(told.refusals.into_iter().map(|refused| Told {
            workload: told.workload.to_string(),
            advice: advice(&refused.code),
            refused,
            source: None,
        }));
    }
}

/// What sidecars that have ended left: a program that ran for a second may be asked about too.
fn left_behind(folder: &Path) -> Vec<Refusals> {
    let Ok(all) = fs::read_dir(folder) else { return Vec::new() };
    let of_sidecars = all.filter_map(|one| Some(one.ok()?.path()));
    let of_sidecars = of_sidecars.filter(|path| path.extension().is_some_and(|end| end == "json"));
    let read = |path: PathBuf| serde_json::from_slice(&fs::read(path).ok()?).ok();
    of_sidecars.take(LEFT_MAX).filter_map(read).collect()
}

/// What all of them remember, the oldest first.
async fn gathered(mesh: &Chosen, all: &[&WorkloadView]) -> Answer {
    let mut answer = Answer { refusals: Vec::new(), silent: Vec::new(), forgotten: 0 };
    let asked = sidecars::ask_all::<Refusals>(mesh, all, "/refusals").await;
    for (of, told) in all.iter().zip(asked) {
        match told {
            Ok(told) => answer.take(told),
            Err(failure) => answer.silent.push(format!("{}: {}", of.workload.id, failure.message)),
        }
    }
    answer.refusals.sort_by_key(|told| told.refused.at_ms);
    answer
}

async fn with_sources(mesh: &Chosen, answer: &mut Answer) -> Result<(), Failure> {
    let rules: Vec<&String> =
        answer.refusals.iter().filter_map(|told| told.refused.rule.as_ref()).collect();
    if rules.is_empty() {
        return Ok(());
    }
    let sources = sources_of(mesh, &rules).await?;
    for told in &mut answer.refusals {
        let rule = told.refused.rule.as_deref().map(object);
        told.source = rule.and_then(|rule| sources.get(rule).cloned());
    }
    Ok(())
}

fn unknown(id: &str, answer: &Answer, asked: usize) -> Failure {
    let mut reasons = vec![
        format!("a sidecar remembers its 256 newest refusals ({} older ones are forgotten)", answer.forgotten),
        "a sidecar that was started again has forgotten all".to_owned(),
        "the application, or something outside, answered: then the mesh passed that on (`x-heddle-refusal` is in an answer of the mesh's own)".to_owned(),
    ];
    if !answer.silent.is_empty() {
        reasons.push(format!("not all sidecars answered:\n    {}", answer.silent.join("\n    ")));
    }
    let reasons: String = reasons.iter().map(|reason| format!("\n  - {reason}")).collect();
    Failure::refused(format!(
        "none of {} knows a refused request with the id {id}; it may be that{reasons}\n`heddle why` without an id lists what was refused lately",
        counted(asked, "sidecar")
    ))
}

fn one(answer: &Answer) -> String {
    let mut lines = Vec::new();
    for (at, told) in answer.refusals.iter().enumerate() {
        let Told { workload, refused, source, advice } = told;
        if at > 0 {
            lines.push("then".to_owned());
        }
        let side = match refused.direction.as_str() {
            "inbound" => format!("the sidecar of {workload}, which was called"),
            _ => format!("the sidecar of {workload}, which called"),
        };
        lines.push(format!("{} ago: {side}, refused", ago(refused.at_ms)));
        lines.push(match refused.is_connection() {
            true => "  a connection, before any request was read".to_owned(),
            false => format!("  {} {} of {}", refused.method, refused.path, refused.authority),
        });
        if let Some(peer) = &refused.peer {
            lines.push(format!("  called by {peer}"));
        }
        let grpc = refused.grpc_status.map(|status| format!(", gRPC status {status}"));
        let grpc = grpc.unwrap_or_default();
        lines.push(match refused.is_connection() {
            true => format!("  with {} ({})", refused.flag, refused.code),
            false => format!("  with {} {} ({}{grpc})", refused.status, refused.flag, refused.code),
        });
        lines.push(format!("  because {}", refused.text));
        if let Some(rule) = &refused.rule {
            let sources = source.iter().map(|source| (object(rule).to_owned(), source.clone()));
            let sources: BTreeMap<_, _> = sources.collect();
            lines.push(format!("  rule {}", with_source(rule, &sources)));
        }
        if !advice.is_empty() {
            lines.push(format!("  what to do: {advice}"));
        }
    }
    lines.extend(answer.silent.iter().map(|silent| format!("note: {silent}")));
    lines.join("\n")
}

fn list(answer: &Answer) -> String {
    let row = |told: &Told| {
        let Refused { id, at_ms, direction, service, method, path, code, .. } = &told.refused;
        let known = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        vec![
            ago(*at_ms),
            told.workload.clone(),
            direction.clone(),
            known(service),
            known(format!("{method} {path}").trim()),
            known(&told.refused.status_text()),
            code.clone(),
            id.clone(),
        ]
    };
    let rows: Vec<_> = answer.refusals.iter().map(row).collect();
    let mut text = match rows.is_empty() {
        true => "nothing was refused lately".to_owned(),
        false => {
            let head = ["AGO", "SIDECAR OF", "SIDE", "CALLED", "REQUEST", "STATUS", "WHY", "ID"];
            output::table(&head, &rows)
        }
    };
    for silent in &answer.silent {
        text.push_str(&format!("\nnote: {silent}"));
    }
    text
}

/// How long it is since a moment, Unix time in milliseconds.
fn ago(at_ms: u64) -> String {
    let now = u64::try_from(clock::unix_now().as_millis()).unwrap_or(u64::MAX);
    output::ago(now.saturating_sub(at_ms) / 1_000)
}

/// What to do about a refusal, by its code.
fn advice(code: &str) -> &'static str {
    match code {
        "no-route" => {
            "`heddle explain` says why each rule does not match; give the VirtualService a last rule without `match`"
        }
        "dangling-target" => {
            "create what the rule names, or name what is there (`heddle get destinationrules -o yaml` shows the subsets)"
        }
        "no-endpoints" => {
            "`heddle describe` shows who is behind the service, and whether they are ready"
        }
        "not-resolved" => {
            "look whether the name resolves on the host, and correct the ServiceEntry"
        }
        "not-in-registry" => "name the host in a ServiceEntry, or allow it in the Sidecar",
        "not-visible" => "name the service in `egress.hosts` of the Sidecar",
        "all-ejected" => {
            "look at the errors of its endpoints: `heddle describe` shows them and when they are tried again"
        }
        "overflow" => "raise the limit in the DestinationRule, or ask less at one time",
        "port-not-declared" => "call a port that the service has, or declare this one",
        "unknown-address" => {
            "ask for the service by its name: the address was somebody's who is gone"
        }
        "connect-failed" | "application-unreachable" => {
            "look whether the application runs and listens on that port on all addresses"
        }
        "tls-failed" => {
            "compare `tls` of the DestinationRule with what the server offers: its certificate, name and issuer"
        }
        "upstream-reset" => {
            "look why the server closes connections: its log, its timeouts for idle connections"
        }
        "bad-response" => {
            "look what the server answers: it is no valid HTTP, or of another version than declared"
        }
        "fault-abort" | "fault-connection" => {
            "it is on purpose: `heddle fault` lists what is injected, `heddle fault --clear` takes it away"
        }
        "timeout" => {
            "look what takes so long (`heddle top`), or raise `timeout` in the VirtualService"
        }
        "discovery-timeout" => "look whether the control plane runs: `heddle status`",
        "outside-unreachable" => "look whether the host can reach it",
        "connection-limit" | "memory-limit" | "descriptor-limit" => {
            "look at how many connections there are, and raise the limit that is named"
        }
        "bad-request" | "bad-version" | "head-too-large" | "head-timeout" => {
            "look at what the client sends"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(at_ms: u64) -> Told {
        let refused = Refused {
            id: "abc".into(),
            at_ms,
            direction: "outbound".into(),
            code: "no-route".into(),
            flag: "NR".into(),
            status: 404,
            rule: Some("VirtualService/default/a#0".into()),
            text: "no HTTP rule matches".into(),
            ..Refused::default()
        };
        Told {
            workload: "a-1".into(),
            advice: advice("no-route"),
            refused,
            source: Some("a.yaml".into()),
        }
    }

    #[test]
    fn a_refusal_says_who_why_by_which_rule_and_what_to_do() {
        let answer = Answer { refusals: vec![told(0)], silent: Vec::new(), forgotten: 0 };
        let text = one(&answer);
        for part in [
            "sidecar of a-1",
            "404 NR (no-route)",
            "no HTTP rule matches",
            "VirtualService/default/a#0 (a.yaml)",
            "what to do",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(list(&answer).contains("no-route"), "{}", list(&answer));
    }

    #[test]
    fn an_id_that_nobody_knows_says_what_may_be_the_reason() {
        let answer =
            Answer { refusals: Vec::new(), silent: vec!["b-2: gone".into()], forgotten: 7 };
        let text = unknown("x", &answer, 3).message;
        for part in ["none of 3 sidecars", "7 older", "b-2: gone", "started again"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
