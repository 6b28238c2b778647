//! The file in which the store is kept, and the changes of rules beside it. What is in it is the store's business
//! ([`crate::store::kept`]); how it is
//! written, whatever the disk does, is [`crate::kept_file`]'s.

use std::{cell::RefCell, path::PathBuf, rc::Rc};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::{
    answers::View,
    kept_file::{self, File, Layout},
    limits,
    rulebook::Rulebook,
    store::{
        Store,
        kept::{Batch, Kept},
    },
};

const SLOTS: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("slots");
const PLACES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("places");
const CHANGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("rule_changes");
const ANSWERS: TableDefinition<'_, u16, &[u8]> = TableDefinition::new("answers");

/// What is in the file.
#[derive(Debug)]
pub(crate) struct History;

/// Opens the file at `path`, or makes it, and gives the store and the rulebook what is in it. `None`: nothing is kept
/// this time, which is told.
pub(crate) fn open(path: PathBuf, store: &mut Store, rulebook: &mut Rulebook) -> Option<File> {
    let (file, mut kept) = kept_file::open::<History>(path)?;
    tracing::info!(slots = kept.slots.len(), "the history goes on");
    rulebook.restore(std::mem::take(&mut kept.changes));
    store.restore(kept);
    Some(file)
}

/// Writes what has changed, again and again.
pub(crate) async fn keep(view: Rc<RefCell<View>>, file: File) {
    let changes = |whole| {
        let view = &mut *view.borrow_mut();
        let mut batch = view.store.changes(whole);
        (batch.changes_from, batch.changes) = view.rulebook.unkept(whole);
        Some(batch)
    };
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
        transaction.open_table(CHANGES)?;
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
        for row in transaction.open_table(CHANGES)?.iter()? {
            let (key, bytes) = row?;
            kept.changes.push((key.value(), bytes.value().to_vec()));
        }
        Ok(kept)
    }

    fn write(database: &Database, batch: &Batch) -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        {
            let mut slots = transaction.open_table(SLOTS)?;
            let mut places = transaction.open_table(PLACES)?;
            let mut answers = transaction.open_table(ANSWERS)?;
            let mut changes = transaction.open_table(CHANGES)?;
            changes.retain_in(..batch.changes_from, |_, _| false)?;
            for (number, bytes) in &batch.changes {
                changes.insert(number, bytes.as_slice())?;
            }
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
