//! Which rule a connection of TLS meets by the name that its client asks for: the one with the closest
//! name, and of equals the first. So Envoy decides, whatever the order of the rules.

/// How closely one of `patterns` names `name`; `None` if none does. Nothing is closer than the name itself.
fn closeness(patterns: &[String], name: Option<&str>) -> Option<usize> {
    let close = |pattern: &String| match (pattern.strip_prefix('*'), name) {
        (Some(""), _) => Some(0),
        (Some(suffix), Some(name)) => {
            (name.len() > suffix.len() && name.ends_with(suffix)).then_some(suffix.len())
        }
        (None, Some(name)) => (pattern == name).then_some(usize::MAX),
        (_, None) => None,
    };
    if patterns.is_empty() { Some(0) } else { patterns.iter().filter_map(close).max() }
}

/// The rule for a client that asks for `name`, which is in lower case, or for nobody.
pub fn select<'r, R>(
    rules: &'r [R],
    patterns: impl Fn(&R) -> &[String],
    name: Option<&str>,
) -> Option<&'r R> {
    let close = rules.iter().filter_map(|rule| Some((closeness(patterns(rule), name)?, rule)));
    close.reduce(|best, one| if one.0 > best.0 { one } else { best }).map(|(_, rule)| rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(rules: &[&[&str]], name: Option<&str>) -> Option<usize> {
        let own = |rule: &&[&str]| rule.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let rules: Vec<(usize, Vec<String>)> = rules.iter().map(own).enumerate().collect();
        select(&rules, |rule| &rule.1, name).map(|rule| rule.0)
    }

    #[test]
    fn the_closest_name_decides_and_of_equals_the_first() {
        let rules: &[&[&str]] = &[
            &["*.example.com"],
            &["other.org", "a.example.com"],
            &["*.b.example.com"],
            &["a.example.com", "*.org"],
        ];
        for (name, rule) in [
            ("a.example.com", Some(1)),
            ("c.example.com", Some(0)),
            ("c.b.example.com", Some(2)),
            ("b.example.com", Some(0)),
            ("example.com", None),
            (".example.com", None),
            ("x.org", Some(3)),
            ("org", None),
        ] {
            assert_eq!(chosen(rules, Some(name)), rule, "{name}");
        }
    }

    #[test]
    fn who_asks_for_nobody_meets_rules_for_everybody_only() {
        assert_eq!(chosen(&[&["a"], &["*.a"]], None), None);
        assert_eq!(chosen(&[&["a"], &["*"]], None), Some(1));
        assert_eq!(chosen(&[&["*"], &[]], Some("x")), Some(0));
        assert_eq!(chosen(&[&[], &["*.x.y"]], Some("a.x.y")), Some(1));
        assert_eq!(chosen(&[], Some("x")), None);
    }
}
