//! Rust text as words and punctuation, without comments, strings and numbers: enough to see what a
//! file imports and defines. Own because `syn` would have to be built for this alone.

/// A piece of Rust that matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// An identifier or keyword; `r#` is taken off.
    Word(String),
    /// `::`.
    Path,
    /// Any other single character.
    Mark(char),
}

impl Token {
    /// Is it this word?
    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(self, Self::Word(own) if own == word)
    }

    /// Is it this character?
    pub(super) fn is_mark(&self, mark: char) -> bool {
        *self == Self::Mark(mark)
    }
}

/// The tokens of a file, those behind `#[cfg(test)]` left out.
pub(super) fn product_tokens(text: &str) -> Vec<Token> {
    without_tests(&tokens(text))
}

/// All tokens of a file.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut scanner = Scanner { rest: text };
    let mut tokens = Vec::new();
    while !scanner.rest.is_empty() {
        tokens.extend(scanner.next());
    }
    tokens
}

struct Scanner<'a> {
    rest: &'a str,
}

impl Scanner<'_> {
    /// Takes one piece off the text; `None` for what does not matter.
    fn next(&mut self) -> Option<Token> {
        let rest = self.rest;
        let first = rest.chars().next()?;
        if rest.starts_with("//") {
            self.skip(rest.find('\n').unwrap_or(rest.len()));
        } else if rest.starts_with("/*") {
            self.skip(block_comment(rest));
        } else if let Some(length) = string(rest) {
            self.skip(length);
        } else if first == '\'' {
            self.skip(character_or_lifetime(rest));
        } else if rest.starts_with("b'") {
            self.skip(1 + quoted(&rest[1..], '\''));
        } else if first.is_ascii_digit() {
            self.skip(length_while(rest, is_word));
        } else if is_word(first) {
            let raw = if rest.starts_with("r#") { 2 } else { 0 };
            let length = length_while(&rest[raw..], is_word);
            self.skip(raw + length);
            return Some(Token::Word(rest[raw..raw + length].to_owned()));
        } else if rest.starts_with("::") {
            self.skip(2);
            return Some(Token::Path);
        } else {
            self.skip(first.len_utf8());
            return (!first.is_whitespace()).then_some(Token::Mark(first));
        }
        None
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or("");
    }
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn length_while(text: &str, wanted: fn(char) -> bool) -> usize {
    text.find(|c| !wanted(c)).unwrap_or(text.len())
}

/// Bytes of a comment that begins here and may hold others.
fn block_comment(text: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if rest.starts_with(b"*/") {
            (at, depth) = (at + 2, depth - 1);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// Bytes of a string literal that begins here, with its prefix.
fn string(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        let rest = text.strip_prefix(prefix);
        rest.is_some_and(|rest| match prefix.ends_with('r') {
            true => rest.trim_start_matches('#').starts_with('"'),
            false => rest.starts_with('"'),
        })
    })?;
    let body = &text[prefix.len()..];
    if !prefix.ends_with('r') {
        return Some(prefix.len() + quoted(body, '"'));
    }
    let hashes = length_while(body, |c| c == '#');
    let closing = format!("\"{}", "#".repeat(hashes));
    let start = prefix.len() + hashes + 1;
    let end = text[start..].find(&closing).map_or(text.len(), |at| start + at + closing.len());
    Some(end)
}

/// Bytes from an opening quote through the closing one.
fn quoted(text: &str, quote: char) -> usize {
    let mut characters = text.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        if c == '\\' {
            characters.next();
        } else if c == quote {
            return at + 1;
        }
    }
    text.len()
}

fn character_or_lifetime(text: &str) -> usize {
    let mut after = text.chars().skip(1);
    match (after.next(), after.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => quoted(text, '\''),
        _ => 1 + length_while(&text[1..], is_word),
    }
}

fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let attribute = tokens[at].is_mark('#').then(|| attribute(&tokens[at..])).flatten();
        match attribute {
            Some((length, true)) => {
                at += length;
                at += item(&tokens[at..]);
            }
            _ => {
                kept.push(tokens[at].clone());
                at += 1;
            }
        }
    }
    kept
}

/// Length of the `#[...]` that begins here, and whether it keeps what follows for tests.
fn attribute(tokens: &[Token]) -> Option<(usize, bool)> {
    if !tokens.get(1)?.is_mark('[') {
        return None;
    }
    let length = 1 + group(&tokens[1..]);
    let inside = &tokens[2..length];
    let has = |word: &str| inside.iter().any(|token| token.is_word(word));
    let cfg = inside.first().is_some_and(|token| token.is_word("cfg"));
    Some((length, cfg && has("test") && !has("not")))
}

/// Length of the group that opens here, brackets included.
pub(super) fn group(tokens: &[Token]) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Mark('(' | '[' | '{') => depth += 1,
            Token::Mark(')' | ']' | '}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

/// Length of the item that begins here: to its `;`, or through its body; never out of its parent.
fn item(tokens: &[Token]) -> usize {
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            Token::Mark(';') => return at + 1,
            Token::Mark('{') => return at + group(&tokens[at..]),
            Token::Mark('(' | '[') => at += group(&tokens[at..]),
            Token::Mark(')' | ']' | '}') => return at,
            _ => at += 1,
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> String {
        let shown = |token: &Token| match token {
            Token::Word(word) => word.clone(),
            Token::Path => "::".to_owned(),
            Token::Mark(mark) => mark.to_string(),
        };
        product_tokens(text).iter().map(shown).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_strings_characters_and_lifetimes_hide_what_they_hold() {
        let text =
            "a /* b /* c */ d */ \"crate::e\" r#\"\"f\"\"# b'g' '\\'' '\"' h: &'i str // j\nk";
        assert_eq!(words(text), "a h : & str k");
        assert_eq!(words("b\"x\" br##\"y\"# \"## c\"z\" r#type 'a' 1.0e5 0x_ff"), "type .");
    }

    #[test]
    fn what_is_kept_for_tests_is_left_out() {
        let text = "fn a() {} #[cfg(test)] mod tests { fn b() { c(); } } fn d() {}";
        assert_eq!(words(text), "fn a ( ) { } fn d ( ) { }");
        assert_eq!(words("#[cfg(test)] #[path = \"x\"] mod tests; use a::b;"), "use a :: b ;");
        assert_eq!(words("#[cfg(not(test))] fn a();"), "# [ cfg ( not ( test ) ) ] fn a ( ) ;");
        assert_eq!(words("struct A { #[cfg(test)] b: u8 } fn c"), "struct A { } fn c");
    }
}
