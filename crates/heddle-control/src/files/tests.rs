//! Rule files: what is read, and whose objects they hold.

use super::*;

const GOOD: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
spec:
  hosts: [reviews]
  http:
  - route:
    - destination:
        host: reviews
";

fn text(text: &str) -> FileText {
    FileText::Text(text.to_owned())
}

fn look(files: &mut RuleFiles, path: &str, found: FileText) -> bool {
    !files.update(vec![(path.to_owned(), found)]).is_empty()
}

#[test]
fn an_invalid_edit_leaves_the_last_good_version_in_force() {
    let mut files = RuleFiles::default();
    assert!(look(&mut files, "/r/a.yaml", text(GOOD)));
    assert!(!look(&mut files, "/r/a.yaml", text(GOOD)), "nothing new");
    assert!(look(&mut files, "/r/a.yaml", text(&GOOD.replace("hosts:", "hots:"))));
    let file = files.file("/r/a.yaml").unwrap();
    assert_eq!((file.resources.len(), file.good.as_deref()), (1, Some(GOOD)));
    let problem = &file.problems[0];
    assert_eq!(problem.file.as_deref(), Some("/r/a.yaml"));
    assert!(problem.line.is_some() && problem.field.is_some(), "{problem:?}");
    let denied = FileText::Unreadable("the file cannot be read: denied".to_owned());
    assert!(look(&mut files, "/r/a.yaml", denied.clone()));
    assert!(!look(&mut files, "/r/a.yaml", denied), "told once");
    assert_eq!(files.file("/r/a.yaml").unwrap().resources.len(), 1);
    assert!(look(&mut files, "/r/a.yaml", text(GOOD)));
    assert!(files.file("/r/a.yaml").unwrap().problems.is_empty());
    assert!(look(&mut files, "/r/a.yaml", FileText::Gone));
    assert!(files.file("/r/a.yaml").is_none());
    assert!(!look(&mut files, "/r/a.yaml", FileText::Gone));
}

#[test]
fn a_file_invalid_from_the_start_has_its_stored_version_in_force() {
    let mut files = RuleFiles::default();
    files.recall("/r/a.yaml", GOOD);
    files.recall("/r/b.yaml", "not valid any more");
    assert!(files.file("/r/b.yaml").is_none());
    assert!(look(&mut files, "/r/a.yaml", text("kind: Nothing")));
    let file = files.file("/r/a.yaml").unwrap();
    assert_eq!((file.resources.len(), file.problems.len()), (1, 1));
    assert!(look(&mut files, "/r/new.yaml", text("kind: Nothing")));
    assert!(files.file("/r/new.yaml").unwrap().resources.is_empty());
}

#[test]
fn a_rejected_version_gives_way_to_the_one_before() {
    let mut files = RuleFiles::default();
    look(&mut files, "/r/a.yaml", text(GOOD));
    let mut newest = files.clone();
    newest.update(vec![
        ("/r/a.yaml".to_owned(), text(&GOOD.replace("name: reviews", "name: other"))),
        ("/r/b.yaml".to_owned(), text(&GOOD.replace("name: reviews", "name: third"))),
    ]);
    let problem = Problem { file: Some("/r/c.yaml".to_owned()), ..Problem::default() };
    files.reject("/r/a.yaml", &[problem]);
    files.take_over(&newest, &["/r/b.yaml".to_owned(), "/r/none.yaml".to_owned()]);
    let file = files.file("/r/a.yaml").unwrap();
    assert_eq!(file.resources[0].key.name, "reviews");
    assert_eq!(file.problems.len(), 1);
    assert_eq!(files.file("/r/b.yaml").unwrap().resources[0].key.name, "third");
    assert_eq!(files.unsettled().collect::<Vec<_>>(), ["/r/a.yaml"]);
    let again = text(&GOOD.replace("name: reviews", "name: other"));
    assert!(look(&mut files, "/r/a.yaml", again), "its text counts as new until it is accepted");
}
