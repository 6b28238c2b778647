//! The watched folder: which saves become one generation.

use notify::event::{CreateKind, DataChange, MetadataKind, RemoveKind};

use super::*;

fn at(milliseconds: u64) -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(clock::now) + Duration::from_millis(milliseconds)
}

fn path(name: &str) -> PathBuf {
    Path::new("/rules").join(name)
}

fn files(names: &[&str]) -> Option<Batch> {
    Some(Batch::Files(names.iter().map(|name| path(name)).collect()))
}

fn event(kind: EventKind, name: &str) -> Vec<Hint> {
    let path = if name.is_empty() { PathBuf::from("/rules") } else { path(name) };
    hints(Path::new("/rules"), &Event::new(kind).add_path(path))
}

#[test]
fn files_saved_within_twenty_milliseconds_are_one_batch() {
    let mut pending = Pending::default();
    pending.note(Hint::Written(path("a.yaml")), at(0));
    assert_eq!(pending.take(at(15)), None);
    pending.note(Hint::Written(path("b.yaml")), at(19));
    assert_eq!(pending.take(at(38)), None);
    assert_eq!(pending.due(), Some(at(39)));
    assert_eq!(pending.take(at(39)), files(&["a.yaml", "b.yaml"]));
    assert_eq!((pending.take(at(99)), pending.due()), (None, None));
}

#[test]
fn a_folder_that_never_rests_is_read_all_the_same() {
    let mut pending = Pending::default();
    let mut batch = None;
    for milliseconds in (0..400).step_by(10) {
        pending.note(Hint::Written(path("a.yaml")), at(milliseconds));
        batch = pending.take(at(milliseconds));
        if batch.is_some() {
            assert_eq!(milliseconds, 200);
            break;
        }
    }
    assert_eq!(batch, files(&["a.yaml"]));
}

#[test]
fn a_half_written_file_is_not_looked_at() {
    let mut pending = Pending::default();
    pending.note(Hint::Written(path("a.yaml")), at(0));
    pending.note(Hint::Writing(path("a.yaml")), at(5));
    pending.note(Hint::Written(path("b.yaml")), at(6));
    assert_eq!(pending.take(at(26)), files(&["b.yaml"]));
    assert_eq!(pending.take(at(500)), None);
    pending.note(Hint::Everything, at(600));
    let except = BTreeSet::from([path("a.yaml")]);
    assert_eq!(pending.take(at(620)), Some(Batch::Folder { except }));
    pending.note(Hint::Written(path("a.yaml")), at(700));
    assert_eq!(pending.take(at(720)), files(&["a.yaml"]));
    pending.note(Hint::Writing(path("c.yaml")), at(800));
    assert_eq!(pending.take(at(1799)), None);
    assert_eq!(pending.due(), Some(at(1800)));
    assert_eq!(pending.take(at(1800)), files(&["c.yaml"]), "never closed: a link, say");
}

#[test]
fn files_saved_together_are_one_batch_while_another_is_being_written() {
    let mut pending = Pending::default();
    pending.note(Hint::Writing(path("long.yaml")), at(0));
    assert_eq!(pending.take(at(100)), None);
    pending.note(Hint::Written(path("a.yaml")), at(195));
    assert_eq!(pending.take(at(201)), None);
    pending.note(Hint::Written(path("b.yaml")), at(210));
    assert_eq!(pending.take(at(229)), None);
    assert_eq!(pending.take(at(230)), files(&["a.yaml", "b.yaml"]));
}

#[test]
fn a_file_replaced_by_an_editor_never_counts_as_removed() {
    let mut pending = Pending::default();
    // vim: the old file is renamed away, the new one is made and written.
    pending.note(Hint::Gone(path("a.yaml")), at(0));
    assert_eq!(pending.take(at(60)), None, "it may come back");
    pending.note(Hint::Writing(path("a.yaml")), at(70));
    pending.note(Hint::Written(path("a.yaml")), at(71));
    assert_eq!(pending.take(at(91)), files(&["a.yaml"]));
    pending.note(Hint::Gone(path("a.yaml")), at(100));
    pending.note(Hint::Written(path("b.yaml")), at(101));
    assert_eq!(pending.take(at(150)), None, "a rename is one batch");
    assert_eq!(pending.take(at(200)), files(&["a.yaml", "b.yaml"]));
}

#[test]
fn only_events_that_end_a_change_count() {
    let close = EventKind::Access(AccessKind::Close(AccessMode::Write));
    let to = EventKind::Modify(ModifyKind::Name(RenameMode::To));
    let from = EventKind::Modify(ModifyKind::Name(RenameMode::From));
    let data = EventKind::Modify(ModifyKind::Data(DataChange::Any));
    let rights = EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any));
    let open = EventKind::Access(AccessKind::Open(AccessMode::Any));
    assert_eq!(event(close, "a.yaml"), [Hint::Written(path("a.yaml"))]);
    assert_eq!(event(to, "a.yaml"), [Hint::Written(path("a.yaml"))]);
    assert_eq!(event(rights, "a.yaml"), [Hint::Touched(path("a.yaml"))]);
    assert_eq!(event(data, "a.yaml"), [Hint::Writing(path("a.yaml"))]);
    assert_eq!(
        event(EventKind::Create(CreateKind::File), "a.yaml"),
        [Hint::Writing(path("a.yaml"))]
    );
    assert_eq!(event(from, "a.yaml"), [Hint::Gone(path("a.yaml"))]);
    assert_eq!(event(EventKind::Remove(RemoveKind::File), "a.yaml"), [Hint::Gone(path("a.yaml"))]);
    assert!(event(open, "a.yaml").is_empty());
    assert!(event(close, ".a.yaml.swp").is_empty() && event(to, "a.yaml~").is_empty());
    assert_eq!(event(to, "..data"), [Hint::Everything], "a mounted ConfigMap swaps a link");
    assert_eq!(event(from, ""), [Hint::FolderGone]);
    assert_eq!(event(EventKind::Remove(RemoveKind::Folder), ""), [Hint::FolderGone]);
    assert!(event(open, "").is_empty());
}
