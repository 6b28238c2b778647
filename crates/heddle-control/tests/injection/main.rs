//! Whole pods and what injection makes of them: `cases/NAME.yaml` holds what is given (settings, then the pod),
//! `cases/NAME.expected.yaml` the pod that comes of it. With `HEDDLE_WRITE_EXPECTED=1` the latter are written anew.
#![expect(clippy::unwrap_used, reason = "a test says best what it expected by failing there")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use heddle_control::injection::{Decision, InjectionSettings, Surroundings, decide, inject};
use heddle_model::yaml;
use serde_json::Value;

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/injection/cases");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_given = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.ends_with(".yaml") && !name.ends_with(".expected.yaml")
    };
    let mut files: Vec<_> = files.filter(is_given).collect();
    files.sort();
    assert!(files.len() >= 8, "{files:?}");
    files
}

fn documents(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let read = yaml::documents(&path.display().to_string(), &text).unwrap();
    read.into_iter().map(|document| document.value).collect()
}

/// The version is the program's own, and changes with it.
fn without_version(pod: &Value) -> Value {
    let version = format!("\"version\":\"{}\"", env!("CARGO_PKG_VERSION"));
    let mut pod = pod.clone();
    let status = &mut pod["metadata"]["annotations"]["heddle.dev/status"];
    *status = status.as_str().unwrap().replace(&version, "\"version\":\"VERSION\"").into();
    pod
}

#[test]
fn pods_become_what_is_expected() {
    for path in cases() {
        let [settings, pod] = &documents(&path)[..] else { panic!("{}", path.display()) };
        let shown = path.display().to_string();
        let settings = InjectionSettings::from_yaml(&shown, &settings.to_string()).unwrap();
        let labels = BTreeMap::from([("istio-injection".to_owned(), "enabled".to_owned())]);
        let around =
            Surroundings { namespace: "shop", namespace_labels: Some(&labels), workload: None };
        assert_eq!(decide(around, pod, &settings), Decision::Inject, "{shown}");
        let injected = inject(around, pod, &settings).unwrap();
        assert_eq!(injected.warnings, Vec::<String>::new(), "{shown}");
        let again = inject(around, &injected.pod, &settings).unwrap();
        assert_eq!(again.pod, injected.pod, "{shown}");
        let made = without_version(&injected.pod);
        let expected = path.with_extension("expected.yaml");
        if std::env::var_os("HEDDLE_WRITE_EXPECTED").is_some() {
            fs::write(&expected, yaml::to_yaml(&made)).unwrap();
        }
        let expected = documents(&expected).remove(0);
        assert_eq!(made, expected, "{shown}\n{}", yaml::to_yaml(&made));
    }
}
