//! The store: what survives a restart, damage and a full disk.

use heddle_testkit::folder::Folder;

use super::*;

fn key(name: &str) -> ResourceKey {
    ResourceKey {
        kind: "VirtualService".to_owned(),
        namespace: "default".to_owned(),
        name: name.to_owned(),
    }
}

fn document(order: u64) -> AppliedDocument {
    let (file, text) = ("a.yaml".to_owned(), "kind: x\n".to_owned());
    AppliedDocument { order, file, line: 3, text, since: 1_800_000_000 }
}

fn changes() -> Vec<Change> {
    vec![
        Change::Applied(key("a"), Some(document(1))),
        Change::Vip(ServiceName::new("reviews", "default").unwrap(), Some(12)),
        Change::File("/etc/rules/a.yaml".to_owned(), Some("kind: y\n".to_owned())),
        Change::Generation(1000),
    ]
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let folder = Folder::new("store");
    let mut store = Store::open(&folder.join("deep/state")).unwrap();
    assert_eq!(*store.content(), Content::default());
    store.write(changes()).unwrap();
    store.write(vec![Change::Generation(5)]).unwrap();
    let written = store.content().clone();
    assert_eq!(written.generation, 1000, "a generation bound only rises");
    drop(store);
    let mut store = Store::open(&folder.join("deep/state")).unwrap();
    assert_eq!(*store.content(), written);
    store.write(vec![Change::Applied(key("a"), None)]).unwrap();
    drop(store);
    assert!(Store::open(&folder.join("deep/state")).unwrap().content().applied.is_empty());
}

#[test]
fn a_second_control_plane_on_one_state_folder_is_refused() {
    let folder = Folder::new("store");
    let first = Store::open(folder.path()).unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    drop(first);
}

#[test]
fn a_damaged_store_is_an_error_with_its_path() {
    let folder = Folder::new("store");
    let path = folder.join(STORE_FILE);
    let mut store = Store::open(folder.path()).unwrap();
    store.write(changes()).unwrap();
    let written = store.content().clone();
    drop(store);
    let good = std::fs::read(&path).unwrap();
    let mut damages = vec![b"not a store at all".repeat(100), good[..good.len() / 3].to_vec()];
    for offset in (0..good.len()).step_by(good.len() / 60) {
        let mut bad = good.clone();
        let end = (offset + 64).min(bad.len());
        bad[offset..end].iter_mut().for_each(|byte| *byte ^= 0x5a);
        damages.push(bad);
    }
    let mut refused = 0;
    for bad in damages {
        std::fs::write(&path, &bad).unwrap();
        match Store::open(folder.path()) {
            // Unused pages may hold anything; what is read must be right.
            Ok(store) => assert_eq!(*store.content(), written),
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains(STORE_FILE), "{error}");
            }
        }
    }
    assert!(refused >= 3, "{refused}");
}

#[test]
fn only_an_absent_file_is_a_first_start() {
    let folder = Folder::new("store");
    let path = folder.join(STORE_FILE);
    std::fs::write(&path, b"").unwrap();
    let error = Store::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("control.redb is damaged (it is empty"), "{error}");
    assert!(error.contains("move it away"), "{error}");
    std::fs::remove_file(&path).unwrap();
    // Somebody else's database.
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let table: TableDefinition<'_, &str, &str> = TableDefinition::new("others");
    transaction.open_table(table).unwrap().insert("a", "b").unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = Store::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("not one of Heddle's"), "{error}");
    std::fs::remove_file(&path).unwrap();
    drop(Store::open(folder.path()).unwrap());
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(names.len(), 1, "what it was made as is gone: {names:?}");
}

#[test]
fn a_newer_format_is_refused() {
    let folder = Folder::new("store");
    let mut store = Store::open(folder.path()).unwrap();
    store.write(changes()).unwrap();
    let database = store.database.take().unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert("format", 2).unwrap();
    transaction.commit().unwrap();
    drop(database);
    drop(store);
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 2, .. }), "{error}");
}

#[test]
fn a_write_that_fails_changes_nothing_and_the_next_one_heals() {
    let folder = Folder::new("store");
    let state = folder.join("state");
    let mut store = Store::open(&state).unwrap();
    store.write(changes()).unwrap();
    let before = store.content().clone();
    // The engine is gone and cannot be opened again: a folder stands where the file was.
    store.database = None;
    std::fs::remove_file(state.join(STORE_FILE)).unwrap();
    std::fs::create_dir(state.join(STORE_FILE)).unwrap();
    let error = store.write(vec![Change::Applied(key("b"), Some(document(2)))]).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    assert_eq!(*store.content(), before);
    std::fs::remove_dir(state.join(STORE_FILE)).unwrap();
    store.write(vec![Change::Applied(key("c"), Some(document(3)))]).unwrap();
    drop(store);
    let store = Store::open(&state).unwrap();
    let names: Vec<&str> = store.content().applied.keys().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["a", "c"], "everything in force is written again");
    assert_eq!(store.content().vips, before.vips);
}
