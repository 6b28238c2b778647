//! The canonical form by example, and what holds for any path.

use proptest::{collection::vec, prelude::*};

use super::*;

fn form(path: &str) -> String {
    canonical(path.as_bytes()).into_owned()
}

#[test]
fn an_ordinary_path_is_not_copied() {
    let ordinary = [
        "/",
        "",
        "*",
        "/a/b",
        "/a//b/",
        "/.well-known/x",
        "/a.b/..c/d..",
        "/a;v=1/@x:y",
        "/a[0]",
        "/a%20b%2F",
        "/sale-50%",
        "/a%zz",
    ];
    for path in ordinary {
        assert!(
            matches!(canonical(path.as_bytes()), Cow::Borrowed(same) if same == path),
            "{path}"
        );
    }
}

#[test]
fn spellings_of_one_path_become_one() {
    for path in [
        "/admin",
        "/%61dmin",
        "/%61%64%6D%69%6e",
        "/a/../admin",
        "/./admin",
        "/../../admin",
        "/a/%2e%2E/admin",
        "/a/.%2e/admin",
        "/a\\..\\admin",
        "/a/b/../.././admin",
        "/a/b%2Fc/../../admin",
    ] {
        assert_eq!(form(path), "/admin", "{path}");
    }
}

#[test]
fn the_rules_are_those_of_rfc_3986_and_of_istios_default() {
    let cases = [
        ("/a/b/c/./../../g", "/a/g"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/a/b/..", "/a/"),
        ("/..", "/"),
        ("/a//../b", "/a/b"),
        ("/a/...", "/a/..."),
        ("/a//b", "/a//b"),
        ("/a%2fb", "/a%2Fb"),
        ("/a%5cb", "/a%5Cb"),
        ("/%7euser", "/~user"),
        ("/%2561dmin", "/%2561dmin"),
        ("/a%20b", "/a%20b"),
        ("/a;x/..;/b", "/a;x/..;/b"),
        ("/caf\u{e9}", "/caf%C3%A9"),
        ("/a|b\"", "/a%7Cb%22"),
        ("/100%", "/100%"),
        ("/%zz/%61", "/%zz/a"),
        ("/%%30%30", "/%2500"),
        ("/%%30", "/%0"),
        ("/%3%30", "/%2530"),
        ("/%%zz", "/%%zz"),
        ("/%%41b", "/%25Ab"),
        ("/%", "/%"),
        ("db:5432", "db:5432"),
    ];
    for (path, expected) in cases {
        assert_eq!(form(path), expected, "{path}");
    }
    assert_eq!(canonical(b"/caf\xe9"), "/caf%E9", "bytes that are no text keep their values");
}

#[test]
fn a_rules_text_is_compared_by_its_canonical_escapes() {
    assert_eq!(literal("/%61%2f/."), "/%61%2F/.", "no canonical path has %61");
    assert_eq!(literal("/50%/a\\b"), "/50%/a\\b");
    assert_eq!(literal("/caf\u{e9}"), "/caf%C3%A9");
    assert_eq!(in_small_escapes("/A%2Fb%C3"), Some("/A%2fb%c3".to_owned()));
    assert_eq!(in_small_escapes("/A%20B"), None);
}

#[test]
fn a_zero_byte_and_a_fragment_have_no_form() {
    assert_eq!(fault("/a%00b?x"), Some(Fault::ZeroByte));
    assert_eq!(fault("/a#b"), Some(Fault::Fragment));
    assert_eq!(fault("/a?b#c"), Some(Fault::Fragment));
    assert_eq!(fault("/a?b=%00"), None, "the query is the service's");
    assert_eq!(fault("/a%20%30%30"), None);
}

/// Paths full of what matters.
fn path() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "(/|\\\\|\\.|%2e|%2F|%5c|%|%25|%6|a|B|;|%00)".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 1..3),
    ];
    vec(piece, 0..24).prop_map(|pieces| [&b"/"[..], &pieces.concat()].concat())
}

/// One way to spell a byte of a canonical path.
fn spelled(byte: u8, how: u8) -> String {
    match (byte, how) {
        (b'/', 0) => "/.\\".to_owned(),
        (b'/', 1) => "/./".to_owned(),
        (b'/', 2) => "/x/../".to_owned(),
        (b'/', 3) => "/%2e/".to_owned(),
        (b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-', 0 | 1) => format!("%{byte:02x}"),
        (b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-', 2) => format!("%{byte:02X}"),
        _ => char::from(byte).to_string(),
    }
}

proptest! {
    #[test]
    fn the_form_is_final_and_fit_for_a_request_line(path in path()) {
        let once = canonical(&path).into_owned();
        let twice = canonical(once.as_bytes());
        prop_assert!(matches!(twice, Cow::Borrowed(_)), "{} becomes {}", once, twice);
        prop_assert!(once.starts_with('/'));
        prop_assert!(once.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'));
        prop_assert!(once.split('/').all(|segment| segment != "." && segment != ".."));
    }

    #[test]
    fn no_bytes_panic(path in vec(any::<u8>(), 0..40)) {
        let _ = in_small_escapes(&canonical(&path));
        let _ = in_small_escapes(&String::from_utf8_lossy(&path));
    }

    #[test]
    fn equivalent_spellings_have_one_form(
        path in "(/[aB.9-]{1,4}){1,4}/?", how in vec(0u8..8, 32),
    ) {
        let spelling: String =
            path.bytes().zip(&how).map(|(byte, how)| spelled(byte, *how)).collect();
        prop_assert_eq!(form(&spelling), form(&path), "{}", spelling);
    }

    #[test]
    fn what_needs_no_change_is_found_without_one(path in "/[a./]{0,8}") {
        // The shortcut and the long way agree.
        prop_assert_eq!(form(&path), without_dot_segments(&escapes(&path.as_bytes()[1..])));
    }
}
