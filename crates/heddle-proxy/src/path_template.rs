//! What paths have in common: `/users/17/orders` and `/users/4/orders` are both `/users/{id}/orders`.
//!
//! Nothing is learnt and nothing is looked up: each part of a path is told for itself, by its bytes alone, so that the
//! same path has the same template in every sidecar. What a client sends ends up in a template only where it looks like
//! a word that a programmer wrote; a template is short, and of a few harmless characters.

/// Most parts of a path that are told.
const PARTS_MAX: usize = 8;
/// Longest part that may be a word, bytes.
const WORD_MAX: usize = 48;
/// Longest template, bytes.
pub(crate) const TEMPLATE_MAX: usize = 160;
/// What stands for a part that differs from call to call.
const ID: &[u8] = b"{id}";
/// What stands for the rest of a path that is too long.
const REST: &[u8] = b"/...";

/// The template of a path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Template {
    bytes: [u8; TEMPLATE_MAX],
    len: usize,
}

impl Template {
    /// That of a request's target in origin form, with its query or without; `None` for any other target.
    pub(crate) fn of(target: &str) -> Option<Self> {
        let end = target.bytes().position(|byte| matches!(byte, b'?' | b'#'));
        let path = &target.as_bytes()[..end.unwrap_or(target.len())];
        let parts = path.strip_prefix(b"/")?;
        let mut template = Self { bytes: [0; TEMPLATE_MAX], len: 0 };
        for (number, part) in parts.split(|byte| *byte == b'/').enumerate() {
            // Parameters of a part (`;jsessionid=…`) are no name.
            let part = part.split(|byte| *byte == b';').next().unwrap_or_default();
            let part = if is_word(part) { part } else { ID };
            let room = TEMPLATE_MAX - template.len - REST.len();
            if number == PARTS_MAX || room < 1 + part.len() {
                template.push(REST);
                break;
            }
            template.push(b"/");
            template.push(part);
        }
        Some(template)
    }

    /// Its text: letters, digits, and some of what stands between them.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }

    fn push(&mut self, text: &[u8]) {
        let end = self.len + text.len();
        if let Some(room) = self.bytes.get_mut(self.len..end) {
            room.copy_from_slice(text);
            self.len = end;
        }
    }
}

/// Is that part the same for all callers, as far as its bytes tell? Else it is a number, an id, or what somebody typed.
fn is_word(part: &[u8]) -> bool {
    part.len() <= WORD_MAX
        && part.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~:".contains(byte))
        && (part.is_empty() || !part.iter().all(u8::is_ascii_digit))
        && digits_in_a_row(part) < 4
        && !part.split(|byte| b"-_.~:".contains(byte)).any(is_random)
}

fn digits_in_a_row(part: &[u8]) -> usize {
    let runs = part.split(|byte| !byte.is_ascii_digit());
    runs.map(<[u8]>::len).max().unwrap_or_default()
}

/// Does a piece without anything in between look as if a machine had made it up?
fn is_random(piece: &[u8]) -> bool {
    let has = |is: fn(&u8) -> bool| piece.iter().any(is);
    let runs = piece.split(|byte| !byte.is_ascii_digit()).filter(|run| !run.is_empty()).count();
    let is_hex = piece.iter().all(u8::is_ascii_hexdigit) && runs > 0;
    let is_mixed = runs > 1 && has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase);
    (is_hex && piece.len() >= 8)
        || (is_mixed && piece.len() >= 10)
        || (runs > 1 && piece.len() >= 16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(target: &str) -> String {
        Template::of(target).map_or_else(String::new, |template| template.as_str().to_owned())
    }

    #[test]
    fn what_differs_from_call_to_call_is_an_id() {
        for (target, template) in [
            ("/", "/"),
            ("/ratings/7", "/ratings/{id}"),
            ("/users/17/orders?page=2", "/users/{id}/orders"),
            ("/users/5b0d7f3e-9c1a-4c55-8d9f-0123456789ab", "/users/{id}"),
            ("/commits/9fceb02d0ae598e95dc970b74767f19372d61af8/files", "/commits/{id}/files"),
            ("/objects/507f1f77bcf86cd799439011", "/objects/{id}"),
            ("/ulid/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/ulid/{id}"),
            ("/watch/dQw4w9WgXcQ", "/watch/{id}"),
            ("/posts/2024-05-01/order-12345", "/posts/{id}/{id}"),
            ("/static/app.3f2a9c1b.js", "/static/{id}"),
            ("/find/caf%C3%A9", "/find/{id}"),
            ("/of/someone@example.com", "/of/{id}"),
            ("/a;jsessionid=0123/b", "/a/b"),
        ] {
            assert_eq!(of(target), template, "{target}");
        }
    }

    #[test]
    fn words_stay() {
        for path in [
            "/api/v1/users",
            "/v1beta1/namespaces",
            "/oauth2/token",
            "/healthz",
            "/shop.v1.Greeter/SayHello",
            "/grpc.health.v1.Health/Check",
            "/index.html",
            "/static/jquery-3.7.1.min.js",
            "/facade/deadbeef/",
            "/well-known/acme_challenge",
            "//twice",
        ] {
            assert_eq!(of(path), path);
        }
    }

    #[test]
    fn other_targets_have_none_and_long_ones_are_cut() {
        assert!(Template::of("*").is_none());
        assert!(Template::of("example.com:443").is_none());
        assert!(Template::of("").is_none());
        assert_eq!(of("/a/b/c/d/e/f/g/h/i/j"), "/a/b/c/d/e/f/g/h/...");
        assert_eq!(of(&format!("/{}", "a".repeat(999))), "/{id}");
        let long = of(&format!("/{0}/{0}/{0}/{0}", "a".repeat(WORD_MAX)));
        assert_eq!(long, format!("/{0}/{0}/{0}/...", "a".repeat(WORD_MAX)));
    }

    proptest! {
        #[test]
        fn whatever_comes_a_template_is_short_and_harmless(target in "/\\PC{0,400}") {
            let template = of(&target);
            prop_assert!(template.len() <= TEMPLATE_MAX && template.starts_with('/'));
            let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:/{}".contains(&byte);
            prop_assert!(template.bytes().all(harmless), "{template}");
        }
    }
}
