//! Who looks at live calls: the taps that are attached, each with its filter and a bounded queue to its reader.
//!
//! While there is none, a request costs one look at a number. A worker never waits for a reader: what finds no
//! room is counted, and the reader is told how much that was. What a line says, `observers` makes; who serves
//! readers is `admin`.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use heddle_model::yaml::expression::{Attribute, Expression};
use heddle_wire::local::tap_api::{FilterError, Side, TapFilter, condition};
use tokio::sync::mpsc;

use crate::{
    direction::Direction,
    limits::{TAP_BYTES_WAITING, TAP_LINES_WAITING, TAPS},
    snapshot::Wants,
};

/// All taps of a sidecar.
#[derive(Debug, Default)]
pub struct Taps {
    /// In which directions somebody looks, as bits.
    looked: AtomicU8,
    set: ArcSwapOption<TapSet>,
    /// Held by whoever changes them: the next one's number.
    next: Mutex<u64>,
}

/// Those that are attached: one at least.
#[derive(Debug)]
pub(crate) struct TapSet {
    /// In the order they came.
    pub(crate) taps: Vec<Arc<Tap>>,
    /// Fields that one of them asks for.
    pub(crate) wants: Wants,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Tap {
    number: u64,
    /// Which calls are meant.
    pub(crate) filter: TapFilter,
    /// What the filter's expression is.
    pub(crate) expression: Option<Expression>,
    lines: mpsc::Sender<Bytes>,
    /// Bytes of lines that wait.
    waiting: AtomicUsize,
    lost: AtomicU64,
}

/// The reader's end. With it the tap ends.
#[derive(Debug)]
pub struct TapReader {
    taps: Arc<Taps>,
    tap: Arc<Tap>,
    lines: mpsc::Receiver<Bytes>,
}

/// Why no tap is attached.
#[derive(Debug, PartialEq, Eq)]
pub enum TapError {
    /// Its filter cannot be.
    Filter(FilterError),
    /// There are as many as there may be.
    TooMany,
}

fn bit(direction: Direction) -> u8 {
    match direction {
        Direction::Inbound => 1,
        Direction::Outbound => 2,
    }
}

impl Taps {
    /// Who looks at calls in this direction; `None` for nobody.
    #[inline]
    pub(crate) fn of(&self, direction: Direction) -> Option<Arc<TapSet>> {
        if self.looked.load(Ordering::Relaxed) & bit(direction) == 0 {
            return None;
        }
        self.looking()
    }

    #[cold]
    fn looking(&self) -> Option<Arc<TapSet>> {
        self.set.load_full()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.set.load().as_ref().map_or(0, |set| set.taps.len())
    }

    /// Do lines wait for a reader to take them?
    pub fn any_waits(&self) -> bool {
        let set = self.set.load();
        set.iter().flat_map(|set| &set.taps).any(|tap| tap.waiting.load(Ordering::Relaxed) > 0)
    }

    /// Attaches one more.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn attach(self: &Arc<Self>, filter: TapFilter) -> Result<TapReader, TapError> {
        let expression = filter.expression.as_deref().map(condition).transpose();
        let expression = expression.map_err(|reason| {
            TapError::Filter(FilterError { parameter: "filter".to_owned(), reason })
        })?;
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taps = self.set.load().as_ref().map_or_else(Vec::new, |set| set.taps.clone());
        if taps.len() >= TAPS {
            return Err(TapError::TooMany);
        }
        *next += 1;
        let (sender, lines) = mpsc::channel(TAP_LINES_WAITING);
        let tap = Arc::new(Tap {
            number: *next,
            filter,
            expression,
            lines: sender,
            waiting: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
        });
        taps.push(Arc::clone(&tap));
        self.put(taps);
        Ok(TapReader { taps: Arc::clone(self), tap, lines })
    }

    fn detach(&self, number: u64) {
        let _changes = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taps = self.set.load().as_ref().map_or_else(Vec::new, |set| set.taps.clone());
        taps.retain(|tap| tap.number != number);
        self.put(taps);
    }

    fn put(&self, taps: Vec<Arc<Tap>>) {
        let looks =
            |side: Side| taps.iter().any(|tap| tap.filter.side.is_none_or(|one| one == side));
        let inbound = if looks(Side::Server) { bit(Direction::Inbound) } else { 0 };
        let outbound = if looks(Side::Client) { bit(Direction::Outbound) } else { 0 };
        let wants = wants(&taps);
        self.set.store((!taps.is_empty()).then(|| Arc::new(TapSet { taps, wants })));
        self.looked.store(inbound | outbound, Ordering::Relaxed);
    }
}

fn wants(taps: &[Arc<Tap>]) -> Wants {
    let mut wants = Wants::default();
    let add = |list: &mut Vec<String>, name: &String| {
        if !name.starts_with(':') && !list.contains(name) {
            list.push(name.clone());
        }
    };
    for tap in taps {
        for name in &tap.filter.headers {
            add(&mut wants.request, name);
            add(&mut wants.response, name);
        }
        let Some(expression) = &tap.expression else { continue };
        expression.attributes(&mut |attribute| match attribute {
            Attribute::RequestHeader(name) => add(&mut wants.request, name),
            Attribute::ResponseHeader(name) => add(&mut wants.response, name),
            _ => {}
        });
    }
    wants
}

