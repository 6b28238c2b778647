//! `heddle fault`: a fault for a hand at the keyboard, what is in force, and the end of it. It makes rules of
//! the kind `Fault`, which the control plane checks like any other.

use std::{fmt::Write as _, time::Duration};

use heddle_model::{
    ResourceKey, ServiceName,
    discovery::{Fault, Injection, TcpFault},
    resource::{FaultRule, FaultSide, FaultTarget, Resource, Spec},
    timestamp,
};
use heddle_runtime::clock;
use heddle_wire::local::control_api::{ResourceView, WorkloadView};
use serde::Serialize;

use crate::{
    cli::{
        Output,
        hand::{FaultArgs, SideFlag},
        values::AbortFlag,
    },
    failure::Failure,
    output,
    rules::made::{Maker, quoted, unknown},
};

/// What names of faults that this command makes begin with.
const PREFIX: &str = "heddle-fault-";

/// `heddle fault`.
///
/// # Errors
/// A refusal that says what would be right.
pub(crate) async fn fault(args: FaultArgs) -> Result<(), Failure> {
    let does = args.delay.is_some() || args.abort.is_some() || args.tcp.is_some();
    let maker = Maker::new(&args.put).await?;
    match (&args.service, does) {
        _ if args.clear => clear(&args, &maker).await,
        (Some(service), true) => {
            let service = maker.service(service).await?;
            let text = document(&args, &service, &maker).await?;
            maker.apply(&text, "heddle fault").await
        }
        (None, true) => Err(Failure::usage(
            "say whose calls: heddle fault SERVICE --delay 5s; `heddle get services` lists them",
        )),
        (service, false) => list(&args, service.as_deref(), &maker).await,
    }
}

/// The rule.
async fn document(
    args: &FaultArgs,
    service: &ServiceName,
    maker: &Maker<'_>,
) -> Result<String, Failure> {
    if args.tcp.is_some()
        && (args.path.is_some() || args.method.is_some() || !args.header.is_empty())
    {
        return Err(Failure::usage(
            "a connection has no path, method or header: --tcp goes with --from only",
        ));
    }
    let server = args.side == SideFlag::Server;
    if server && args.from.is_some() {
        return Err(Failure::usage(
            "who calls is known to the caller's sidecar: leave out --from, or --side server",
        ));
    }
    let (what, lines) = does(args);
    let ServiceName { name, namespace } = service;
    let mut text = format!(
        "apiVersion: heddle.dev/v1alpha1\nkind: Fault\nmetadata:\n  name: {PREFIX}{name}-{what}\n  namespace: {namespace}\nspec:\n  targetRef:\n    kind: Service\n    name: {name}\n",
    );
    if server {
        text.push_str("  side: server\n");
    }
    text.push_str(&conditions(args, maker).await?);
    // What a share is exactly, its own text says best.
    let _ = writeln!(text, "  percentage: {}", args.percent.0);
    text.push_str(&lines);
    if let Some(lasts) = args.lasts {
        let ends = clock::unix_now().saturating_add(lasts).as_secs();
        let _ = writeln!(text, "  expires: {}", quoted(&timestamp::format(ends)));
    }
    Ok(text)
}

/// What it does: a word for its name, and its lines.
fn does(args: &FaultArgs) -> (&'static str, String) {
    match (&args.delay, &args.abort, &args.tcp) {
        (Some(delay), ..) => ("delay", format!("  delay: {}\n", written(*delay))),
        (_, Some(AbortFlag::Http(status)), _) => {
            ("abort", format!("  abort:\n    httpStatus: {status}\n"))
        }
        (_, Some(AbortFlag::Grpc(status)), _) => {
            ("abort", format!("  abort:\n    grpcStatus: {status}\n"))
        }
        (.., Some(tcp)) => ("tcp", format!("  tcp:\n    {}: {}\n", tcp.field, tcp.value)),
        (None, None, None) => ("", String::new()),
    }
}

