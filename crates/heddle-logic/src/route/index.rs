//! Which rules of a long table a request can meet at all, so that the others cost it nothing. An alternative
//! is found by one of its conditions (a path, the beginning of one, a header's value); whether it holds,
//! the rule itself says.

use super::{
    condition::{Alternative, Key},
    view::RequestView,
};

/// Tables this short are looked at rule by rule.
const WORTH_IT: usize = 12;
/// Names of headers that rules are found by; with each a request is looked through once more.
const NAMES_MAX: usize = 4;

/// Positions of rules, ascending.
type Positions = Vec<u32>;

/// A table's rules by what finds them.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    /// Those that any request may meet.
    others: Positions,
    exact: Sorted,
    prefixes: Prefixes,
    /// By a header's name, then by its value.
    headers: Vec<(String, Sorted)>,
}

impl Index {
    /// `None` where the table is short.
    pub(super) fn build<'a>(
        rules: impl ExactSizeIterator<Item = &'a [Alternative]>,
    ) -> Option<Box<Self>> {
        if rules.len() < WORTH_IT {
            return None;
        }
        let mut index = Self::default();
        for (at, rule) in (0..).zip(rules) {
            index.add(at, rule);
        }
        index.exact.sort();
        index.prefixes.sort();
        index.headers.iter_mut().for_each(|(_, values)| values.sort());
        Some(Box::new(index))
    }

    /// An empty list is met by every request.
    fn add(&mut self, at: u32, rule: &[Alternative]) {
        if rule.is_empty() {
            return self.others.push(at);
        }
        for alternative in rule {
            match alternative.key() {
                Key::Path(path) => self.exact.add(path, at),
                Key::PathPrefix(prefix) => self.prefixes.sorted.add(prefix, at),
                Key::Header(name, value) => match self.by_header(name) {
                    Some(values) => values.add(value, at),
                    None => push(&mut self.others, at),
                },
                Key::None => push(&mut self.others, at),
            }
        }
    }

    fn by_header(&mut self, name: &str) -> Option<&mut Sorted> {
        let known = self.headers.iter().position(|(one, _)| one == name);
        let at = match known {
            Some(at) => at,
            None if self.headers.len() == NAMES_MAX => return None,
            None => {
                self.headers.push((name.to_owned(), Sorted::default()));
                self.headers.len() - 1
            }
        };
        Some(&mut self.headers[at].1)
    }

    /// The first position at which `holds`, which is asked only about what the request can meet.
    pub(super) fn first(
        &self,
        request: &dyn RequestView,
        path: &str,
        holds: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut best = u32::MAX;
        let mut look = |positions: &[u32]| {
            let before = positions.iter().take_while(|at| **at < best);
            if let Some(at) = before.copied().find(|at| holds(*at as usize)) {
                best = at;
            }
        };
        if let Some(positions) = self.exact.get(path) {
            look(positions);
        }
        self.prefixes.each(path, &mut look);
        for (name, values) in &self.headers {
            request.any_header(name, &mut |value| {
                if let Some(positions) = values.get(value) {
                    look(positions);
                }
                false
            });
        }
        look(&self.others);
        (best != u32::MAX).then_some(best as usize)
    }
}

/// A rule may be found by several of its alternatives.
fn push(positions: &mut Positions, at: u32) {
    if positions.last() != Some(&at) {
        positions.push(at);
    }
}

/// Positions by a text.
#[derive(Debug, Clone, Default)]
struct Sorted(Vec<(Box<str>, Positions)>);

impl Sorted {
    /// In the order of the table.
    fn add(&mut self, text: &str, at: u32) {
        self.0.push((text.into(), vec![at]));
    }

    /// Once all are there: brings those of one text together.
    fn sort(&mut self) {
        // Stable, so that positions stay in order.
        self.0.sort_by(|one, other| one.0.cmp(&other.0));
        self.0.dedup_by(|next, first| {
            let same = next.0 == first.0;
            if same {
                next.1.drain(..).for_each(|at| push(&mut first.1, at));
            }
            same
        });
    }

    fn get(&self, text: &str) -> Option<&[u32]> {
        let at = self.0.binary_search_by(|(one, _)| one.as_ref().cmp(text)).ok()?;
        Some(&self.0.get(at)?.1)
    }
}

/// Positions by the beginning of a text.
#[derive(Debug, Clone, Default)]
struct Prefixes {
    sorted: Sorted,
    /// For each text the longest other one that it begins with.
    within: Vec<Option<u32>>,
}

impl Prefixes {
    fn sort(&mut self) {
        self.sorted.sort();
        let mut open: Vec<u32> = Vec::new();
        for (at, (text, _)) in (0_u32..).zip(&self.sorted.0) {
            let begins = |one: &u32| text.starts_with(self.sorted.0[*one as usize].0.as_ref());
            while open.last().is_some_and(|one| !begins(one)) {
                open.pop();
            }
            self.within.push(open.last().copied());
            open.push(at);
        }
    }

    /// All that `text` begins with. What sorts last before it begins with each of them: whatever stands
    /// between a beginning of a text and the text begins so itself.
    fn each(&self, text: &str, look: &mut impl FnMut(&[u32])) {
        let behind = self.sorted.0.partition_point(|(one, _)| one.as_ref() <= text);
        let mut at = behind.checked_sub(1);
        while let Some((one, positions)) = at.and_then(|at| self.sorted.0.get(at)) {
            if text.starts_with(one.as_ref()) {
                look(positions);
            }
            at = at.and_then(|at| *self.within.get(at)?).map(|within| within as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_beginning_of_a_text_is_found_and_nothing_else() {
        let mut prefixes = Prefixes::default();
        let texts = ["/a", "/a/", "/a/b", "/a/bc", "/ab", "/b", "/", "/a/b/c/d"];
        for (at, text) in (0..).zip(texts) {
            prefixes.sorted.add(text, at);
        }
        prefixes.sort();
        for text in ["", "/", "/a", "/a/b", "/a/bb", "/a/bcd", "/abc", "/a/b/c/d/e", "/c", "x"] {
            let mut found: Vec<u32> = Vec::new();
            prefixes.each(text, &mut |positions| found.extend(positions));
            found.sort_unstable();
            let wanted = (0..).zip(texts).filter(|(_, one)| text.starts_with(one));
            assert_eq!(found, wanted.map(|(at, _)| at).collect::<Vec<u32>>(), "{text}");
        }
    }
}
