//! How slots are kept on a disk, as bytes, and the names in them. Not here: which of them are (`keeping`), and
//! where ([`crate::history`]).
//!
//! Places have numbers there; a number is given once and goes when no slot in memory names its place.

use std::{collections::HashMap, ops::RangeInclusive, rc::Rc};

use minicbor::{Decode, Encode};

use heddle_model::ServiceName;

use crate::measure::{Answer, Cell, Dimension, Protocol, Reporter, Said};

/// Names a slot: its tier, and its index there.
pub(crate) type SlotKey = (u8, u64);

/// What is to be written, all of it or nothing.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Batch {
    /// Does this say everything? What is there besides goes then.
    pub(crate) whole: bool,
    pub(crate) slots: Vec<(SlotKey, Vec<u8>)>,
    pub(crate) places: Vec<(u32, Vec<u8>)>,
    pub(crate) answers: Vec<(u16, Vec<u8>)>,
    /// Places that no slot names any more.
    pub(crate) forgotten: Vec<u32>,
    /// Of each tier the slots there are: all others go.
    pub(crate) tiers: Vec<(u8, RangeInclusive<u64>)>,
    /// Changes of rules by number, which are kept beside; those before `changes_from` go.
    pub(crate) changes: Vec<(u64, Vec<u8>)>,
    pub(crate) changes_from: u64,
}

/// What was read, in ascending order.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) slots: Vec<(SlotKey, Vec<u8>)>,
    pub(crate) places: Vec<(u32, Vec<u8>)>,
    pub(crate) answers: Vec<(u16, Vec<u8>)>,
    pub(crate) changes: Vec<(u64, Vec<u8>)>,
}

/// What places are called.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    of: HashMap<Rc<Cell>, u32>,
    next: u32,
    /// Kinds of answers that have been taken.
    pub(super) answers: usize,
}

#[derive(Debug, Decode, Encode)]
#[cbor(map)]
pub(super) struct KeptSlot {
    #[n(1)]
    pub(super) seconds: f64,
    #[n(2)]
    pub(super) rounds: u32,
    #[n(3)]
    pub(super) entries: Vec<(u32, Vec<(Dimension, f32)>)>,
}

#[derive(Debug, Decode, Encode)]
#[cbor(map)]
pub(super) struct KeptPlace {
    #[n(1)]
    by_server: bool,
    /// Namespace and name.
    #[n(2)]
    source: (String, String),
    #[n(3)]
    destination: (String, String),
    #[n(4)]
    version: String,
    #[n(5)]
    workload: String,
    #[n(6)]
    protocol: u8,
    /// Labels as the sidecar has them.
    #[n(7)]
    #[cbor(default)]
    said: Vec<(String, String)>,
}

/// By the number a protocol has on the disk.
const PROTOCOLS: [Protocol; 8] = [
    Protocol::Http,
    Protocol::Grpc,
    Protocol::Tcp,
    Protocol::Saturation,
    Protocol::Rule,
    Protocol::Refusal,
    Protocol::Counter,
    Protocol::Path,
];

impl Numbers {
    /// How many places are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    /// A place is called this; a new one is added to `places`.
    pub(super) fn number(&mut self, cell: &Rc<Cell>, places: &mut Vec<(u32, Vec<u8>)>) -> u32 {
        if let Some(number) = self.of.get(cell) {
            return *number;
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.of.insert(Rc::clone(cell), number);
        places.push((number, encoded(&kept_place(cell))));
        number
    }

    /// A place was called this.
    pub(super) fn was(&mut self, number: u32, cell: &Rc<Cell>) {
        self.next = self.next.max(number.saturating_add(1));
        self.of.insert(Rc::clone(cell), number);
    }

    /// Forgets places that nobody names: one reference is ours and one the table's of all places.
    pub(super) fn forget_unused(&mut self, forgotten: &mut Vec<u32>) {
        self.of.retain(|cell, number| {
            let used = Rc::strong_count(cell) > 2;
            if !used {
                forgotten.push(*number);
            }
            used
        });
        forgotten.sort_unstable();
    }
}

fn kept_place(cell: &Cell) -> KeptPlace {
    let named = |name: &ServiceName| (name.namespace.clone(), name.name.clone());
    let protocol = PROTOCOLS.iter().position(|one| *one == cell.protocol);
    KeptPlace {
        by_server: cell.reporter == Reporter::Server,
        source: named(&cell.source),
        destination: named(&cell.destination),
        version: cell.version.clone(),
        workload: cell.workload.clone(),
        protocol: protocol.and_then(|at| u8::try_from(at).ok()).unwrap_or(0),
        said: cell.said.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }
}

/// The place, if it makes sense.
pub(super) fn place(kept: KeptPlace) -> Option<Cell> {
    let named = |(namespace, name)| ServiceName { namespace, name };
    Some(Cell {
        reporter: if kept.by_server { Reporter::Server } else { Reporter::Client },
        source: named(kept.source),
        destination: named(kept.destination),
        version: kept.version,
        workload: kept.workload,
        protocol: *PROTOCOLS.get(usize::from(kept.protocol))?,
        said: Said::from_pairs(kept.said.iter().map(|(name, value)| (&**name, &**value))),
    })
}

/// An answer's bytes: code and flags, and of a call of gRPC its own two numbers.
pub(super) fn kept_answer(answer: &Answer) -> Vec<u8> {
    match answer.grpc {
        Some(grpc) => encoded(&(answer.code, &answer.flags, answer.http, grpc)),
        None => encoded(&(answer.code, &answer.flags)),
    }
}

/// The answer that these bytes are of.
pub(super) fn answer(bytes: &[u8]) -> Option<Answer> {
    if let Ok((code, flags)) = minicbor::decode::<(u16, String)>(bytes) {
        return Some(Answer { code, flags, http: code, grpc: None });
    }
    let (code, flags, http, grpc) = minicbor::decode::<(u16, String, u16, u8)>(bytes).ok()?;
    Some(Answer { code, flags, http, grpc: Some(grpc) })
}

/// Its bytes.
pub(super) fn encoded(value: &impl Encode<()>) -> Vec<u8> {
    // Neither our own forms nor writing to memory can fail.
    minicbor::to_vec(value).unwrap_or_default()
}
