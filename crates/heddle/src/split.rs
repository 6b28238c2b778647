//! `heddle split`: the calls of a service divided among its versions, for a hand at the keyboard. It makes a
//! VirtualService, and a DestinationRule where there is none, and touches no rule that somebody else has made.

use std::collections::BTreeSet;

use heddle_model::{
    ResourceKey, ServiceName,
    resource::{DestinationRule, Spec},
    yaml,
};
use heddle_wire::local::control_api::{ResourceView, WorkloadView};

use crate::{
    cli::hand::SplitArgs,
    failure::Failure,
    rules::made::{Maker, quoted, unknown},
};

/// What names of rules that this command makes begin with.
const PREFIX: &str = "heddle-split-";

/// `heddle split`.
///
/// # Errors
/// A refusal that says what would be right, or what to edit.
pub(crate) async fn split(args: SplitArgs) -> Result<(), Failure> {
    let maker = Maker::new(&args.put).await?;
    if args.clear {
        return clear(&args, &maker).await;
    }
    let sum: u32 = args.shares.iter().map(|(_, percent)| percent).sum();
    if sum != 100 {
        let given: Vec<_> = args.shares.iter().map(|(_, percent)| percent.to_string()).collect();
        return Err(Failure::usage(format!(
            "the shares are {} and come to {sum}: they must come to 100",
            given.join(" + ")
        )));
    }
    let mut seen = BTreeSet::new();
    if let Some((twice, _)) = args.shares.iter().find(|(version, _)| !seen.insert(version)) {
        return Err(Failure::usage(format!("the version `{twice}` is given twice")));
    }
    let service = maker.service(&args.service).await?;
    versions_exist(&args, &service, &maker).await?;
    let routes = maker.rules("VirtualService").await?;
    if let Some(holder) = routes.iter().find(|view| holds(view, &service)) {
        return Err(Failure::refused(held(holder, &service)));
    }
    let rules = maker.rules("DestinationRule").await?;
    let mut text = String::new();
    match rules.iter().find_map(|view| Some((view, subsets(view, &service)?))) {
        Some((view, rule)) => every_subset_is_there(&args, view, &rule)?,
        None => text = destination_rule(&args, &service),
    }
    text.push_str(&virtual_service(&args, &service));
    maker.apply(&text, "heddle split").await
}

fn name(service: &str) -> String {
    format!("{PREFIX}{service}")
}

async fn versions_exist(
    args: &SplitArgs,
    service: &ServiceName,
    maker: &Maker<'_>,
) -> Result<(), Failure> {
    let all: Vec<WorkloadView> = maker.mesh.workloads().await?;
    let behind = all.iter().filter(|view| view.workload.services.contains(service));
    let versions: BTreeSet<&str> = behind.map(|view| view.workload.version.as_str()).collect();
    let versions: Vec<&str> = versions.into_iter().filter(|version| !version.is_empty()).collect();
    let absent = args.shares.iter().find(|(version, _)| !versions.contains(&version.as_str()));
    match absent {
        None => Ok(()),
        Some((version, _)) => {
            let what = format!("version `{version}` of `{}`", service.name);
            Err(Failure::refused(unknown(&what, version, &versions)))
        }
    }
}

fn parsed(view: &ResourceView) -> Option<Spec> {
    let parsed = yaml::parse("-", &view.text, &view.key.namespace).ok()?;
    parsed.resources.into_iter().find(|one| one.key == view.key).map(|one| one.spec)
}

/// Does somebody else's rule hold the routes of the service?
fn holds(view: &ResourceView, service: &ServiceName) -> bool {
    let own = view.key.namespace == service.namespace && view.key.name == name(&service.name);
    let Some(Spec::VirtualService(rule)) = parsed(view).filter(|_| !own) else { return false };
    let names = |host: &String| is_named(host, &view.key.namespace, service);
    !rule.gateways_only && rule.hosts.iter().any(names)
}

fn is_named(host: &str, namespace: &str, service: &ServiceName) -> bool {
    match host.strip_prefix('*') {
        Some(suffix) => service.fqdn().ends_with(suffix),
        None => ServiceName::resolve(host, namespace).is_ok_and(|named| named == *service),
    }
}

fn held(view: &ResourceView, service: &ServiceName) -> String {
    let place = match view.source.as_str() {
        "apply" => format!(
            "edit the weights of its `spec.http[].route` and apply it again (`heddle get vs {} -n {} -o yaml` prints it)",
            view.key.name, view.key.namespace
        ),
        file => format!("edit the weights of its `spec.http[].route` in {file}"),
    };
    format!("{} holds the routes of `{}`: {place}, or take it away", view.key, service.name)
}

/// The subsets of the service, where this rule defines any.
fn subsets(view: &ResourceView, service: &ServiceName) -> Option<DestinationRule> {
    let own = view.key.namespace == service.namespace && view.key.name == name(&service.name);
    let Spec::DestinationRule(rule) = parsed(view).filter(|_| !own)? else { return None };
    is_named(&rule.host, &view.key.namespace, service).then_some(rule)
}

fn every_subset_is_there(
    args: &SplitArgs,
    view: &ResourceView,
    rule: &DestinationRule,
) -> Result<(), Failure> {
    let absent = args.shares.iter().find(|(version, _)| {
        let defines = |subset: &heddle_model::resource::SubsetRule| subset.name == *version;
        !rule.subsets.iter().any(defines)
    });
    let Some((version, _)) = absent else { return Ok(()) };
    Err(Failure::refused(format!(
        "{} ({}) defines the subsets of `{}`, and none called `{version}`: add it there, `- name: {version}` with `labels: {{version: {version}}}`",
        view.key, view.source, args.service
    )))
}

fn destination_rule(args: &SplitArgs, service: &ServiceName) -> String {
    let ServiceName { name: host, namespace } = service;
    let own = name(host);
    let subsets = args.shares.iter().map(|(version, _)| {
        let version = quoted(version);
        format!("  - name: {version}\n    labels:\n      version: {version}\n")
    });
    let subsets: String = subsets.collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: {own}\n  namespace: {namespace}\nspec:\n  host: {host}\n  subsets:\n{subsets}---\n"
    )
}

fn virtual_service(args: &SplitArgs, service: &ServiceName) -> String {
    let ServiceName { name: host, namespace } = service;
    let own = name(host);
    let routes = args.shares.iter().map(|(version, percent)| {
        let version = quoted(version);
        format!("    - destination:\n        host: {host}\n        subset: {version}\n      weight: {percent}\n")
    });
    let routes: String = routes.collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: {own}\n  namespace: {namespace}\nspec:\n  hosts:\n  - {host}\n  http:\n  - route:\n{routes}"
    )
}

async fn clear(args: &SplitArgs, maker: &Maker<'_>) -> Result<(), Failure> {
    let (routes, rules) =
        (maker.rules("VirtualService").await?, maker.rules("DestinationRule").await?);
    let own =
        |key: &ResourceKey| key.name == name(&args.service) && key.namespace == maker.namespace;
    let keys = routes.iter().chain(&rules).map(|view| &view.key).filter(|key| own(key));
    let keys: Vec<ResourceKey> = keys.cloned().collect();
    if keys.is_empty() {
        return Err(Failure::refused(format!(
            "`heddle split` has divided nothing of `{}`: there is nothing to clear",
            args.service
        )));
    }
    maker.delete(keys).await
}
