//! Rule files of the `--config` folder: what each holds, what of it is in force, what is wrong.
//!
//! A file that became invalid keeps its last good version in force. Nothing here touches the disk:
//! [`watch`] says what to look at, [`read`] looks.

mod links;
pub(crate) mod read;
pub(crate) mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use heddle_model::{
    name::DEFAULT_NAMESPACE,
    resource::Resource,
    yaml::{Parsed, Skipped},
};
use heddle_wire::local::control_api::Problem;

use self::read::FileText;
use crate::documents::parse;

/// One file.
#[derive(Debug, Clone, Default)]
pub(crate) struct RuleFile {
    /// What is in force of it.
    pub(crate) resources: Vec<Arc<Resource>>,
    /// The text `resources` come from; `None` if no version was ever good.
    pub(crate) good: Option<String>,
    /// What else is in it, that is no rule.
    pub(crate) skipped: Skipped,
    /// Why the newest version is not in force; empty if it is.
    pub(crate) problems: Vec<Problem>,
    /// The text read last, if it could be read.
    seen: Option<String>,
}

/// All files by path; the order of paths decides who holds an object.
#[derive(Debug, Clone, Default)]
pub(crate) struct RuleFiles {
    files: BTreeMap<String, Arc<RuleFile>>,
}

impl RuleFile {
    fn valid(text: String, parsed: Parsed) -> Self {
        Self {
            resources: parsed.resources.into_iter().map(Arc::new).collect(),
            skipped: parsed.skipped,
            good: Some(text.clone()),
            problems: Vec::new(),
            seen: Some(text),
        }
    }

    fn invalid(&self, seen: Option<String>, problems: Vec<Problem>) -> Self {
        Self { problems, seen, ..self.clone() }
    }
}

impl RuleFiles {
    /// The files in order of their paths.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &RuleFile)> {
        self.files.iter().map(|(path, file)| (path, &**file))
    }

    /// A file by path.
    pub(crate) fn file(&self, path: &str) -> Option<&RuleFile> {
        self.files.get(path).map(|file| &**file)
    }

    /// Puts the last good text of a file in force, as the store remembers it. A text that does not
    /// parse any more (an older version accepted it) is left out.
    pub(crate) fn recall(&mut self, path: &str, text: &str) {
        match parse(path, text, DEFAULT_NAMESPACE) {
            Ok(parsed) => {
                let file = RuleFile { seen: None, ..RuleFile::valid(text.to_owned(), parsed) };
                self.files.insert(path.to_owned(), Arc::new(file));
            }
            Err(problems) => {
                let reason = problems.into_iter().next().map(|p| p.reason).unwrap_or_default();
                tracing::warn!(path, reason, "stored version of a rule file is not valid any more");
            }
        }
    }

    /// What the files hold that is no rule.
    pub(crate) fn skipped(&self) -> Skipped {
        let mut all = Skipped::default();
        self.iter().for_each(|(_, file)| all.add(&file.skipped));
        all
    }

    /// Objects of all files.
    pub(crate) fn len(&self) -> usize {
        self.iter().map(|(_, file)| file.resources.len()).sum()
    }

    /// Takes in what a look at files brought. Returns those whose state changed.
    pub(crate) fn update(&mut self, looked: Vec<(String, FileText)>) -> BTreeSet<String> {
        let mut changed = BTreeSet::new();
        for (path, text) in looked {
            let known = self.files.get(&path);
            let before = known.map(|file| (**file).clone()).unwrap_or_default();
            let after = match text {
                FileText::Gone => {
                    if self.files.remove(&path).is_some() {
                        changed.insert(path);
                    }
                    continue;
                }
                FileText::Text(text) if known.is_some() && before.seen.as_ref() == Some(&text) => {
                    continue;
                }
                FileText::Text(text) => match parse(&path, &text, DEFAULT_NAMESPACE) {
                    Ok(parsed) => RuleFile::valid(text, parsed),
                    Err(problems) => before.invalid(Some(text), problems),
                },
                FileText::Unreadable(reason) => {
                    let file = Some(path.clone());
                    let problem = Problem { file, reason, ..Problem::default() };
                    if known.is_some()
                        && before.seen.is_none()
                        && before.problems == [problem.clone()]
                    {
                        continue;
                    }
                    before.invalid(None, vec![problem])
                }
            };
            self.files.insert(path.clone(), Arc::new(after));
            changed.insert(path);
        }
        changed
    }

    /// Takes files over as they are in `newest`, gone ones included.
    pub(crate) fn take_over(&mut self, newest: &Self, paths: &[String]) {
        for path in paths {
            match newest.files.get(path) {
                Some(file) => drop(self.files.insert(path.clone(), file.clone())),
                None => drop(self.files.remove(path)),
            }
        }
    }

    /// Keeps the version of a file that is in force, and notes why the newest one is not. That may
    /// be due to another file or a member, so its text does not count as seen: the next batch tries
    /// it again.
    pub(crate) fn reject(&mut self, path: &str, problems: &[Problem]) {
        let kept = self.files.get(path).map(|file| (**file).clone()).unwrap_or_default();
        let own: Vec<Problem> =
            problems.iter().filter(|p| p.file.as_deref() == Some(path)).cloned().collect();
        let reasons = if own.is_empty() { problems.to_vec() } else { own };
        self.files.insert(path.to_owned(), Arc::new(kept.invalid(None, reasons)));
    }

    /// Files to look at again whatever happens in the folder: those whose newest version was
    /// rejected or could not be read.
    pub(crate) fn unsettled(&self) -> impl Iterator<Item = &String> {
        let unsettled =
            self.files.iter().filter(|(_, f)| f.seen.is_none() && !f.problems.is_empty());
        unsettled.map(|(path, _)| path)
    }
}

#[cfg(test)]
mod tests;
