//! `cargo xtask bench rules`: what the order of rules costs. A sidecar whose service has 1,000 rules of
//! which the request matches the last, one with that last rule alone, and one with 50 regular expressions
//! before it, in turn within each round.

use std::fmt::Write as _;

use super::{namespaces::Pair, options::Options, rows::Rows};

/// For `--help`.
pub(super) const ABOUT: &str = "\
CPU time per request of one sidecar on one core, outbound, saturated, whose request matches the last of
1,000 rules (70 % prefixes, 20 % exact paths, 10 % headers), against that rule alone (at most 1.05) and
against 50 regular expressions before it (told without a bound). Needs root.";

/// Rules before the last.
const RULES: usize = 999;
/// Regular expressions before the last.
const REGEXES: usize = 50;
/// At most this ratio.
const LIMIT: f64 = 1.05;

/// What its table is headed by.
const TITLE: &str = "HTTP/1.1, outbound, saturated; the request matches the last rule";

/// Runs the bench.
pub(super) fn run(options: &Options) -> Result<(), String> {
    let mut rows = Rows::new(("rules", TITLE, "the rule alone"), options)?;
    let pair = Pair::make()?;
    rows.add("alone", &rules(&[]), None)?;
    rows.add("1000-rules", &rules(&mixed()), Some(LIMIT))?;
    rows.add("50-regexes", &rules(&regexes()), None)?;
    rows.run(&pair, options)
}

/// A condition that no request of the bench meets.
fn mixed() -> Vec<String> {
    let condition = |n: usize| match n % 10 {
        0..7 => format!("uri: {{ prefix: /service-{n}/ }}"),
        7 | 8 => format!("uri: {{ exact: /service-{n}/orders }}"),
        _ => format!("headers: {{ x-tenant: {{ exact: tenant-{n} }} }}"),
    };
    (0..RULES).map(condition).collect()
}

fn regexes() -> Vec<String> {
    (0..REGEXES).map(|n| format!("uri: {{ regex: \"/service-{n}/[a-z]+/[0-9]+\" }}")).collect()
}

/// A VirtualService with a rule per condition, and the one that the request matches behind them.
fn rules(conditions: &[String]) -> String {
    let mut text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
                    metadata: { name: echo }\nspec:\n  hosts: [echo]\n  http:\n"
        .to_owned();
    let last = "headers: { x-bench: { exact: \"yes\" } }".to_owned();
    for condition in conditions.iter().chain([&last]) {
        let _ = write!(
            text,
            "    - match: [{{ {condition} }}]\n      route: [{{ destination: {{ host: echo }} }}]\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_of_ten_rules_look_at_prefixes_two_at_paths_and_one_at_a_header() {
        let rules = rules(&mixed());
        let count = |what: &str| rules.matches(what).count();
        assert_eq!((count("prefix:"), count("uri: { exact:"), count("x-tenant")), (700, 200, 99));
        assert_eq!(count("- match:"), 1_000);
    }
}