/// A duration as rules have it.
fn written(duration: Duration) -> String {
    match duration.as_millis() {
        millis if millis > 0 && millis % 1_000 == 0 => format!("{}s", millis / 1_000),
        millis => format!("{}ms", millis.max(1)),
    }
}

/// The lines of its `match`; none where every call is meant.
async fn conditions(args: &FaultArgs, maker: &Maker<'_>) -> Result<String, Failure> {
    let mut lines: Vec<String> = Vec::new();
    if let Some(path) = &args.path {
        lines.push(format!("uri:\n      prefix: {}", quoted(path)));
    }
    if let Some(method) = &args.method {
        lines.push(format!("method:\n      exact: {}", quoted(method)));
    }
    let headers = args.header.iter().map(|header| {
        format!("\n      {}:\n        exact: {}", quoted(&header.name), quoted(&header.value))
    });
    let headers: String = headers.collect();
    if !headers.is_empty() {
        lines.push(format!("headers:{headers}"));
    }
    if let Some(from) = &args.from {
        let labels = labels_of(from, maker).await?;
        lines.push(format!("sourceLabels:{labels}"));
    }
    Ok(match lines.is_empty() {
        true => String::new(),
        false => format!("  match:\n  - {}\n", lines.join("\n    ")),
    })
}

/// By which labels callers are told: those of a service, or of one workload.
async fn labels_of(from: &str, maker: &Maker<'_>) -> Result<String, Failure> {
    let all: Vec<WorkloadView> = maker.mesh.workloads().await?;
    let app = |view: &WorkloadView| view.workload.labels.get("app").is_some_and(|app| app == from);
    if all.iter().any(app) {
        return Ok(format!("\n      app: {}", quoted(from)));
    }
    if let Some(one) = all.iter().find(|view| view.workload.id.0 == from) {
        let labels = one.workload.labels.iter();
        let lines =
            labels.map(|(key, value)| format!("\n      {}: {}", quoted(key), quoted(value)));
        return Ok(lines.collect());
    }
    let apps = all.iter().filter_map(|view| view.workload.labels.get("app"));
    let ids = all.iter().map(|view| &view.workload.id.0);
    let mut known: Vec<&str> = apps.chain(ids).map(String::as_str).collect();
    known.sort_unstable();
    known.dedup();
    Err(Failure::refused(unknown(&format!("service or workload `{from}`"), from, &known)))
}

/// A fault that is in force, or would be.
#[derive(Debug, Serialize)]
struct Row {
    rule: String,
    target: String,
    side: &'static str,
    does: String,
    percent: f64,
    expires: Option<String>,
    expired: bool,
    state: String,
    source: String,
}

/// The rows of one rule.
fn rows(view: &ResourceView, now: u64) -> Vec<Row> {
    let parsed = heddle_model::yaml::parse("-", &view.text, &view.key.namespace);
    let found = parsed.map(|parsed| parsed.resources).unwrap_or_default();
    let Some(resource) = found.into_iter().find(|one| one.key == view.key) else {
        return Vec::new();
    };
    let expires = resource.faults_expire().map(|(at, _)| at);
    let row = |target: String, side, does, percent| Row {
        rule: view.key.to_string(),
        target,
        side,
        does,
        percent,
        expires: expires.map(timestamp::format),
        expired: expires.is_some_and(|at| at <= now),
        state: view.state.clone(),
        source: view.source.clone(),
    };
    match &resource.spec {
        Spec::Fault(rule) => {
            let side = if rule.side == FaultSide::Server { "server" } else { "client" };
            vec![row(target(rule, &resource), side, what(rule.does), rule.percent)]
        }
        Spec::VirtualService(rule) => {
            let faults = rule.http.iter().filter_map(|route| route.fault.as_ref());
            let all = faults.flat_map(parts);
            all.map(|(does, percent)| row(rule.hosts.join(","), "client", does, percent)).collect()
        }
        _ => Vec::new(),
    }
}

