//! From documents to words.

use heddle_model::ResourceKey;

use super::*;

fn view(kind: &str, name: &str, spec: &str) -> ResourceView {
    let (group, kind) = kind.rsplit_once('/').unwrap();
    let text = format!(
        "apiVersion: {group}\nkind: {kind}\nmetadata:\n  name: {name}\n  namespace: default\nspec:\n{spec}"
    );
    ResourceView {
        key: ResourceKey {
            kind: kind.to_owned(),
            namespace: "default".to_owned(),
            name: name.to_owned(),
        },
        source: "rules.yaml".to_owned(),
        line: 7,
        text,
        state: "Programmed".to_owned(),
        notes: Vec::new(),
        status: None,
        warnings: Vec::new(),
        since: None,
    }
}

const VS: &str = "networking.istio.io/v1/VirtualService";

fn ratings(percent: u8) -> ResourceView {
    let spec = format!(
        "  hosts: [ratings]\n  http:\n  - name: slow\n    match:\n    - uri: {{prefix: /r}}\n      headers: {{end-user: {{exact: jason}}}}\n    fault:\n      abort: {{httpStatus: 503, percentage: {{value: {percent}}}}}\n    route:\n    - destination: {{host: ratings, subset: v1}}\n      weight: 90\n    - destination: {{host: ratings, subset: v2}}\n      weight: 10\n    timeout: 250ms\n  - route:\n    - destination: {{host: ratings}}\n"
    );
    view(VS, "ratings", &spec)
}

fn ratings_service() -> ServiceName {
    ServiceName::new("ratings", "default").unwrap()
}

#[test]
fn a_rule_says_what_it_is_met_by_and_does() {
    let mut book = Rulebook::default();
    book.update(vec![ratings(80)], 100.0);
    let rule = book.about(Some(&ratings_service())).next().unwrap();
    assert_eq!((rule.source.as_str(), rule.line, rule.parts.len()), ("rules.yaml", 7, 2));
    let [first, second] = &rule.parts[..] else { panic!("{:?}", rule.parts) };
    assert_eq!(first.name, "slow");
    assert_eq!(first.matches, "path /r*, header end-user = jason");
    assert_eq!(first.does, "90 % to ratings v1, 10 % to ratings v2; timeout 250 ms");
    assert_eq!((second.name.as_str(), second.matches.as_str()), ("http[1]", "all"));
    assert_eq!(second.does, "to ratings");
    let faults = book.faults(&ratings_service());
    assert_eq!(faults.len(), 1);
    assert_eq!(
        (faults[0].what.as_str(), faults[0].percent, faults[0].partly),
        ("abort", 80.0, true)
    );
    let part = book.part("VirtualService/default/ratings#http[1]").unwrap();
    assert_eq!(part.does, "to ratings");
    assert_eq!(book.part("VirtualService/default/rating#http[1]"), None);
}

#[test]
fn breakers_and_faults_of_their_own_are_told_too() {
    let breaker = view(
        "networking.istio.io/v1/DestinationRule",
        "specials",
        "  host: specials\n  trafficPolicy:\n    outlierDetection: {consecutive5xxErrors: 3, baseEjectionTime: 10s, maxEjectionPercent: 50}\n",
    );
    let fault = view(
        "heddle.dev/v1alpha1/Fault",
        "slow",
        "  targetRef: {kind: Service, name: ratings}\n  percentage: 80\n  delay: 5s\n",
    );
    let mut book = Rulebook::default();
    book.update(vec![breaker, fault], 1.0);
    let specials = ServiceName::new("specials", "default").unwrap();
    let rule = book.about(Some(&specials)).next().unwrap();
    assert!(
        rule.parts[0].does.starts_with("out for 10 s after 3 5xx in a row"),
        "{:?}",
        rule.parts
    );
    let faults = book.faults(&ratings_service());
    assert_eq!((faults[0].what.as_str(), faults[0].detail.as_str()), ("delay", "5 s"));
}

#[test]
fn what_changes_while_watched_is_told_with_its_time() {
    let mut book = Rulebook::default();
    assert!(!book.is_known());
    book.update(vec![ratings(80)], 100.0);
    assert!(book.is_known());
    assert_eq!(book.changes(0, 1_000, None), [], "what was there first is no change");
    book.update(vec![ratings(80)], 110.0);
    book.update(vec![ratings(50)], 120.0);
    book.update(Vec::new(), 130.0);
    let told = |from, to| {
        let changes = book.changes(from, to, Some(&ratings_service()));
        changes.into_iter().map(|one| (one.at, one.action)).collect::<Vec<_>>()
    };
    assert_eq!(told(0, 1_000), [(130.0, "deleted".to_owned()), (120.0, "configured".to_owned())]);
    assert_eq!(told(0, 130), [(120.0, "configured".to_owned())]);
    let other = ServiceName::new("reviews", "default").unwrap();
    assert_eq!(book.changes(0, 1_000, Some(&other)), []);
}

#[test]
fn changes_and_words_are_bounded_and_text_that_nobody_can_read_is_kept() {
    let mut book = Rulebook::default();
    book.update(Vec::new(), 1.0);
    for at in 0..limits::RULE_CHANGES_MAX + 5 {
        book.update(vec![ratings(u8::try_from(at % 100).unwrap())], 2.0);
    }
    assert_eq!(book.changes.len(), limits::RULE_CHANGES_MAX);
    let long = view(
        VS,
        "a",
        &format!(
            "  hosts: [a]\n  http:\n  - match: [{{uri: {{exact: /{}}}}}]\n    route: [{{destination: {{host: a}}}}]\n",
            "x".repeat(2_000)
        ),
    );
    let broken = ResourceView { state: "Invalid".to_owned(), ..view(VS, "b", "  hosts: {\n") };
    book.update(vec![long, broken], 3.0);
    let rules: Vec<_> = book.about(None).collect();
    assert!(rules[0].parts[0].matches.chars().count() <= limits::RULE_WORDS_MAX + 1);
    assert!(rules[1].text.contains("hosts: {") && rules[1].parts.is_empty());
}

#[test]
fn changes_outlive_the_observer() {
    let mut book = Rulebook::default();
    book.update(vec![ratings(80)], 100.0);
    assert_eq!(book.unkept(false), (0, Vec::new()), "what is told first is no change");
    book.update(vec![ratings(50)], 200.0);
    book.update(Vec::new(), 300.0);
    let (oldest, mut disk) = book.unkept(false);
    assert_eq!((oldest, disk.len()), (0, 2));
    assert!(book.unkept(false).1.is_empty(), "they have been taken");
    assert_eq!(book.unkept(true).1, disk, "until all of it is wanted again");
    let before = book.changes(0, 1_000, None);
    disk.insert(1, (1, b"no JSON".to_vec()));
    let mut again = Rulebook::default();
    again.restore(disk);
    assert_eq!(again.changes(0, 1_000, None), before);
    again.update(Vec::new(), 400.0);
    again.update(vec![ratings(80)], 500.0);
    let (_, new) = again.unkept(false);
    assert_eq!(new.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [2]);
    assert_eq!(again.changes(0, 1_000, None).len(), 3);
}

#[test]
fn no_more_changes_are_kept_than_are_remembered() {
    let mut book = Rulebook::default();
    book.update(Vec::new(), 0.0);
    for change in 0..limits::RULE_CHANGES_MAX + 10 {
        book.update(if change % 2 == 0 { vec![ratings(80)] } else { Vec::new() }, 1.0);
    }
    let (oldest, kept) = book.unkept(false);
    assert_eq!((oldest, kept.len()), (10, limits::RULE_CHANGES_MAX));
}
