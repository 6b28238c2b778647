//! `heddle get`: rules, services and workloads as tables, as YAML, as JSON or as names; once, or with what changes.

use std::{collections::BTreeMap, time::Duration};

use heddle_model::yaml::Skipped;
use heddle_runtime::clock;
use heddle_wire::local::control_api::{Problem, ResourceView, ServiceView, Status};

use super::{
    kinds::Kind,
    table::{self, Item},
    wanted::{Wanted, wanted},
};
use crate::{
    chosen::Chosen,
    cli::{GetArgs, GetOutput},
    control_client::problem_line,
    failure::Failure,
    output,
    top::{self, ejected},
};

/// Time between two looks with `--watch`.
const PACE: Duration = Duration::from_secs(1);

/// What was found of one kind.
struct Found {
    kind: Kind,
    items: Vec<Item>,
    /// Names that were asked for and are not there.
    absent: Vec<String>,
    /// Below the table: notes, problems, who is out.
    below: Vec<String>,
}

/// `heddle get`.
///
/// # Errors
/// A refusal where a named object does not exist.
pub(crate) async fn get(args: GetArgs) -> Result<(), Failure> {
    let wanted = wanted(&args.what)?;
    if args.all_namespaces && wanted.iter().any(|one| !one.names.is_empty()) {
        return Err(Failure::usage("a name is of one namespace: use -n NS, or leave out the name"));
    }
    let mesh = Chosen::of(&args.mesh).await?;
    let found = find_all(&mesh, &args, &wanted).await?;
    let absent: Vec<&str> =
        found.iter().flat_map(|one| one.absent.iter().map(String::as_str)).collect();
    if absent.is_empty() || found.iter().any(|one| !one.items.is_empty()) {
        print(&found, args.output, args.watch)?;
    }
    if !absent.is_empty() {
        return Err(Failure::refused(absent.join("\n")));
    }
    if args.watch { watch(&mesh, &args, &wanted, found).await } else { Ok(()) }
}

async fn find_all(mesh: &Chosen, args: &GetArgs, wanted: &[Wanted]) -> Result<Vec<Found>, Failure> {
    let mut all = Vec::new();
    for one in wanted {
        all.push(match one.kind {
            Kind::All => rules(mesh, args, None, &one.names).await?,
            Kind::Rule(kind) => rules(mesh, args, Some(kind), &one.names).await?,
            Kind::Services => services(mesh, args, &one.names).await?,
            Kind::Workloads => workloads(mesh, args, &one.names).await?,
        });
    }
    Ok(all)
}

async fn rules(
    mesh: &Chosen,
    args: &GetArgs,
    kind: Option<&'static str>,
    names: &[String],
) -> Result<Found, Failure> {
    // Kinds are known words: they need no escaping.
    let filter = kind.map_or_else(String::new, |kind| format!("?kind={kind}"));
    let mut found: Vec<ResourceView> = mesh.get(&format!("/v1/resources{filter}")).await?;
    let default = if names.is_empty() { None } else { Some(mesh.namespace()) };
    let namespace = args.namespace.as_deref().or(default);
    found.retain(|view| {
        let key = &view.key;
        // A Namespace is named with itself.
        let is_itself = key.kind == "Namespace" && args.namespace.is_none();
        (is_itself || namespace.is_none_or(|wanted| wanted == key.namespace))
            && (names.is_empty() || names.contains(&key.name))
            && args.selector.as_ref().is_none_or(|selector| selector.fits(&table::labels(view)))
    });
    let missing = names.iter().filter(|name| !found.iter().any(|view| view.key.name == **name));
    let absent = missing.map(|name| {
        let namespace = namespace.unwrap_or_else(|| mesh.namespace());
        format!("no {} `{name}` in namespace `{namespace}`", kind.unwrap_or("rule"))
    });
    let of_cluster = matches!(mesh, Chosen::Cluster(_));
    let now = clock::unix_now().as_secs();
    let items = found.iter().map(|view| table::rule(view, now, of_cluster));
    let items = items.collect::<Result<Vec<_>, Failure>>()?;
    let is_table = matches!(args.output, GetOutput::Text | GetOutput::Wide);
    let below =
        if is_table && !args.watch { below(mesh, &found, names).await? } else { Vec::new() };
    Ok(Found { kind: kind.map_or(Kind::All, Kind::Rule), items, absent: absent.collect(), below })
}

