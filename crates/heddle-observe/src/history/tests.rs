//! Files as they are found.

use std::path::Path;

use heddle_testkit::folder::Folder;

use super::*;
use crate::kept_file::{FileError, read};

fn batch(index: u64) -> Batch {
    Batch {
        slots: vec![((1, index), vec![1, 2, 3])],
        places: vec![(u32::try_from(index).unwrap(), vec![4])],
        answers: vec![(0, vec![5])],
        tiers: vec![(1, 0..=index)],
        ..Batch::default()
    }
}

fn opened(path: &Path) -> (Database, Kept) {
    read::<History>(path).unwrap()
}

#[test]
fn a_file_holds_what_the_last_batches_left_of_it() {
    let folder = Folder::new("history");
    let path = folder.join("kept/history.redb");
    let (database, kept) = opened(&path);
    assert!(kept.slots.is_empty());
    for index in 1..=4 {
        History::write(&database, &batch(index)).unwrap();
    }
    // A clock that was set back, and slots that are too old.
    let bounds = Batch { tiers: vec![(1, 2..=3)], forgotten: vec![1], ..Batch::default() };
    History::write(&database, &bounds).unwrap();
    drop(database);
    let (database, kept) = opened(&path);
    let keys: Vec<_> = kept.slots.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, [(1, 2), (1, 3)]);
    assert_eq!(kept.places.len(), 3);
    History::write(&database, &Batch { whole: true, ..batch(9) }).unwrap();
    drop(database);
    let kept = opened(&path).1;
    assert_eq!((kept.slots.len(), kept.places.len(), kept.answers.len()), (1, 1, 1));
}

#[test]
fn a_damaged_file_is_set_aside_and_another_begun() {
    let folder = Folder::new("history");
    let path = folder.join("history.redb");
    std::fs::write(&path, vec![b'x'; 10_000]).unwrap();
    let mut file = open(path, &mut Store::default(), &mut Rulebook::default()).unwrap();
    file.write::<History>(&batch(1)).unwrap();
    let aside = std::fs::read_dir(folder.path()).unwrap();
    let aside = aside.filter(|one| {
        let name = one.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("history.damaged-")
    });
    assert_eq!(aside.count(), 1);
}

#[test]
fn a_file_cut_or_changed_anywhere_panics_nobody() {
    let folder = Folder::new("history");
    let path = folder.join("history.redb");
    let (database, _) = opened(&path);
    (1..=50).for_each(|index| History::write(&database, &batch(index)).unwrap());
    drop(database);
    let whole = std::fs::read(&path).unwrap();
    for part in 1..40 {
        let at = whole.len() * part / 40;
        let mut changed = whole.clone();
        changed[at..].iter_mut().take(64).for_each(|byte| *byte ^= 0x5a);
        for bytes in [&changed[..], &whole[..at]] {
            std::fs::write(&path, bytes).unwrap();
            let file = open(path.clone(), &mut Store::default(), &mut Rulebook::default());
            drop(file);
            // What was set aside is not looked at again.
            std::fs::remove_file(&path).unwrap();
        }
    }
}

#[test]
fn a_file_that_another_has_open_is_left_alone() {
    let folder = Folder::new("history");
    let path = folder.join("history.redb");
    let mut first = open(path.clone(), &mut Store::default(), &mut Rulebook::default()).unwrap();
    assert!(open(path, &mut Store::default(), &mut Rulebook::default()).is_none());
    first.write::<History>(&batch(1)).unwrap();
}

#[test]
fn after_a_write_that_failed_the_file_is_opened_anew() {
    let folder = Folder::new("history");
    let path = folder.join("kept/history.redb");
    let mut file = open(path.clone(), &mut Store::default(), &mut Rulebook::default()).unwrap();
    file.write::<History>(&batch(1)).unwrap();
    file.database = None;
    let gone = folder.join("gone");
    std::fs::rename(folder.join("kept"), &gone).unwrap();
    assert!(matches!(file.write::<History>(&batch(2)), Err(FileError::Io(_))));
    std::fs::rename(gone, folder.join("kept")).unwrap();
    file.write::<History>(&Batch { whole: true, ..batch(3) }).unwrap();
    drop(file);
    let keys: Vec<_> = opened(&path).1.slots.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, [(1, 3)]);
}

#[test]
fn changes_of_rules_are_kept_as_many_as_are_remembered() {
    let folder = Folder::new("history");
    let path = folder.join("history.redb");
    let (database, _) = opened(&path);
    let change = |number: u64| (number, vec![7]);
    let changes = |from, changes: Vec<_>| Batch { changes_from: from, changes, ..Batch::default() };
    History::write(&database, &changes(0, vec![change(0), change(1)])).unwrap();
    History::write(&database, &changes(1, vec![change(2)])).unwrap();
    drop(database);
    let numbers: Vec<_> = opened(&path).1.changes.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [1, 2]);
}
