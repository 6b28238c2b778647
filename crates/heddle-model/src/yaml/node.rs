//! YAML text into a tree in which every node knows its line. Depth, size and aliases are bounded,
//! so no text can exhaust memory or the stack. Knows nothing about resources.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::{hint, word::Word};

/// Largest file in bytes: a cluster's export of 10,000 objects has about 20 MB.
pub(super) const FILE_BYTES_MAX: usize = 32 << 20;
/// Most nodes of a file, those that aliases repeat included: 200 for each of 10,000 objects.
const NODES_MAX: usize = 2_000_000;
/// Most bytes of text in a file's values and keys, those that anchors and aliases repeat included.
const TEXT_BYTES_MAX: usize = 2 * FILE_BYTES_MAX;
/// Deepest nesting; Istio's kinds need 12.
const DEPTH_MAX: usize = 48;

/// A value with the line it begins on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    /// `plain` if it was not quoted, so that it may mean a number or a boolean: then `text` is its
    /// one spelling ([`Word::canonical`]), and `written` what the file has, where that differs.
    Scalar {
        text: String,
        plain: bool,
        written: Option<Box<str>>,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One `key: value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Line of the key.
    pub(super) line: usize,
    pub(super) value: Node,
}

/// One document that is not empty.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) root: Node,
    /// Its own text, without the `---` around it.
    pub(super) text: String,
}

/// Something wrong with the YAML itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) line: usize,
    pub(super) reason: String,
}

impl Node {
    /// The value of a key; an explicit null counts as absent, as everywhere in Kubernetes.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let entry = self.entries().iter().find(|entry| entry.key == key)?;
        (entry.value.value != Value::Null).then_some(&entry.value)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Entries of a map; none for anything else.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Items of a list; none for anything else.
    pub(super) fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// Text of a scalar, numbers and booleans in their one spelling; empty for anything else.
    pub(super) fn text(&self) -> &str {
        match &self.value {
            Value::Scalar { text, .. } => text,
            _ => "",
        }
    }

    /// Text of a scalar as the file has it; empty for anything else.
    pub(super) fn written(&self) -> &str {
        match &self.value {
            Value::Scalar { text, written, .. } => written.as_deref().unwrap_or(text),
            _ => "",
        }
    }

    /// Is it a scalar without quotes?
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.value, Value::Scalar { plain: true, .. })
    }

    /// Text below a key; empty if absent.
    pub(super) fn text_of(&self, key: &str) -> &str {
        self.get(key).map_or("", Self::text)
    }

    /// Items below a key; none if absent.
    pub(super) fn items_of(&self, key: &str) -> &[Self] {
        self.get(key).map_or(&[], Self::items)
    }

    /// A map of texts below `key`.
    pub(super) fn labels_of(&self, key: &str) -> BTreeMap<String, String> {
        let entries = self.get(key).map_or(&[][..], Self::entries);
        entries.iter().map(|entry| (entry.key.clone(), entry.value.text().to_owned())).collect()
    }

    /// A list of texts below `key`, each once.
    pub(super) fn texts_of(&self, key: &str) -> Vec<String> {
        let texts: BTreeSet<_> =
            self.items_of(key).iter().map(|text| text.text().to_owned()).collect();
        texts.into_iter().collect()
    }

    /// What this is, for messages.
    pub(super) fn describe(&self) -> Cow<'static, str> {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Scalar { .. } => {
                let text = self.written();
                let mut short: String = text.chars().take(60).collect();
                if short.len() < text.len() {
                    short.push('…');
                }
                // Only what would break the line: a backslash is the user's own.
                let shown: String = short
                    .chars()
                    .flat_map(|c| match c.is_control() {
                        true => c.escape_debug().collect::<Vec<_>>(),
                        false => vec![c],
                    })
                    .collect();
                format!("`{shown}`").into()
            }
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
        }
    }
}

/// Reads all documents of a file. What is wrong with the YAML ends the reading at that place; the
/// documents before it are returned too, so that all errors can be told together.
pub(super) fn read(text: &str) -> (Vec<Document>, Vec<Flaw>) {
    if text.len() > FILE_BYTES_MAX {
        let reason = format!(
            "the file has {} bytes, more than the {FILE_BYTES_MAX} allowed: split it",
            text.len()
        );
        return (Vec::new(), vec![Flaw { line: 1, reason }]);
    }
    // The parser is not ours and asserts some of its invariants; a file must not end the process.
    std::panic::catch_unwind(|| read_events(text)).unwrap_or_else(|_| {
        let reason = "this is no YAML: the parser gave up on it".to_owned();
        (Vec::new(), vec![Flaw { line: 1, reason }])
    })
}

fn read_events(text: &str) -> (Vec<Document>, Vec<Flaw>) {
    let mut parser = Parser::new_from_str(text);
    let mut tree = Tree::default();
    while let Some(event) = parser.next_event() {
        let done = match event {
            Ok((event, span)) => tree.accept(event, span),
            Err(error) => {
                let (line, reason) = (error.marker().line(), format!("no YAML: {}", error.info()));
                Err(Flaw { line: line.max(1), reason })
            }
        };
        if let Err(flaw) = done {
            let better = hint::better(text, flaw.line);
            let better = better.map(|(line, reason)| Flaw { line, reason });
            tree.flaws.push(better.unwrap_or(flaw));
            break;
        }
    }
    let documents = texts(text, tree.documents);
    (documents, tree.flaws)
}

/// A document and where it starts: line, and whether that line is a `---`.
struct Found {
    root: Option<Node>,
    start: usize,
}

#[derive(Default)]
struct Tree {
    documents: Vec<Found>,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    /// What the tree and its anchors hold so far.
    held: Weight,
    flaws: Vec<Flaw>,
    /// Line after the last document that ended with `...`.
    next_start: usize,
}

/// A list or map whose end has not been seen.
struct Open {
    line: usize,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        keys: BTreeSet<String>,
        key: Option<(String, usize)>,
        merged: Vec<Node>,
    },
}

impl Tree {
    fn accept(&mut self, event: Event<'_>, span: Span) -> Result<(), Flaw> {
        let line = span.start.line().max(1);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd => Ok(()),
            Event::DocumentStart(explicit) => {
                self.anchors.clear();
                let start = if explicit { line } else { self.next_start.max(1) };
                self.documents.push(Found { root: None, start });
                Ok(())
            }
            Event::DocumentEnd => {
                self.next_start = span.end.line() + 1;
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = is_plain(style, tag.as_deref(), line)?;
                self.add(scalar(text, plain, line), anchor)
            }
            Event::Alias(id) => self.repeat(id, line),
            Event::SequenceStart(anchor, tag) => {
                is_plain(ScalarStyle::Plain, tag.as_deref(), line)?;
                self.begin(Open { line, anchor, content: Content::List(Vec::new()) })
            }
            Event::MappingStart(anchor, tag) => {
                is_plain(ScalarStyle::Plain, tag.as_deref(), line)?;
                let content = Content::Map {
                    entries: Vec::new(),
                    keys: BTreeSet::new(),
                    key: None,
                    merged: Vec::new(),
                };
                self.begin(Open { line, anchor, content })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
        }
    }

    fn begin(&mut self, open: Open) -> Result<(), Flaw> {
        if self.open.len() == DEPTH_MAX {
            return Err(too_deep(open.line));
        }
        if let Some(Open { content: Content::Map { key: None, .. }, .. }) = self.open.last() {
            return Err(not_a_key(open.line));
        }
        self.open.push(open);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Flaw> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let value = match open.content {
            Content::List(items) => Value::List(items),
            Content::Map { mut entries, mut keys, merged, .. } => {
                merge(&mut entries, &mut keys, merged)?;
                Value::Map(entries)
            }
        };
        self.add(Node { line: open.line, value }, open.anchor)
    }

    fn repeat(&mut self, id: usize, line: usize) -> Result<(), Flaw> {
        let Some(node) = self.anchors.get(&id) else {
            let reason =
                "the alias names an anchor that is not complete before it in this document";
            return Err(Flaw { line, reason: reason.to_owned() });
        };
        if self.open.len() + depth(node) > DEPTH_MAX {
            return Err(too_deep(line));
        }
        // Before it is copied: the copy may be what there is no room for.
        self.held.add(Weight::of(node), line)?;
        let node = node.clone();
        self.place(node)
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Flaw> {
        // What is inside a list or map was counted when it was added, keys as values of their own.
        self.held.add(Weight { nodes: 1, bytes: node.text().len() }, node.line)?;
        if anchor > 0 {
            self.held.add(Weight::of(&node), node.line)?;
            self.anchors.insert(anchor, node.clone());
        }
        self.place(node)
    }

    fn place(&mut self, node: Node) -> Result<(), Flaw> {
        let Some(open) = self.open.last_mut() else {
            if let Some(document) = self.documents.last_mut() {
                document.root = (node.value != Value::Null).then_some(node);
            }
            return Ok(());
        };
        match &mut open.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, keys, key, merged } => match key.take() {
                None => *key = Some(as_key(node)?),
                Some((name, _)) if name == "<<" => merged.push(node),
                Some((name, line)) if !keys.insert(name.clone()) => {
                    self.flaws
                        .push(Flaw { line, reason: format!("the key `{name}` is given twice") });
                }
                Some((name, line)) => entries.push(Entry { key: name, line, value: node }),
            },
        }
        Ok(())
    }
}

/// `<<: *anchor`: keys that are not given here come from the anchored maps, first map first.
fn merge(
    entries: &mut Vec<Entry>,
    keys: &mut BTreeSet<String>,
    merged: Vec<Node>,
) -> Result<(), Flaw> {
    for node in merged {
        let line = node.line;
        let maps = match node.value {
            Value::List(items) => items,
            value => vec![Node { line, value }],
        };
        for map in maps {
            let Value::Map(inherited) = map.value else {
                let reason = "`<<` takes a mapping or a list of mappings".to_owned();
                return Err(Flaw { line, reason });
            };
            entries.extend(inherited.into_iter().filter(|entry| keys.insert(entry.key.clone())));
        }
    }
    Ok(())
}

/// What a tree costs to hold.
#[derive(Debug, Default, Clone, Copy)]
struct Weight {
    nodes: usize,
    bytes: usize,
}

impl Weight {
    fn of(node: &Node) -> Self {
        let mut all = Self { nodes: 1, bytes: node.text().len() };
        let keys = node.entries().iter().map(|entry| entry.key.len());
        all.bytes += keys.sum::<usize>();
        let values = node.entries().iter().map(|entry| &entry.value);
        for below in node.items().iter().chain(values).map(Self::of) {
            all.nodes += below.nodes;
            all.bytes += below.bytes;
        }
        all
    }

    /// Adds what `line` brings, if there is room.
    fn add(&mut self, more: Self, line: usize) -> Result<(), Flaw> {
        self.nodes += more.nodes;
        self.bytes += more.bytes;
        if self.nodes > NODES_MAX {
            let reason = format!("more than {NODES_MAX} values, aliases included: split the file");
            return Err(Flaw { line, reason });
        }
        if self.bytes > TEXT_BYTES_MAX {
            let reason = format!(
                "more than {TEXT_BYTES_MAX} bytes of text, anchors and aliases included: split the file"
            );
            return Err(Flaw { line, reason });
        }
        Ok(())
    }
}

/// Levels of lists and maps; aliases must not stack up to more than a file may nest.
fn depth(node: &Node) -> usize {
    let items = node.items().iter().map(depth);
    let below = items.chain(node.entries().iter().map(|entry| depth(&entry.value))).max();
    below.map_or(0, |below| below + 1)
}

fn too_deep(line: usize) -> Flaw {
    Flaw { line, reason: format!("nested deeper than {DEPTH_MAX} levels, aliases included") }
}

fn as_key(node: Node) -> Result<(String, usize), Flaw> {
    match node.value {
        Value::Scalar { text, written, .. } => {
            // A key is text in any case, and the author's: `y` is no `true`.
            Ok((written.map_or(text, String::from), node.line))
        }
        Value::Null => Ok((String::new(), node.line)),
        _ => Err(not_a_key(node.line)),
    }
}

fn not_a_key(line: usize) -> Flaw {
    Flaw { line, reason: "a key must be plain text, not a list or a mapping".to_owned() }
}

fn scalar(text: Cow<'_, str>, plain: bool, line: usize) -> Node {
    let word = if plain { Word::of(&text) } else { Word::Text };
    let value = match word.canonical() {
        _ if word == Word::Null => Value::Null,
        Some(canonical) if canonical != *text => {
            Value::Scalar { text: canonical, plain, written: Some(text.into()) }
        }
        _ => Value::Scalar { text: text.into_owned(), plain, written: None },
    };
    Node { line, value }
}

/// `!!str` makes text of anything; other core tags say what is said anyway; own tags mean nothing.
fn is_plain(style: ScalarStyle, tag: Option<&Tag>, line: usize) -> Result<bool, Flaw> {
    let plain = style == ScalarStyle::Plain;
    match tag {
        None => Ok(plain),
        Some(tag) if tag.is_yaml_core_schema() => Ok(plain && tag.suffix != "str"),
        Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => Ok(false),
        Some(tag) => {
            Err(Flaw { line, reason: format!("the tag `{tag}` means nothing here: leave it out") })
        }
    }
}

/// Cuts the file into its documents' own texts.
fn texts(text: &str, found: Vec<Found>) -> Vec<Document> {
    let lines: Vec<&str> = text.lines().collect();
    let ends: Vec<usize> = found.iter().skip(1).map(|next| next.start).collect();
    let documents = found.into_iter().enumerate().filter_map(|(i, document)| {
        let end = ends.get(i).map_or(lines.len(), |&next| next - 1);
        let own = lines.get(document.start - 1..end).unwrap_or_default();
        Some(Document { root: document.root?, text: own_text(own) })
    });
    documents.collect()
}

fn own_text(lines: &[&str]) -> String {
    let mut text = String::new();
    for (i, line) in lines.iter().enumerate() {
        let line =
            if i == 0 { line.strip_prefix("---").map_or(*line, str::trim_start) } else { line };
        if line.trim_end() != "..." && !(text.is_empty() && line.trim().is_empty()) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;
