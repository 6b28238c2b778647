//! What one file says about others: the modules it declares, the names it binds by `use`, the items
//! it defines, and every path it writes that might lead to another file.

use std::collections::{BTreeMap, BTreeSet};

use super::tokens::{Token, group, product_tokens};

/// A path as written, its segments.
pub(super) type Segments = Vec<String>;

/// One module: a file, or `mod name { .. }` inside one.
#[derive(Debug, Default)]
pub(super) struct Module {
    /// Its path from the crate's root.
    pub(super) path: Segments,
    /// Child modules in files of their own that are part of the product.
    pub(super) children: BTreeSet<String>,
    /// Names bound by `use`, with the path each stands for.
    pub(super) bindings: BTreeMap<String, Segments>,
    /// Paths of `use path::*`.
    pub(super) globs: Vec<Segments>,
    /// What it binds by `pub use`; empty once the module is read.
    handed_on: BTreeMap<String, Segments>,
    /// Words of its text, imports and declarations apart.
    words: BTreeSet<String>,
    /// Names it defines.
    pub(super) items: BTreeSet<String>,
    /// Paths it writes. A `pub use` is among them only where the module has a use for the name
    /// itself: what it merely hands on is not imported by it, nor is anything imported through it.
    pub(super) paths: BTreeSet<Segments>,
}

/// Words that are followed by the name of an item.
const ITEMS: [&str; 9] =
    ["fn", "struct", "enum", "trait", "type", "const", "static", "union", "macro_rules"];

/// Words that may stand between `const` or `static` and the name.
const QUALIFIERS: [&str; 5] = ["fn", "async", "unsafe", "extern", "mut"];

/// The modules of a file, the file's own first.
pub(super) fn modules(path: &[String], text: &str) -> Vec<Module> {
    let mut reader = Reader { found: Vec::new() };
    reader.module(path.to_vec(), &product_tokens(text));
    reader.found
}

struct Reader {
    found: Vec<Module>,
}

impl Reader {
    fn module(&mut self, path: Segments, tokens: &[Token]) {
        let slot = self.found.len();
        self.found.push(Module::default());
        let mut module = Module { path, ..Module::default() };
        let mut at = 0;
        while at < tokens.len() {
            at += self.step(&mut module, tokens, at);
        }
        module.handed_on.retain(|name, _| module.words.contains(name));
        module.paths.extend(std::mem::take(&mut module.handed_on).into_values());
        self.found[slot] = module;
    }

    /// Reads what begins at `at`; returns how many tokens that took.
    fn step(&mut self, module: &mut Module, tokens: &[Token], at: usize) -> usize {
        let Token::Word(word) = &tokens[at] else { return 1 };
        let name = match tokens.get(at + 1) {
            Some(Token::Word(name)) => Some(name.clone()),
            // `macro_rules! name`
            Some(Token::Mark('!')) => match tokens.get(at + 2) {
                Some(Token::Word(name)) => Some(name.clone()),
                _ => None,
            },
            _ => None,
        };
        let before = at.checked_sub(1).and_then(|before| tokens.get(before));
        match (word.as_str(), name) {
            // Who may see it, not what it needs.
            ("pub", None) if tokens.get(at + 1).is_some_and(|t| t.is_mark('(')) => {
                let scopes = ["crate", "super", "self", "in"];
                let scoped = |token: &Token| scopes.iter().any(|scope| token.is_word(scope));
                1 + if tokens.get(at + 2).is_some_and(scoped) {
                    group(&tokens[at + 1..])
                } else {
                    0
                }
            }
            ("mod", Some(name)) if tokens.get(at + 2).is_some_and(|t| t.is_mark('{')) => {
                let length = group(&tokens[at + 2..]);
                let inside = &tokens[at + 3..(at + 1 + length).max(at + 3)];
                self.module([module.path.as_slice(), &[name]].concat(), inside);
                2 + length
            }
            ("mod", Some(name)) => {
                module.children.insert(name);
                2
            }
            ("use", _) => {
                let length = tokens[at..].iter().position(|t| t.is_mark(';'));
                let length = length.unwrap_or(tokens.len() - at);
                let handed_on = is_public(&tokens[..at]);
                read_use(&tokens[at + 1..at + length], &[], handed_on, module);
                length
            }
            (item, Some(name)) if ITEMS.contains(&item) && !QUALIFIERS.contains(&&*name) => {
                module.items.insert(name);
                2
            }
            _ if before == Some(&Token::Path) => 1,
            _ => {
                let path = path(&tokens[at..]);
                module.words.extend(path.iter().cloned());
                let taken = path.len() * 2 - 1;
                if path.len() > 1 {
                    module.paths.insert(path);
                }
                taken
            }
        }
    }
}

