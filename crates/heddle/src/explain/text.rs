//! An explanation as people read it: the call, the rule, what is done to it, and where it goes.

use std::collections::BTreeMap;

use heddle_runtime::clock;
use heddle_wire::local::sidecar_api::{
    Explanation, InjectedFault, ToldEndpoint, ToldRefusal, ToldTarget, TriedRule,
};

use crate::{naming::object, output, top};

/// Rules that are told with why they do not decide.
const TRIED: usize = 8;

/// The whole.
pub(super) fn of(told: &Explanation, sources: &BTreeMap<String, String>) -> String {
    let mut lines = head(told);
    lines.push(String::new());
    lines.extend(rules(told, sources));
    for fault in &told.faults {
        lines.push(format!("fault    {}", fault_line(fault)));
    }
    lines.extend(told.changes.iter().map(|change| format!("changes  {change}")));
    lines.extend(told.answer_changes.iter().map(|change| format!("answer   {change}")));
    lines.extend(told.timeout_ms.map(|limit| format!("timeout  {limit} ms for all of it")));
    lines.extend(told.retries.iter().map(|retries| format!("retries  {retries}")));
    for mirror in &told.mirrors {
        let endpoints = counted(mirror.endpoints, "endpoint");
        lines.push(format!("copies   {} % to {} ({endpoints})", mirror.percent, mirror.to));
    }
    lines.extend(outcome(told, sources));
    for target in &told.targets {
        // What is said of the whole is not said again of its shares.
        let own = target.refusal.as_ref().filter(|own| told.refusal.as_ref() != Some(*own));
        lines.extend(self::target(target, own, sources));
    }
    lines.extend(told.notes.iter().map(|note| format!("note: {note}")));
    if !told.connected {
        lines.push(
            "note: this sidecar does not hear of the control plane now: its rules may be old"
                .to_owned(),
        );
    }
    lines.join("\n")
}

fn head(told: &Explanation) -> Vec<String> {
    let callee = &told.callee;
    let protocol = if callee.protocol.is_empty() { "undeclared" } else { &callee.protocol };
    let address = callee.address.as_ref().map(|ip| format!(" at {ip}")).unwrap_or_default();
    let mut lines = vec![format!(
        "{} calls {}:{} ({}, {protocol}{address}); rules of generation {}",
        told.workload, callee.name, callee.port, callee.kind, told.generation
    )];
    if let Some(request) = &told.request {
        lines.push(format!(
            "  {} {}, authority {}",
            request.method, request.path, request.authority
        ));
        lines.extend(request.headers.iter().map(|(name, value)| format!("  {name}: {value}")));
    } else if !told.taken_as.is_empty() {
        lines.push(format!("  a connection, taken for {}", told.taken_as));
    }
    lines
}

fn rules(told: &Explanation, sources: &BTreeMap<String, String>) -> Vec<String> {
    let mut lines: Vec<String> = told.tried.iter().take(TRIED).map(tried).collect();
    let more = told.untold + told.tried.len().saturating_sub(TRIED);
    if more > 0 {
        let verb = if more == 1 { "does" } else { "do" };
        let rules = counted(more, "more rule");
        lines.push(format!("not      {rules} before it {verb} not match either"));
    }
    match &told.rule {
        Some(rule) => {
            lines.push(format!("rule     {}", with_source(&rule.rule, sources)));
            let conditions = rule.matches.iter().map(|all| match all.is_empty() {
                true => "all calls".to_owned(),
                false => all.join(", and "),
            });
            let conditions: Vec<_> = conditions.collect();
            lines.push(match conditions.is_empty() {
                true => "         which is for all calls".to_owned(),
                false => {
                    format!("         which is for calls where {}", conditions.join("; or where "))
                }
            });
        }
        None if told.tried.is_empty() => {
            // A fault is told below, and is a rule too.
            let why = if told.faults.is_empty() {
                "no rule holds for it"
            } else {
                "no rule says where it goes"
            };
            lines.push(format!("rule     none: {why}"));
        }
        None => lines.push("rule     none of them matches".to_owned()),
    }
    lines
}

fn tried(rule: &TriedRule) -> String {
    format!("not      {}: {}", rule.rule, rule.because.join("; and "))
}

pub(crate) fn fault_line(fault: &InjectedFault) -> String {
    let until = fault.until.map(|until| {
        let left = until.saturating_sub(clock::unix_now().as_secs());
        format!(", for another {left} s")
    });
    format!(
        "{} in {} % of the calls, by {}{}",
        fault.what,
        fault.percent,
        fault.rule,
        until.unwrap_or_default()
    )
}

fn outcome(told: &Explanation, sources: &BTreeMap<String, String>) -> Vec<String> {
    if let Some(answer) = &told.answer {
        let fields = answer.headers.iter().map(|(name, value)| format!(", {name}: {value}"));
        let fields: String = fields.collect();
        let body = answer.body_bytes;
        return vec![format!(
            "answered by the rule itself with {}{fields} ({body} bytes)",
            answer.status
        )];
    }
    match &told.refusal {
        Some(refusal) => vec![refused(refusal, sources)],
        None if told.targets.is_empty() => Vec::new(),
        None if told.faults.iter().any(aborts_all) => {
            vec!["what is not aborted would go to".to_owned()]
        }
        None => vec!["goes to".to_owned()],
    }
}

