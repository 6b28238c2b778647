//! A command in one line, divided into words. It is no shell: what would need one is refused by name.

/// What only a shell makes something of, outside of quotes.
const SHELL: [char; 13] = ['|', '&', ';', '<', '>', '(', ')', '$', '`', '*', '?', '~', '\n'];

/// The words of a line: blanks divide them; single and double quotes, and a backslash before any character, keep
/// together.
///
/// # Errors
/// What would need a shell, or a quote without its end.
pub(super) fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = line.trim().chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' => words.extend(word.take()),
            '\'' | '"' => {
                let quoted = until(&mut characters, character)?;
                word.get_or_insert_default().push_str(&quoted);
            }
            '\\' => {
                let next = characters.next().ok_or("a `\\` at the end keeps nothing together")?;
                word.get_or_insert_default().push(next);
            }
            shell if SHELL.contains(&shell) => {
                let shown = shell.escape_debug();
                return Err(format!(
                    "`{shown}` needs a shell: write command: [sh, -c, \"…\"], or put it in single quotes"
                ));
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    match words.first().map(String::as_str) {
        None | Some("") => Err("there is no program to run".to_owned()),
        Some(first) if first.contains('=') && !first.contains('/') => {
            Err(format!("`{first}` is no program: variables belong into `environment`"))
        }
        Some(_) => Ok(words),
    }
}

/// What is in quotes. In double ones a `$` or a backquote would need a shell, and a backslash keeps `"` and `\`.
fn until(characters: &mut impl Iterator<Item = char>, quote: char) -> Result<String, String> {
    let mut text = String::new();
    while let Some(character) = characters.next() {
        match character {
            end if end == quote => return Ok(text),
            '\\' if quote == '"' => match characters.next() {
                Some(kept @ ('"' | '\\' | '$' | '`')) => text.push(kept),
                Some(other) => text.extend(['\\', other]),
                None => break,
            },
            '$' | '`' if quote == '"' => {
                return Err(format!(
                    "`{character}` in double quotes needs a shell: write command: [sh, -c, \"…\"], or use single quotes"
                ));
            }
            other => text.push(other),
        }
    }
    Err(format!("a {quote} has no end"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_divide_and_quotes_keep_together() {
        for (line, parts) in [
            ("node api.js", &["node", "api.js"][..]),
            ("  python3  -m http.server 8000 ", &["python3", "-m", "http.server", "8000"]),
            ("sh -c 'echo \"$HOME\" | cat'", &["sh", "-c", "echo \"$HOME\" | cat"]),
            ("a \"b c\"d '' \\$x", &["a", "b cd", "", "$x"]),
            ("a \"\\\"q\\\" \\n\"", &["a", "\"q\" \\n"]),
        ] {
            assert_eq!(words(line).unwrap(), parts, "{line}");
        }
    }

    #[test]
    fn what_needs_a_shell_is_named() {
        for (line, says) in [
            ("a | b", "`|` needs a shell"),
            ("cd x && y", "`&`"),
            ("echo $HOME", "`$`"),
            ("echo \"$HOME\"", "in double quotes"),
            ("ls *.js", "`*`"),
            ("A=1 node x", "`environment`"),
            ("a 'b", "has no end"),
            ("a \\", "at the end"),
            ("''", "no program"),
        ] {
            let said = words(line).unwrap_err();
            assert!(said.contains(says), "{line}: {said}");
        }
    }
}
