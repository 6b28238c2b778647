//! What waits for one receiver: bounded in bytes, taken in batches that are large or old enough.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    time::Duration,
};

use heddle_runtime::clock;
use tokio::sync::Notify;

use crate::limits::{SPANS_AT_ONCE, SPANS_GATHERED, SPANS_WAITING_BYTES};

/// A receiver that nothing was sent to for so long is forgotten, and its connection closed.
const LEFT_AFTER: Duration = Duration::from_secs(120);

/// The queue of one receiver.
#[derive(Debug)]
pub(super) struct Queue<T> {
    waiting: RefCell<VecDeque<T>>,
    /// About how many bytes one has.
    weight: fn(&T) -> usize,
    bytes: Cell<usize>,
    more: Notify,
    /// A batch is under way.
    busy: Cell<bool>,
    idle: Notify,
    /// Nothing is waited for any more.
    hurried: Cell<bool>,
    hurry: Notify,
    left: Cell<bool>,
}

impl<T> Queue<T> {
    /// An empty one.
    pub(super) fn new(weight: fn(&T) -> usize) -> Self {
        Self {
            waiting: RefCell::default(),
            weight,
            bytes: Cell::default(),
            more: Notify::new(),
            busy: Cell::default(),
            idle: Notify::new(),
            hurried: Cell::default(),
            hurry: Notify::new(),
            left: Cell::default(),
        }
    }

    /// Adds one; false if there is no room.
    pub(super) fn push(&self, item: T) -> bool {
        let bytes = self.bytes.get() + (self.weight)(&item);
        if bytes > SPANS_WAITING_BYTES || self.left.get() {
            return false;
        }
        self.bytes.set(bytes);
        let mut waiting = self.waiting.borrow_mut();
        waiting.push_back(item);
        // The first begins a batch, and the last of a full one ends it.
        if waiting.len() == 1 || waiting.len() == SPANS_AT_ONCE {
            self.more.notify_one();
        }
        true
    }

    /// The next batch; `None` when nothing has come for a long time.
    pub(super) async fn batch(&self) -> Option<Vec<T>> {
        while self.waiting.borrow().is_empty() {
            if clock::within(LEFT_AFTER, self.more.notified()).await.is_none()
                && self.waiting.borrow().is_empty()
            {
                self.left.set(true);
                return None;
            }
        }
        let full = async {
            while self.waiting.borrow().len() < SPANS_AT_ONCE {
                self.more.notified().await;
            }
        };
        self.pause_unless(SPANS_GATHERED, full).await;
        let mut waiting = self.waiting.borrow_mut();
        let most = waiting.len().min(SPANS_AT_ONCE);
        let batch: Vec<_> = waiting.drain(..most).collect();
        let bytes = batch.iter().map(self.weight).sum::<usize>();
        self.bytes.set(self.bytes.get().saturating_sub(bytes));
        self.busy.set(true);
        Some(batch)
    }

    /// The batch that was taken is over.
    pub(super) fn delivered(&self) {
        self.busy.set(false);
        if self.waiting.borrow().is_empty() {
            self.idle.notify_waiters();
        }
    }

    /// Waits so long, unless there is hurry.
    pub(super) async fn pause(&self, time: Duration) {
        self.pause_unless(time, std::future::pending()).await;
    }

    async fn pause_unless(&self, time: Duration, done: impl Future<Output = ()>) {
        if self.hurried.get() {
            return;
        }
        tokio::select! {
            () = done => {}
            () = clock::sleep(time) => {}
            () = self.hurry.notified() => {}
        }
    }

    /// From now on nothing is waited for.
    pub(super) fn hurry(&self) {
        self.hurried.set(true);
        self.hurry.notify_one();
    }

    /// Waits until nothing waits and nothing is under way.
    pub(super) async fn emptied(&self) {
        while self.busy.get() || !(self.waiting.borrow().is_empty() || self.left.get()) {
            self.idle.notified().await;
        }
    }

    /// Does nobody take from it any more?
    pub(super) fn is_left(&self) -> bool {
        self.left.get()
    }
}