fn aborts_all(fault: &InjectedFault) -> bool {
    fault.percent >= 100.0 && fault.what.starts_with("an abort")
}

fn refused(refusal: &ToldRefusal, sources: &BTreeMap<String, String>) -> String {
    let rule = refusal.rule.as_ref().map(|rule| format!(", by {}", with_source(rule, sources)));
    format!(
        "REFUSED  {} {} ({}{}): {}",
        refusal.status,
        refusal.flag,
        refusal.code,
        rule.unwrap_or_default(),
        refusal.text
    )
}

fn target(
    target: &ToldTarget,
    refusal: Option<&ToldRefusal>,
    sources: &BTreeMap<String, String>,
) -> Vec<String> {
    let labels = match target.labels.is_empty() {
        true => String::new(),
        false => format!(" ({})", target.labels.join(", ")),
    };
    let mut lines = vec![format!("{:>6.4} % {}{labels}", share(target.share), target.name)];
    let mut more = |line: String| lines.push(format!("         {line}"));
    if let Some(refusal) = refusal {
        more(refused(refusal, sources));
    }
    if let Some(policy) = &target.policy {
        more(format!("policy  {}", with_source(policy, sources)));
    }
    if target.endpoints.len() > 1 {
        more(format!("chosen  {}", target.balancing));
    }
    target.tls.iter().for_each(|tls| more(format!("tls     {tls}")));
    target.ejection.iter().for_each(|when| more(format!("ejects  {when}")));
    for limit in &target.limits {
        let now = limit.now.map(|now| format!(", {now} now")).unwrap_or_default();
        more(format!("limit   {} {}{now}", limit.field, limit.most));
    }
    target.changes.iter().for_each(|change| more(format!("changes {change}")));
    let rows: Vec<Vec<String>> = target.endpoints.iter().map(endpoint).collect();
    if !rows.is_empty() {
        let table = output::table(&["ENDPOINT", "VERSION", "ADDRESS", "LOCALITY", "STATE"], &rows);
        table.lines().for_each(|line| more(line.to_owned()));
    }
    if target.untold > 0 {
        more(format!("and {}", counted(target.untold, "more endpoint")));
    }
    lines
}

/// A share without digits that tell nothing.
fn share(share: f64) -> String {
    let text = format!("{share:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn endpoint(one: &ToldEndpoint) -> Vec<String> {
    let state = match &one.ejected {
        None => one.state.clone(),
        Some(out) => {
            let now = clock::unix_now().as_secs();
            format!(
                "{} for {} s: {}, tried again in {} s",
                one.state,
                now.saturating_sub(out.since),
                top::ejected::reason(&out.reason),
                out.until.saturating_sub(now)
            )
        }
    };
    let known = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    vec![
        one.workload.clone(),
        known(&one.version),
        one.address.clone(),
        known(&one.locality),
        state,
    ]
}

/// A rule with where it comes from.
pub(crate) fn with_source(rule: &str, sources: &BTreeMap<String, String>) -> String {
    match sources.get(object(rule)).map(String::as_str) {
        None | Some("") => rule.to_owned(),
        Some("apply") => format!("{rule} (applied)"),
        Some(source) => format!("{rule} ({source})"),
    }
}

pub(crate) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use heddle_model::WorkloadId;

    use super::*;

    fn sample() -> Explanation {
        let target = ToldTarget { name: "web".to_owned(), share: 100.0, ..ToldTarget::default() };
        let by = Explanation::by(WorkloadId("me-3fa09c".to_owned()), 1);
        Explanation { targets: vec![target], ..by }
    }

    fn fault(what: &str, percent: f64) -> InjectedFault {
        InjectedFault {
            rule: "Fault/default/f#aborts[0]".to_owned(),
            what: what.to_owned(),
            percent,
            until: None,
        }
    }

    #[test]
    fn a_fault_is_a_rule_though_it_says_not_where_a_call_goes() {
        let text = |faults| of(&Explanation { faults, ..sample() }, &BTreeMap::new());
        let none = text(Vec::new());
        assert!(none.contains("none: no rule holds for it\ngoes to\n"), "{none}");
        let some = text(vec![fault("an abort with 503", 80.0), fault("a delay of 1s", 100.0)]);
        assert!(some.contains("none: no rule says where it goes\n"), "{some}");
        assert!(some.contains("\ngoes to\n"), "{some}");
        let all = text(vec![fault("an abort with 503", 100.0)]);
        assert!(all.contains("\nwhat is not aborted would go to\n"), "{all}");
    }

    #[test]
    fn rules_that_are_not_told_are_counted() {
        let text = |untold| of(&Explanation { untold, ..sample() }, &BTreeMap::new());
        assert!(text(1).contains("1 more rule before it does not match either"), "{}", text(1));
        assert!(text(2).contains("2 more rules before it do not match either"), "{}", text(2));
    }
}