/// The notes of rules, then what is written and yet no rule (a file that was never valid has none), then who is out.
async fn below(
    mesh: &Chosen,
    found: &[ResourceView],
    names: &[String],
) -> Result<Vec<String>, Failure> {
    // Where some objects are asked for, files that hold others do not matter.
    let status = match names {
        [] => mesh.get::<Status>("/v1/status").await?,
        _ => Status::default(),
    };
    let mut lines = Vec::new();
    for view in found {
        for note in &view.notes {
            // The same word as when it was applied.
            let word = if view.warnings.contains(note) { "warning" } else { "note" };
            lines.push(format!("{word}: {}: {}", view.key, problem_line(note)));
        }
    }
    let untold = |problem: &&Problem| !found.iter().any(|view| view.notes.contains(problem));
    let problems = status.out_of_force.iter().filter(untold);
    lines.extend(problems.map(|problem| format!("problem: {}", problem_line(problem))));
    if let Some(line) = Skipped(status.skipped).line() {
        lines.push(format!("note: in the rule files: {line}"));
    }
    if found.iter().any(|view| view.key.kind == "DestinationRule") {
        lines.extend(ejected(mesh, found).await);
    }
    Ok(lines)
}

/// Whom these rules have taken out, where the mesh has a dashboard that knows.
async fn ejected(mesh: &Chosen, found: &[ResourceView]) -> Vec<String> {
    let Ok(dashboard) = mesh.dashboard().await else { return Vec::new() };
    let Ok(mut ejections) = top::ask_ejected(&dashboard).await else { return Vec::new() };
    ejections.retain(|one| found.iter().any(|view| view.key.to_string() == one.rule));
    ejected::lines_now(&ejections)
}

async fn services(mesh: &Chosen, args: &GetArgs, names: &[String]) -> Result<Found, Failure> {
    let mut found: Vec<ServiceView> = mesh.get("/v1/services").await?;
    let no_labels = BTreeMap::new();
    found.retain(|view| {
        let name = &view.service.name;
        (names.is_empty() || names.contains(&name.name))
            && args.namespace.as_ref().is_none_or(|wanted| *wanted == name.namespace)
            && args.selector.as_ref().is_none_or(|selector| selector.fits(&no_labels))
    });
    let has = |name: &String| found.iter().any(|view| view.service.name.name == *name);
    let absent = absent(names, has, "service");
    let items = found.iter().map(table::service).collect::<Result<Vec<_>, Failure>>()?;
    Ok(Found { kind: Kind::Services, items, absent, below: Vec::new() })
}

async fn workloads(mesh: &Chosen, args: &GetArgs, names: &[String]) -> Result<Found, Failure> {
    let mut found = mesh.workloads().await?;
    found.retain(|view| {
        let workload = &view.workload;
        (names.is_empty() || names.contains(&workload.id.0))
            && args.namespace.as_ref().is_none_or(|wanted| *wanted == workload.namespace)
            && args.selector.as_ref().is_none_or(|selector| selector.fits(&workload.labels))
    });
    let has = |name: &String| found.iter().any(|view| view.workload.id.0 == *name);
    let absent = absent(names, has, "workload");
    let items = found.iter().map(table::workload).collect::<Result<Vec<_>, Failure>>()?;
    Ok(Found { kind: Kind::Workloads, items, absent, below: Vec::new() })
}

fn absent(names: &[String], has: impl Fn(&String) -> bool, what: &str) -> Vec<String> {
    names.iter().filter(|name| !has(name)).map(|name| format!("no {what} `{name}`")).collect()
}

fn print(found: &[Found], format: GetOutput, watched: bool) -> Result<(), Failure> {
    let items = || found.iter().flat_map(|one| &one.items);
    match format {
        GetOutput::Json if watched => items().try_for_each(one_line)?,
        GetOutput::Json => output::json(&items().map(|item| &item.json).collect::<Vec<_>>())?,
        GetOutput::Yaml => {
            let documents: Vec<&str> = items().map(|item| item.yaml.as_str()).collect();
            if !documents.is_empty() {
                output::line(documents.join("\n---\n"));
            }
        }
        GetOutput::Name => items().for_each(|item| output::line(&item.name)),
        GetOutput::Text | GetOutput::Wide => {
            let tables = found.iter().filter(|one| one.absent.is_empty() || !one.items.is_empty());
            let tables: Vec<String> = tables.map(|one| table_of(one, format)).collect();
            if !tables.is_empty() {
                output::line(tables.join("\n\n"));
            }
        }
    }
    Ok(())
}