fn parts(fault: &Fault) -> Vec<(String, f64)> {
    let delay = fault.delay.iter().map(|one| (format!("delay {:?}", one.duration), one.percent));
    let abort = fault.abort.iter().map(|one| (format!("abort {}", one.status), one.percent));
    delay.chain(abort).collect()
}

fn target(rule: &FaultRule, resource: &Resource) -> String {
    match &rule.target {
        FaultTarget::Service { name, namespace } => {
            format!("{name}.{}", namespace.as_ref().unwrap_or(&resource.key.namespace))
        }
        FaultTarget::Workloads(labels) => {
            labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
        }
    }
}

fn what(does: Injection) -> String {
    match does {
        Injection::Delay(delay) => format!("delay {delay:?}"),
        Injection::Abort(with) => match with.grpc {
            Some(code) => {
                let name = heddle_model::discovery::GRPC_STATUSES.get(usize::from(code));
                format!("abort {}", name.copied().unwrap_or("?"))
            }
            None => format!("abort {}", with.status),
        },
        Injection::Tcp(
            fault @ (TcpFault::ResetAfterBytes(bytes) | TcpFault::BytesPerSecond(bytes)),
        ) => format!("{} {bytes}", fault.as_str()),
        Injection::Tcp(fault) => fault.as_str().to_owned(),
    }
}

async fn list(args: &FaultArgs, service: Option<&str>, maker: &Maker<'_>) -> Result<(), Failure> {
    if let Some(service) = service {
        maker.service(service).await?;
    }
    let (own, services) = (maker.rules("Fault").await?, maker.rules("VirtualService").await?);
    let now = clock::unix_now().as_secs();
    let mut all: Vec<Row> = own.iter().chain(&services).flat_map(|view| rows(view, now)).collect();
    if let Some(service) = service {
        all.retain(|row| row.target.split([',', '.']).any(|part| part == service));
    }
    if args.put.output == Output::Json {
        return output::json(&all);
    }
    if all.is_empty() {
        output::line("no faults");
        return Ok(());
    }
    let ends = |row: &Row| match (&row.expires, row.expired) {
        (None, _) => "-".to_owned(),
        (Some(at), false) => at.clone(),
        (Some(at), true) => format!("{at} (over)"),
    };
    let cells: Vec<Vec<String>> = all
        .iter()
        .map(|row| {
            let percent = format!("{} %", row.percent);
            let side = row.side.to_owned();
            let (target, does) = (row.target.clone(), row.does.clone());
            vec![row.rule.clone(), target, side, does, percent, ends(row), row.source.clone()]
        })
        .collect();
    let head = ["RULE", "OF", "SIDE", "FAULT", "SHARE", "UNTIL", "SOURCE"];
    output::line(output::table(&head, &cells));
    Ok(())
}

async fn clear(args: &FaultArgs, maker: &Maker<'_>) -> Result<(), Failure> {
    let all = maker.rules("Fault").await?;
    let here = all.iter().filter(|view| view.key.namespace == maker.namespace);
    let by_hand = |key: &ResourceKey| match &args.service {
        None => key.name.starts_with(PREFIX),
        Some(service) => ["delay", "abort", "tcp"]
            .iter()
            .any(|what| key.name == format!("{PREFIX}{service}-{what}")),
    };
    let (mine, others): (Vec<_>, Vec<_>) = here.partition(|view| by_hand(&view.key));
    if !mine.is_empty() {
        return maker.delete(mine.into_iter().map(|view| view.key.clone()).collect()).await;
    }
    let of = args.service.as_ref().map(|service| format!(" of `{service}`")).unwrap_or_default();
    let named = others.iter().map(|view| format!("{} ({})", view.key, view.source));
    let named: Vec<_> = named.collect();
    Err(Failure::refused(match named.is_empty() {
        true => format!("`heddle fault` has made no fault{of}: there is nothing to clear"),
        false => format!(
            "`heddle fault` has made no fault{of}; there are {}: delete those with `heddle delete`, or in their file",
            named.join(", ")
        ),
    }))
}