/// Do these tokens end with `pub` or `pub(..)`?
fn is_public(before: &[Token]) -> bool {
    match before.last() {
        Some(Token::Mark(')')) => before
            .iter()
            .rposition(|token| token.is_mark('('))
            .and_then(|open| before.get(open.checked_sub(1)?))
            .is_some_and(|token| token.is_word("pub")),
        last => last.is_some_and(|token| token.is_word("pub")),
    }
}

/// The path that begins here; at least one segment.
fn path(tokens: &[Token]) -> Segments {
    let mut segments = Vec::new();
    let mut rest = tokens;
    while let [Token::Word(word), after @ ..] = rest {
        segments.push(word.clone());
        match after {
            [Token::Path, next @ ..] if matches!(next.first(), Some(Token::Word(_))) => rest = next,
            _ => break,
        }
    }
    segments
}

/// Reads a `use` tree below `prefix`.
fn read_use(tokens: &[Token], prefix: &[String], handed_on: bool, module: &mut Module) {
    let mut full = prefix.to_vec();
    let mut rest = tokens;
    loop {
        match rest {
            [Token::Path, after @ ..] => rest = after,
            [Token::Mark('*'), ..] => {
                module.globs.push(full.clone());
                if !handed_on {
                    module.paths.insert(full);
                }
                return;
            }
            [Token::Mark('{'), ..] => {
                let inside = &rest[1..group(rest) - 1];
                for part in split(inside) {
                    read_use(part, &full, handed_on, module);
                }
                return;
            }
            [Token::Word(alias), Token::Word(name), ..] if alias == "as" => {
                return bind(full, name.clone(), handed_on, module);
            }
            [Token::Word(word), after @ ..] => {
                // `{self}` names what stands before the braces.
                if word != "self" || full.is_empty() {
                    full.push(word.clone());
                }
                rest = after;
            }
            _ => break,
        }
    }
    if let Some(name) = full.last().cloned() {
        bind(full, name, handed_on, module);
    }
}

fn bind(full: Segments, name: String, handed_on: bool, module: &mut Module) {
    if handed_on {
        module.handed_on.insert(name.clone(), full.clone());
    } else {
        module.paths.insert(full.clone());
    }
    module.bindings.insert(name, full);
}

/// The parts between commas that are in no inner group.
fn split(tokens: &[Token]) -> Vec<&[Token]> {
    let mut parts = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < tokens.len() {
        match &tokens[at] {
            Token::Mark('{') => at += group(&tokens[at..]),
            Token::Mark(',') => {
                parts.push(&tokens[start..at]);
                at += 1;
                start = at;
            }
            _ => at += 1,
        }
    }
    parts.push(&tokens[start..]);
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Module {
        modules(&[], text).remove(0)
    }

    fn shown(paths: &BTreeSet<Segments>) -> Vec<String> {
        paths.iter().map(|path| path.join("::")).collect()
    }

    #[test]
    fn a_use_tree_is_read_to_its_leaves() {
        let module = read("use crate::{a::{self, B}, c::D as E, f::*}; pub(crate) use self::g::H;");
        let wanted = ["crate::a", "crate::a::B", "crate::c::D", "crate::f"];
        assert_eq!(shown(&module.paths), wanted);
        assert_eq!(module.bindings["E"].join("::"), "crate::c::D");
        assert_eq!(module.bindings["H"].join("::"), "self::g::H", "bound, not imported");
        assert_eq!(module.globs, [["crate", "f"].map(str::to_owned).to_vec()]);
    }

    #[test]
    fn a_name_handed_on_is_imported_where_the_module_uses_it_too() {
        let module = read("pub use a::B; pub use c::D; fn f(d: D) {}");
        assert_eq!(shown(&module.paths), ["c::D"]);
    }

    #[test]
    fn a_path_in_the_text_is_seen_and_a_string_is_not() {
        let module = read(
            "pub(in crate::x) fn f() -> super::A { crate::b::c::<u8>(\"crate::d\") } struct G;",
        );
        assert_eq!(shown(&module.paths), ["crate::b::c", "super::A"]);
        assert_eq!(module.items, ["G", "f"].map(str::to_owned).into());
    }

    #[test]
    fn a_module_inside_a_file_has_its_own_path() {
        let found = modules(&["a".to_owned()], "mod b { use super::C; } mod d; use e::F;");
        assert_eq!(found[1].path.join("::"), "a::b");
        assert_eq!(shown(&found[1].paths), ["super::C"]);
        assert_eq!(found[0].children, ["d".to_owned()].into());
        assert_eq!(shown(&found[0].paths), ["e::F"]);
    }
}
