//! Words and signs of an expression.

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A name, or a word such as `in`.
    Word(String),
    Int(i64),
    Text(String),
    /// `&&`, `(` and their like.
    Sign(&'static str),
}

/// Longer ones first.
const SIGNS: &[&str] = &[
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "(", ")", "[", "]", ",", ".", "?", ":", "+",
];

/// An expression as its words and signs.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '\'' | '"' => quoted(rest, first)?,
            _ if first.is_ascii_digit() => number(rest)?,
            _ if first.is_ascii_alphabetic() || first == '_' => {
                let length = rest
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(rest.len());
                (Token::Word(rest[..length].to_owned()), length)
            }
            _ => match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
                Some(sign) => (Token::Sign(sign), sign.len()),
                None if first == '=' => {
                    return Err("`=` compares nothing: write `==`".to_owned());
                }
                None => return Err(format!("`{first}` has no meaning here")),
            },
        };
        found.push(token);
        rest = rest[length..].trim_start();
    }
    Ok(found)
}

fn number(text: &str) -> Result<(Token, usize), String> {
    let length = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(text.len());
    let written = &text[..length];
    // `u` marks CEL's unsigned numbers, which are compared as others.
    let digits = written.strip_suffix('u').unwrap_or(written);
    let value = digits.parse().map_err(|_| format!("`{written}` is no whole number"))?;
    Ok((Token::Int(value), length))
}

/// A text in quotes, with `\` before a quote, a `\`, `n`, `r` or `t`.
fn quoted(text: &str, quote: char) -> Result<(Token, usize), String> {
    let mut value = String::new();
    let mut inside = text.char_indices().skip(1);
    while let Some((at, one)) = inside.next() {
        match one {
            _ if one == quote => return Ok((Token::Text(value), at + 1)),
            '\\' => match inside.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, 't')) => value.push('\t'),
                Some((_, same @ ('\\' | '\'' | '"'))) => value.push(same),
                Some((_, other)) => return Err(format!("`\\{other}` has no meaning in a text")),
                None => break,
            },
            _ => value.push(one),
        }
    }
    Err(format!(
        "the text that begins with `{}` has no end",
        text.chars().take(20).collect::<String>()
    ))
}