impl Tap {
    /// Is there room for a line? Where there is none, making one is not worth it.
    pub(crate) fn has_room(&self) -> bool {
        self.lines.capacity() > 0 && self.waiting.load(Ordering::Relaxed) < TAP_BYTES_WAITING
    }

    /// Hands over a line, or counts it.
    pub(crate) fn hand_over(&self, line: Bytes) {
        let bytes = line.len();
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
        if self.lines.try_send(line).is_err() {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.lose();
        }
    }

    /// A call that is meant finds no room.
    pub(crate) fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
}

impl TapReader {
    /// The next line.
    pub fn poll_line(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let line = self.lines.poll_recv(context);
        if let Poll::Ready(Some(line)) = &line {
            self.tap.waiting.fetch_sub(line.len(), Ordering::Relaxed);
        }
        line
    }

    /// How many calls found no room since this was asked last.
    pub fn lost(&self) -> u64 {
        self.tap.lost.swap(0, Ordering::Relaxed)
    }
}

impl Drop for TapReader {
    fn drop(&mut self) {
        self.taps.detach(self.tap.number);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use heddle_runtime::task::run_local;

    use super::*;

    fn filter(query: &str) -> TapFilter {
        TapFilter::parse(query).unwrap()
    }

    #[test]
    fn nobody_looks_before_somebody_does_and_after_they_left() {
        let taps = Arc::new(Taps::default());
        let seen = |direction| taps.of(direction).map_or(0, |set| set.taps.len());
        assert_eq!([seen(Direction::Inbound), seen(Direction::Outbound)], [0, 0]);
        let server = taps.attach(filter("side=server")).unwrap();
        assert_eq!([seen(Direction::Inbound), seen(Direction::Outbound)], [1, 0]);
        let both = taps.attach(filter("header=x-a&header=x-b")).unwrap();
        assert_eq!([seen(Direction::Inbound), seen(Direction::Outbound)], [2, 2]);
        assert_eq!(taps.of(Direction::Inbound).unwrap().wants.request, ["x-a", "x-b"]);
        assert!(!taps.any_waits());
        taps.of(Direction::Inbound).unwrap().taps[0].hand_over(Bytes::from_static(b"call"));
        assert!(taps.any_waits());
        drop(both);
        assert_eq!([seen(Direction::Inbound), seen(Direction::Outbound)], [1, 0]);
        assert!(taps.of(Direction::Inbound).unwrap().wants.request.is_empty());
        drop(server);
        assert_eq!([seen(Direction::Inbound), seen(Direction::Outbound)], [0, 0]);
    }

    #[test]
    fn there_are_only_so_many_at_a_time() {
        let taps = Arc::new(Taps::default());
        let mut all: Vec<_> =
            (0..TAPS).map(|_| taps.attach(TapFilter::default()).unwrap()).collect();
        assert_eq!(taps.attach(TapFilter::default()).unwrap_err(), TapError::TooMany);
        all.pop();
        assert!(taps.attach(TapFilter::default()).is_ok());
    }

    #[test]
    fn what_a_condition_looks_at_is_kept_while_it_is_attached() {
        let taps = Arc::new(Taps::default());
        let with =
            |text: &str| TapFilter { expression: Some(text.to_owned()), ..TapFilter::default() };
        let held = taps.attach(with("request.headers['x-user'] == 'a'")).unwrap();
        assert_eq!(taps.of(Direction::Inbound).unwrap().wants.request, ["x-user"]);
        drop(held);
        assert!(matches!(taps.attach(with("response.code >")), Err(TapError::Filter(_))));
        assert_eq!(taps.count(), 0);
    }

    #[test]
    fn a_reader_who_takes_nothing_loses_lines_and_holds_no_more_than_its_share() {
        run_local(async {
            let taps = Arc::new(Taps::default());
            let mut reader = taps.attach(TapFilter::default()).unwrap();
            let tap = Arc::clone(&reader.tap);
            let line = Bytes::from(vec![b'a'; TAP_BYTES_WAITING / 4]);
            for _ in 0..10 {
                if tap.has_room() { tap.hand_over(line.clone()) } else { tap.lose() }
            }
            assert_eq!(tap.waiting.load(Ordering::Relaxed), TAP_BYTES_WAITING);
            assert_eq!((reader.lost(), reader.lost()), (6, 0));
            for _ in 0..4 {
                assert!(poll_fn(|context| reader.poll_line(context)).await.is_some());
            }
            assert!(tap.has_room() && tap.waiting.load(Ordering::Relaxed) == 0);
            for _ in 0..2 * TAP_LINES_WAITING {
                tap.hand_over(Bytes::from_static(b"a"));
            }
            assert_eq!(reader.lost(), TAP_LINES_WAITING as u64);
        })
        .unwrap();
    }
}
