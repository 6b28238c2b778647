//! Which file of a crate imports which: paths resolved to the file that defines the name, through
//! `use` and re-exports. Methods and trait implementations are not seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::tidy::{
    imports::{Module, Segments, modules},
    sources::rust_files,
};

/// Steps through bindings before a path counts as leading nowhere.
const STEPS_MAX: usize = 16;

/// A crate's product files and the arrows between them.
#[derive(Debug)]
pub(super) struct House {
    /// In order of name.
    pub(super) files: Vec<File>,
    /// In order of the files.
    pub(super) arrows: Vec<Arrow>,
}

/// One file.
#[derive(Debug)]
pub(super) struct File {
    /// Its path below `src`.
    pub(super) name: String,
    /// Its module path; empty for the root.
    pub(super) module: Segments,
}

/// One file takes names from another.
#[derive(Debug)]
pub(super) struct Arrow {
    /// Index of the file that imports.
    pub(super) from: usize,
    /// Index of the file that defines.
    pub(super) to: usize,
    /// What it takes.
    pub(super) names: BTreeSet<String>,
}

impl House {
    /// Reads the crate whose sources are in this folder.
    pub(super) fn read(src: &Path) -> Result<Self, String> {
        let mut files = Vec::new();
        for path in rust_files(src)? {
            let text =
                std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            files.push((path.strip_prefix(src).unwrap_or(&path).to_owned(), text));
        }
        Ok(Self::of(files.into_iter()))
    }

    /// The house of these files, named by their path below `src`.
    pub(super) fn of(sources: impl Iterator<Item = (PathBuf, String)>) -> Self {
        let mut sources: Vec<_> =
            sources.map(|(path, text)| (module_path(&path), path, text)).collect();
        sources.sort();
        let mut names = Names::default();
        let mut files = Vec::new();
        // A parent comes before its children, so what it keeps for tests is known by then.
        for (module, path, text) in sources {
            let declared = module.split_last().is_none_or(|(last, parent)| {
                names.modules.get(parent).is_some_and(|(m, _)| m.children.contains(last))
            });
            if !declared {
                continue;
            }
            for found in modules(&module, &text) {
                names.modules.insert(found.path.clone(), (found, files.len()));
            }
            files.push(File { name: path.to_string_lossy().into_owned(), module });
        }
        let arrows = names.arrows();
        Self { files, arrows }
    }

    /// Files that reach each other: each circle once, in order of its first file.
    pub(super) fn circles(&self) -> Vec<Vec<usize>> {
        let reach: Vec<BTreeSet<usize>> =
            (0..self.files.len()).map(|file| self.reached(file)).collect();
        let mut circles: BTreeSet<Vec<usize>> = BTreeSet::new();
        for (file, reached) in reach.iter().enumerate() {
            let circle: Vec<usize> =
                reached.iter().copied().filter(|other| reach[*other].contains(&file)).collect();
            if circle.contains(&file) {
                circles.insert(circle);
            }
        }
        circles.into_iter().collect()
    }

    fn reached(&self, file: usize) -> BTreeSet<usize> {
        let mut reached = BTreeSet::new();
        let mut open = vec![file];
        while let Some(from) = open.pop() {
            let next = self.arrows.iter().filter(|arrow| arrow.from == from).map(|arrow| arrow.to);
            open.extend(next.filter(|to| reached.insert(*to)));
        }
        reached
    }
}

/// `a/b.rs` is `[a, b]`; the root is empty.
fn module_path(path: &Path) -> Segments {
    let parts = path.with_extension("");
    let parts: Segments = parts.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts == ["lib"] || parts == ["main"] { Segments::new() } else { parts }
}

/// The crate's modules by path, each with the file it is in.
#[derive(Debug, Default)]
struct Names {
    modules: BTreeMap<Segments, (Module, usize)>,
}

impl Names {
    fn arrows(&self) -> Vec<Arrow> {
        let mut found: BTreeMap<(usize, usize), BTreeSet<String>> = BTreeMap::new();
        for (module, from) in self.modules.values() {
            for path in &module.paths {
                let Some((to, name)) = self.resolve(&module.path, path, STEPS_MAX) else {
                    continue;
                };
                if to != *from {
                    found.entry((*from, to)).or_default().insert(name);
                }
            }
        }
        found.into_iter().map(|((from, to), names)| Arrow { from, to, names }).collect()
    }

    /// The file that a path written in `module` leads to, and the name it takes there. `None` for
    /// other crates' names and for what is no path to an item.
    fn resolve(&self, module: &[String], path: &[String], steps: usize) -> Option<(usize, String)> {
        let steps = steps.checked_sub(1)?;
        let mut at = module;
        let mut rest = path;
        let mut ours = false;
        while let [first, after @ ..] = rest {
            match first.as_str() {
                "crate" => at = &[],
                "self" => {}
                "super" => at = at.split_last()?.1,
                _ => break,
            }
            ours = true;
            rest = after;
        }
        self.walk(at, rest, ours, steps)
    }

    fn walk(
        &self,
        at: &[String],
        rest: &[String],
        ours: bool,
        steps: usize,
    ) -> Option<(usize, String)> {
        let (module, file) = self.modules.get(at)?;
        let Some((first, after)) = rest.split_first() else {
            return Some((*file, at.last().cloned().unwrap_or_else(|| "crate".to_owned())));
        };
        let child = [at, std::slice::from_ref(first)].concat();
        if self.modules.contains_key(&child) {
            return self.walk(&child, after, true, steps);
        }
        if let Some(bound) = module.bindings.get(first) {
            let onwards = [bound.as_slice(), after].concat();
            // `use x::Name` in a crate that has no module `x` is another crate's.
            return self.resolve(at, &onwards, steps);
        }
        if module.items.contains(first) {
            return Some((*file, first.clone()));
        }
        let through = |glob: &Segments| {
            let onwards = [glob.as_slice(), rest].concat();
            self.resolve(at, &onwards, steps).filter(|(to, _)| to != file)
        };
        module.globs.iter().find_map(through).or_else(|| ours.then(|| (*file, first.clone())))
    }
}
