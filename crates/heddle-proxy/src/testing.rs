//! What this crate's own tests share with others, under short names.

use std::{path::Path, rc::Rc, sync::Arc};

pub(crate) use heddle_testkit::{
    control,
    fixture::{self, proxy_config},
    folder::Folder,
    resources,
};

use crate::{
    Shared,
    accept::start_worker,
    metrics::Metrics,
    worker::{Worker, WorkerOptions},
};

/// A worker that knows no rules.
pub(crate) fn worker() -> Rc<Worker> {
    let config = proxy_config(Path::new("/nowhere"));
    let metrics = Arc::new(Metrics::new(&config));
    start_worker(Arc::new(Shared::new(config, metrics).0), 0, WorkerOptions::default())
}