fn one_line(item: &Item) -> Result<(), Failure> {
    let text = serde_json::to_string(&item.json)
        .map_err(|error| Failure::refused(format!("cannot write the answer as JSON: {error}")))?;
    output::line(text);
    Ok(())
}

/// Titles of the columns, the further ones of a wide table, and the word for what is shown.
fn columns(kind: Kind) -> (&'static [&'static str], &'static [&'static str], &'static str) {
    match kind {
        Kind::All | Kind::Rule(_) => (&table::RULES, &table::RULES_WIDE, "rules"),
        Kind::Services => (&table::SERVICES, &table::SERVICES_WIDE, "services"),
        Kind::Workloads => (&table::WORKLOADS, &table::WORKLOADS_WIDE, "workloads"),
    }
}

fn table_of(found: &Found, format: GetOutput) -> String {
    let (columns, wide, what) = columns(found.kind);
    let mut head = columns.to_vec();
    if format == GetOutput::Wide {
        head.extend(wide);
    }
    let rows: Vec<Vec<String>> =
        found.items.iter().map(|item| item.row[..head.len()].to_vec()).collect();
    let mut lines = vec![match rows.is_empty() {
        true => format!("no {what}"),
        false => output::table(&head, &rows),
    }];
    lines.extend(found.below.iter().cloned());
    lines.join("\n")
}

/// Prints what changes, as it is then; what is gone is named on standard error. Ends with an error only: Ctrl-C ends
/// it, or the mesh does.
async fn watch(
    mesh: &Chosen,
    args: &GetArgs,
    wanted: &[Wanted],
    mut before: Vec<Found>,
) -> Result<(), Failure> {
    loop {
        clock::sleep(PACE).await;
        let now = find_all(mesh, args, wanted).await?;
        for (before, now) in before.iter().zip(&now) {
            for gone in gone(&before.items, &now.items) {
                output::notice(format!("{gone} is gone"));
            }
            let items = changed(&before.items, &now.items);
            if !items.is_empty() {
                let changed =
                    Found { kind: now.kind, items, absent: Vec::new(), below: Vec::new() };
                print(&[changed], args.output, true)?;
            }
        }
        before = now;
    }
}

fn gone<'a>(before: &'a [Item], now: &[Item]) -> Vec<&'a str> {
    let is_there = |id: &str| now.iter().any(|item| item.id == id);
    before.iter().map(|item| item.id.as_str()).filter(|id| !is_there(id)).collect()
}

/// Those that are new or say something else; that time passes changes nothing.
fn changed(before: &[Item], now: &[Item]) -> Vec<Item> {
    let same =
        |item: &&Item| before.iter().any(|known| known.id == item.id && known.json == item.json);
    now.iter().filter(|item| !same(item)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn item(id: &str, age: &str, says: u32) -> Item {
        let mut row = vec![String::new(); 8];
        row[5] = age.to_owned();
        Item { name: id.into(), id: id.into(), row, json: json!(says), yaml: String::new() }
    }

    #[test]
    fn only_what_says_something_else_is_shown_again() {
        let before = [item("a", "1s", 1), item("b", "1s", 1), item("c", "1s", 1)];
        let now = [item("a", "2s", 1), item("b", "2s", 2), item("d", "0s", 1)];
        let shown: Vec<String> = changed(&before, &now).into_iter().map(|one| one.id).collect();
        assert_eq!(shown, ["b", "d"]);
        assert_eq!(gone(&before, &now), ["c"]);
    }

    #[test]
    fn a_wide_table_has_more_columns_and_an_empty_one_says_so() {
        let row =
            ["Kind", "ns", "n", "h", "s", "1s", "file.yaml", "a=b"].map(str::to_owned).to_vec();
        let one = Item { row, ..item("a", "", 1) };
        let mut found = Found {
            kind: Kind::All,
            items: vec![one],
            absent: Vec::new(),
            below: vec!["note: x".into()],
        };
        let (narrow, wide) = (table_of(&found, GetOutput::Text), table_of(&found, GetOutput::Wide));
        assert!(!narrow.contains("file.yaml") && narrow.ends_with("note: x"), "{narrow}");
        assert!(wide.contains("SOURCE") && wide.contains("file.yaml"), "{wide}");
        found.items.clear();
        assert_eq!(table_of(&found, GetOutput::Text), "no rules\nnote: x");
    }
}
