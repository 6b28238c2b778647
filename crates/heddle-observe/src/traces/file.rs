//! The file in which traces are kept, one row for each.

use std::{cell::RefCell, path::PathBuf, rc::Rc};

use heddle_runtime::clock;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::{
    Traces,
    kept::{Batch, Rows},
};
use crate::{
    kept_file::{self, File, Layout},
    limits,
};

const TRACES: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("traces");

/// What is in the file.
#[derive(Debug)]
pub(crate) struct TraceFile;

/// Opens the file at `path`, or makes it, and gives the store what is in it. `None`: nothing is kept this time, which
/// is told.
pub(crate) fn open(path: PathBuf, traces: &mut Traces) -> Option<File> {
    let (file, kept) = kept_file::open::<TraceFile>(path)?;
    tracing::info!(traces = kept.traces.len(), "the traces go on");
    traces.keep(true);
    traces.restore(kept);
    Some(file)
}

/// Writes what has changed, again and again.
pub(crate) async fn keep(traces: Rc<RefCell<Traces>>, file: File) {
    let changes = |whole| traces.borrow_mut().changes(whole);
    kept_file::keep::<TraceFile>(file, limits::TRACES_INTERVAL, changes).await;
    // It could not begin, which was told.
    traces.borrow_mut().keep(false);
}

/// Seals what is complete, again and again.
pub(crate) async fn settle(traces: Rc<RefCell<Traces>>) {
    loop {
        clock::sleep(limits::TRACES_INTERVAL).await;
        traces.borrow_mut().settle(clock::now());
    }
}

impl Layout for TraceFile {
    const WHAT: &'static str = "traces";
    const FORMAT: u64 = 1;
    type Batch = Batch;
    type Kept = Rows;

    fn tables(transaction: &WriteTransaction) -> Result<(), redb::Error> {
        transaction.open_table(TRACES)?;
        Ok(())
    }

    fn all(database: &Database) -> Result<Rows, redb::Error> {
        let transaction = database.begin_read()?;
        let mut kept = Rows::default();
        for row in transaction.open_table(TRACES)?.iter()? {
            let (trace, bytes) = row?;
            kept.traces.push((trace.value(), bytes.value().to_vec()));
        }
        Ok(kept)
    }

    fn write(database: &Database, batch: &Batch) -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        {
            let mut traces = transaction.open_table(TRACES)?;
            if batch.whole {
                traces.retain(|_, _| false)?;
            }
            for trace in &batch.gone {
                traces.remove(trace)?;
            }
            for (trace, bytes) in &batch.put {
                traces.insert(trace, bytes.as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}
