//! Escapes as RE2 reads them, outside of classes and in them.

use std::fmt::Write as _;

/// General categories, as `\p` names them.
const CATEGORIES: &[&str] = &[
    "C", "Cc", "Cf", "Co", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N", "Nd",
    "Nl", "No", "P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So", "Z",
    "Zl", "Zp", "Zs",
];
/// Longest name of a script.
const SCRIPT_MAX: usize = 32;

/// What an escape means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Escape<'a> {
    /// One character.
    Character(char),
    /// A set of ASCII characters by its letter, in upper case for all others.
    Set(char),
    /// A Unicode category or script.
    Unicode { kind: &'static str, name: &'a str, negated: bool },
    /// A place between characters.
    Place(char),
}

/// Reads the escape that a text begins with. Returns what follows it too.
///
/// # Errors
/// The reason why RE2 has no such escape.
pub(super) fn read(text: &str) -> Result<(Escape<'_>, &str), String> {
    let mut characters = text.chars();
    characters.next();
    let Some(letter) = characters.next() else {
        return Err("it ends with a `\\`".to_owned());
    };
    let behind = characters.as_str();
    let found = match letter {
        'd' | 'D' | 's' | 'S' | 'w' | 'W' => Escape::Set(letter),
        'b' | 'B' | 'A' | 'z' => Escape::Place(letter),
        'p' | 'P' => return unicode(letter == 'P', behind),
        'x' => return hexadecimal(behind),
        'a' => Escape::Character('\x07'),
        'f' => Escape::Character('\x0c'),
        'n' => Escape::Character('\n'),
        'r' => Escape::Character('\r'),
        't' => Escape::Character('\t'),
        'v' => Escape::Character('\x0b'),
        '0'..='7' => return octal(letter, behind),
        sign if sign.is_ascii() && !sign.is_ascii_alphanumeric() => Escape::Character(sign),
        other => return Err(format!("RE2 does not know `\\{other}`")),
    };
    Ok((found, behind))
}

/// Up to three digits; a single one that is not 0 would name a group, which RE2 does not do.
fn octal(first: char, behind: &str) -> Result<(Escape<'_>, &str), String> {
    let digits = behind.chars().take(2).take_while(|digit| digit.is_digit(8)).count();
    if first != '0' && digits == 0 {
        return Err(format!("`\\{first}` names a group, which RE2 does not compare with"));
    }
    let value = behind[..digits].chars().fold(first.to_digit(8).unwrap_or(0), |value, digit| {
        value * 8 + digit.to_digit(8).unwrap_or(0)
    });
    let character = char::from_u32(value).unwrap_or_default();
    Ok((Escape::Character(character), &behind[digits..]))
}

/// `x41` or `x{41}`, from behind the `x`.
fn hexadecimal(behind: &str) -> Result<(Escape<'_>, &str), String> {
    let wrong = || "`\\x` is followed by two hexadecimal digits, or by some in braces".to_owned();
    let (digits, rest) = match behind.strip_prefix('{') {
        Some(inner) => inner.split_once('}').ok_or_else(wrong)?,
        None => behind.split_at_checked(2).ok_or_else(wrong)?,
    };
    let valid = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let value = u32::from_str_radix(digits, 16).ok().filter(|_| valid);
    let character = value.and_then(char::from_u32).ok_or_else(wrong)?;
    Ok((Escape::Character(character), rest))
}

/// `pN`, `p{Greek}` or `p{^Greek}`, from behind the `p`.
fn unicode(negated: bool, behind: &str) -> Result<(Escape<'_>, &str), String> {
    let unclosed = || "`\\p` is followed by a letter, or by a name in braces".to_owned();
    let (name, rest) = match behind.strip_prefix('{') {
        Some(inner) => inner.split_once('}').ok_or_else(unclosed)?,
        None => {
            let len = behind.chars().next().ok_or_else(unclosed)?.len_utf8();
            behind.split_at(len)
        }
    };
    let (negated, name) = match name.strip_prefix('^') {
        Some(name) => (!negated, name),
        None => (negated, name),
    };
    let is_script = name.starts_with(|first: char| first.is_ascii_uppercase())
        && (2..=SCRIPT_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let kind = match name {
        "Any" => "",
        name if CATEGORIES.contains(&name) => "gc=",
        // The compiler knows which scripts there are.
        _ if is_script && is_full_name(name) => "sc=",
        _ => {
            return Err(format!(
                "`{name}` is no category or script of characters, e.g. `L` or `Greek`"
            ));
        }
    };
    Ok((Escape::Unicode { kind, name, negated }, rest))
}

/// Scripts have codes of four letters too, which RE2 does not take.
fn is_full_name(script: &str) -> bool {
    const SHORT: &[&str] = &[
        "Ahom", "Cham", "Kawi", "Lao", "Lisu", "Miao", "Mro", "Newa", "Nko", "Thai", "Toto", "Vai",
        "Yi",
    ];
    script.len() > 4 || SHORT.contains(&script)
}

impl Escape<'_> {
    /// Writes it where no class is open.
    pub(super) fn push_outside(&self, written: &mut String) {
        match self {
            Self::Character(character) => push_literal(*character, written),
            Self::Place(letter @ ('b' | 'B')) => {
                let _ = write!(written, r"(?-u:\{letter})");
            }
            Self::Place(letter) => written.extend(['\\', *letter]),
            Self::Set(_) => {
                written.push('[');
                if self.is_negated() {
                    written.push('^');
                }
                written.push_str(self.members());
                written.push(']');
            }
            Self::Unicode { .. } => self.push_in_class(written),
        }
    }

    /// Writes it in a class.
    pub(super) fn push_in_class(&self, written: &mut String) {
        match self {
            Self::Character(character) => push_literal(*character, written),
            Self::Set(_) if self.is_negated() => {
                let _ = write!(written, "[^{}]", self.members());
            }
            Self::Set(_) => written.push_str(self.members()),
            Self::Unicode { kind, name, negated } => {
                let letter = if *negated { 'P' } else { 'p' };
                let _ = write!(written, r"\{letter}{{{kind}{name}}}");
            }
            Self::Place(letter) => written.extend(['\\', *letter]),
        }
    }

    fn is_negated(&self) -> bool {
        matches!(self, Self::Set('D' | 'S' | 'W'))
    }

    fn members(&self) -> &'static str {
        match self {
            Self::Set('d' | 'D') => "0-9",
            Self::Set('s' | 'S') => r"\t\n\x0C\r ",
            _ => "0-9A-Za-z_",
        }
    }
}

/// Writes a character so that it means only itself, in a class and outside.
pub(super) fn push_literal(character: char, written: &mut String) {
    match character {
        control if control.is_control() => {
            let _ = write!(written, r"\x{{{:x}}}", u32::from(control));
        }
        sign if sign.is_ascii_punctuation() && !matches!(sign, '<' | '>' | '}' | '/' | '_') => {
            written.extend(['\\', sign]);
        }
        other => written.push(other),
    }
}
