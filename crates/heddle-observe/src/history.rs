//! The file in which the store is kept. What is in it is the store's business ([`crate::store::kept`]); how it is
//! written, whatever the disk does, is [`crate::kept_file`]'s.

use std::{cell::RefCell, path::PathBuf, rc::Rc};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::{
    answers::View,
    kept_file::{self, File, Layout},
    limits,
    store::{
        Store,
        kept::{Batch, Kept},
    },
};

const SLOTS: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("slots");
const PLACES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("places");
const ANSWERS: TableDefinition<'_, u16, &[u8]> = TableDefinition::new("answers");

/// What is in the file.
#[derive(Debug)]
pub(crate) struct History;

/// Opens the file at `path`, or makes it, and gives the store what is in it. `None`: nothing is kept this time, which
/// is told.
pub(crate) fn open(path: PathBuf, store: &mut Store) -> Option<File> {
    let (file, kept) = kept_file::open::<History>(path)?;
    tracing::info!(slots = kept.slots.len(), "the history goes on");
    store.restore(kept);
    Some(file)
}

/// Writes what has changed, again and again.
pub(crate) async fn keep(view: Rc<RefCell<View>>, file: File) {
    let changes = |whole| Some(view.borrow_mut().store.changes(whole));
    kept_file::keep::<History>(file, limits::HISTORY_INTERVAL, changes).await;
}

impl Layout for History {
    const WHAT: &'static str = "history";
    const FORMAT: u64 = 1;
    type Batch = Batch;
    type Kept = Kept;

    fn tables(transaction: &WriteTransaction) -> Result<(), redb::Error> {
        transaction.open_table(SLOTS)?;
        transaction.open_table(PLACES)?;
        transaction.open_table(ANSWERS)?;
        Ok(())
    }

    fn all(database: &Database) -> Result<Kept, redb::Error> {
        let transaction = database.begin_read()?;
        let mut kept = Kept::default();
        for row in transaction.open_table(SLOTS)?.iter()? {
            let (key, bytes) = row?;
            kept.slots.push((key.value(), bytes.value().to_vec()));
        }
        for row in transaction.open_table(PLACES)?.iter()? {
            let (key, bytes) = row?;
            kept.places.push((key.value(), bytes.value().to_vec()));
        }
        for row in transaction.open_table(ANSWERS)?.iter()? {
            let (key, bytes) = row?;
            kept.answers.push((key.value(), bytes.value().to_vec()));
        }
        Ok(kept)
    }

    fn write(database: &Database, batch: &Batch) -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        {
            let mut slots = transaction.open_table(SLOTS)?;
            let mut places = transaction.open_table(PLACES)?;
            let mut answers = transaction.open_table(ANSWERS)?;
            if batch.whole {
                slots.retain(|_, _| false)?;
                places.retain(|_, _| false)?;
                answers.retain(|_, _| false)?;
            }
            for (tier, there) in &batch.tiers {
                slots.retain_in((*tier, 0)..(*tier, *there.start()), |_, _| false)?;
                let newer = (*tier, there.end().saturating_add(1))..=(*tier, u64::MAX);
                slots.retain_in(newer, |_, _| false)?;
            }
            for (key, bytes) in &batch.slots {
                slots.insert(key, bytes.as_slice())?;
            }
            for (number, bytes) in &batch.places {
                places.insert(number, bytes.as_slice())?;
            }
            for (number, bytes) in &batch.answers {
                answers.insert(number, bytes.as_slice())?;
            }
            for number in &batch.forgotten {
                places.remove(number)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
