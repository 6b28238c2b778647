//! Trees, lines, documents and limits.

use proptest::prelude::*;

use super::*;

fn roots(text: &str) -> Vec<Node> {
    let (documents, flaws) = read(text);
    assert_eq!(flaws, [], "{text}");
    documents.into_iter().map(|document| document.root).collect()
}

fn flaw(text: &str) -> Flaw {
    let (_, mut flaws) = read(text);
    assert!(!flaws.is_empty(), "accepted: {text}");
    flaws.remove(0)
}

#[test]
fn every_node_knows_its_line() {
    let root = &roots("# a comment\na:\n  b: 1\n  c:\n  - x\n  - {d: e}\n")[0];
    assert_eq!(root.line, 2);
    let a = root.get("a").unwrap();
    assert_eq!(a.get("b").unwrap().line, 3);
    assert_eq!(a.items_of("c")[1].line, 6);
    assert_eq!(a.entries()[1].line, 4);
}

#[test]
fn documents_are_separated_and_empty_ones_skipped() {
    let text = "---\n# nothing\n---\na: 1\n\n---\n---\n# why\nb: 2 # c\n...\n---\n{\"c\": 3}\n";
    let (documents, flaws) = read(text);
    assert_eq!(flaws, []);
    let texts: Vec<_> = documents.iter().map(|document| document.text.as_str()).collect();
    assert_eq!(texts, ["a: 1\n", "# why\nb: 2 # c\n", "{\"c\": 3}\n"]);
    assert_eq!(documents[2].root.line, 12);
    let inline = read("# head\n--- {a: 1}\n--- b\n").0;
    assert_eq!(inline[0].text, "{a: 1}\n");
    assert_eq!(inline[1].text, "b\n");
    assert_eq!(read("# head\na: 1\n").0[0].text, "# head\na: 1\n");
    assert_eq!(read("").0.len(), 0);
}

#[test]
fn anchors_aliases_and_merge_keys_are_resolved() {
    let root = &roots("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\nagain: *b\n")[0];
    let used = root.get("use").unwrap();
    assert_eq!((used.text_of("x"), used.text_of("y")), ("1", "3"));
    assert_eq!(root.get("again").unwrap().text_of("y"), "2");
    let several = &roots("a: &a {x: 1}\nb: &b {x: 2, y: 2}\nc: {<<: [*a, *b]}\n")[0];
    let merged = several.get("c").unwrap();
    assert_eq!((merged.text_of("x"), merged.text_of("y")), ("1", "2"));
    assert!(flaw("a: {<<: 3}").reason.contains("`<<`"));
}

#[test]
fn anchors_end_with_their_document() {
    assert_eq!(flaw("a: &x 1\n---\nb: *x\n").line, 3);
    assert!(flaw("a: &x [*x]").reason.contains("not complete"));
}

#[test]
fn a_key_given_twice_is_told_with_its_line_and_reading_goes_on() {
    let (documents, flaws) = read("a: 1\nb: 2\na: 3\n---\nc: 4\n");
    let expected = Flaw { line: 3, reason: "the key `a` is given twice".to_owned() };
    assert_eq!(flaws, [expected]);
    assert_eq!(documents.len(), 2);
}

#[test]
fn broken_yaml_is_told_with_its_line_and_what_came_before_is_kept() {
    let (documents, flaws) = read("a: 1\n---\nb: [1, 2\nc: }\n");
    assert_eq!(documents.len(), 1);
    assert_eq!(flaws.len(), 1);
    assert!(flaws[0].line >= 3 && flaws[0].reason.starts_with("no YAML: "), "{flaws:?}");
    assert_eq!(flaw("a:\n\tb: 1\n").line, 2);
    assert!(flaw("{[a]: b}").reason.contains("key"));
}

#[test]
fn quotes_and_the_text_tag_keep_words_from_being_numbers() {
    let plain = |text: &str| match &roots(text)[0].get("a").unwrap().value {
        Value::Scalar { plain, .. } => *plain,
        other => panic!("{other:?}"),
    };
    assert!(plain("a: 1") && !plain("a: '1'") && !plain("a: !!str 1") && !plain("a: |\n  1"));
    assert!(plain("a: !!int 1"));
    assert!(flaw("a: !secret 1").reason.contains("!secret"));
    assert!(roots("a: ~")[0].get("a").is_none());
    assert_eq!(roots("a: '~'")[0].text_of("a"), "~");
}

#[test]
fn depth_is_bounded_with_and_without_aliases() {
    for open in ["[", "{a: ", "- "] {
        assert!(flaw(&open.repeat(DEPTH_MAX + 1)).reason.contains("deeper"), "{open}");
        assert!(!flaw(&open.repeat(100_000)).reason.contains("gave up"), "{open}");
    }
    let mut chain = format!("a0: &a0 {}{}\n", "[".repeat(30), "]".repeat(30));
    for i in 1..200 {
        chain.push_str(&format!("a{i}: &a{i} [*a{}]\n", i - 1));
    }
    assert!(flaw(&chain).reason.contains("deeper"));
}

#[test]
fn repeated_aliases_cannot_fill_the_memory() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..20 {
        let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb.push_str(&format!("a{i}: &a{i} [{aliases}]\n"));
    }
    assert!(flaw(&bomb).reason.contains("split the file"));
    assert!(flaw(&" ".repeat(FILE_BYTES_MAX + 1)).reason.contains("split it"));
}

#[test]
fn a_repeated_long_text_cannot_fill_the_memory() {
    let long = "x".repeat(600 << 10);
    let bomb = format!("x: &a {long}\ny:\n{}", "- *a\n".repeat(100_000));
    let Flaw { line, reason } = flaw(&bomb);
    // The text, its anchor, and as many aliases as fit.
    assert_eq!(line, 2 + TEXT_BYTES_MAX / long.len() - 1, "the alias that is one too many");
    assert!(reason.contains(&format!("{TEXT_BYTES_MAX} bytes of text")), "{reason}");
    let keys = format!("x: &a {{{long}: 1}}\ny:\n{}", "- *a\n".repeat(200));
    assert!(flaw(&keys).reason.contains("bytes of text"), "keys count too");
    assert_eq!(roots(&format!("x: &a {long}\ny: [*a, *a]\n")).len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_text_panics(text in "(?s).{0,200}") {
        let _ = read(&text);
    }

    #[test]
    fn no_yaml_like_text_panics(text in r#"([a-c&*!<'"|>%@`?:,{}\[\]#~ \t-]|\n|\r\n|---|\.\.\.|: |- |<<: ){0,60}"#) {
        let (documents, flaws) = read(&text);
        let lines = text.lines().count().max(1) + 1;
        for flaw in &flaws {
            prop_assert!((1..=lines).contains(&flaw.line), "{} of {}", flaw.line, lines);
            prop_assert!(!flaw.reason.contains("gave up"), "{text:?}");
        }
        for document in &documents {
            prop_assert!((1..=lines).contains(&document.root.line));
        }
    }
}
