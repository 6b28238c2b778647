//! Answers of mirrors beside those that clients get: what of each is seen as it passes ([`Watch`]), and what
//! comes of the two ([`compare`]). Whoever answers a client only notes; the copy's own task compares, and waits
//! for the live answer if that is the later one. Of bodies nothing is kept but a hash and a length.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    hash::{DefaultHasher, Hasher},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use heddle_model::discovery::MirrorCompare;
use heddle_runtime::clock;

use crate::{
    frames::{Frame, Frames, Reset},
    limits::COMPARED_BODY_BYTES,
    metrics::Compared,
    snapshot::Cluster,
};

/// An answer of a copy within this time of the live one's, or within half of it, is as fast.
const AS_FAST: Duration = Duration::from_millis(5);

/// Who gets a copy of a request.
#[derive(Debug)]
pub(crate) struct Mirrored {
    pub(crate) to: Arc<Cluster>,
    /// What of its answer is compared.
    pub(crate) compare: MirrorCompare,
}

/// One answer, as it passes.
#[derive(Debug)]
pub(crate) struct Watch {
    what: MirrorCompare,
    begun: Instant,
    status: Cell<u16>,
    head: Cell<Option<Duration>>,
    body: RefCell<DefaultHasher>,
    bytes: Cell<u64>,
    whole: Cell<bool>,
    over: Cell<bool>,
    waker: RefCell<Vec<Waker>>,
}

/// What was seen of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    status: u16,
    /// Time to its head.
    head: Duration,
    /// Hash and length; `None` where it was not read to its end.
    body: Option<(u64, u64)>,
}

impl Watch {
    /// An answer to what is sent now.
    pub(crate) fn new(what: MirrorCompare) -> Rc<Self> {
        Rc::new(Self {
            what,
            begun: clock::now(),
            status: Cell::default(),
            head: Cell::default(),
            body: RefCell::default(),
            bytes: Cell::default(),
            whole: Cell::default(),
            over: Cell::default(),
            waker: RefCell::default(),
        })
    }

    /// Its head has come, and with it all of it, if it is `over`.
    pub(crate) fn head(&self, status: u16, over: bool) {
        self.status.set(status);
        self.head.set(Some(clock::now().saturating_duration_since(self.begun)));
        self.whole.set(over);
    }

    fn frame(&self, frame: Option<&Frame>, over: bool) {
        if let Some(Frame::Data(data)) = frame {
            let before = self.bytes.get();
            let left = usize::try_from(COMPARED_BODY_BYTES.saturating_sub(before)).unwrap_or(0);
            if self.what.body && left > 0 {
                self.body.borrow_mut().write(&data[..data.len().min(left)]);
            }
            self.bytes.set(before + data.len() as u64);
        }
        let ends = frame.is_none() || over || matches!(frame, Some(Frame::Trailers(_)));
        self.whole.set(self.whole.get() || ends);
    }

    /// Nothing more of it comes.
    pub(crate) fn over(&self) {
        self.over.set(true);
        self.waker.borrow_mut().drain(..).for_each(Waker::wake);
    }

    /// What was seen, once it is over; `None` if there was no answer.
    pub(crate) async fn seen(&self) -> Option<Seen> {
        poll_fn(|context| {
            if self.over.get() {
                return Poll::Ready(());
            }
            self.waker.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
        let body = self.whole.get().then(|| (self.body.borrow().finish(), self.bytes.get()));
        Some(Seen { status: self.status.get(), head: self.head.get()?, body })
    }
}

/// The live side of a comparison: over when it is dropped, whatever became of it.
#[derive(Debug)]
pub(crate) struct Live(pub(crate) Rc<Watch>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.over();
    }
}

/// Frames of an answer that is watched, if it is.
pub(crate) struct Watched<'a, F> {
    pub(crate) frames: &'a mut F,
    pub(crate) watch: Option<&'a Watch>,
}

impl<F: Frames> Frames for Watched<'_, F> {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, Reset>>> {
        let frame = ready!(self.frames.poll_frame(context));
        if let Some(watch) = self.watch
            && !matches!(frame, Some(Err(_)))
        {
            let seen = frame.as_ref().and_then(|frame| frame.as_ref().ok());
            watch.frame(seen, self.frames.is_over());
        }
        Poll::Ready(frame)
    }

    fn is_over(&self) -> bool {
        self.frames.is_over()
    }
}

/// What comes of two answers.
pub(crate) fn compare(
    what: MirrorCompare,
    live: Option<Seen>,
    copy: Option<Seen>,
) -> impl Iterator<Item = Compared> {
    let both = live.zip(copy);
    let status = || match both {
        Some((live, copy)) if live.status == copy.status => Compared::StatusSame,
        Some(_) => Compared::StatusDiffers,
        None => Compared::StatusMissing,
    };
    let body = || match both.and_then(|(live, copy)| live.body.zip(copy.body)) {
        Some((live, copy)) if live == copy => Compared::BodySame,
        Some(_) => Compared::BodyDiffers,
        None => Compared::BodyMissing,
    };
    let latency = || {
        let Some((live, copy)) = both else { return Compared::LatencyMissing };
        let margin = AS_FAST.max(live.head / 2);
        match () {
            () if copy.head > live.head + margin => Compared::LatencySlower,
            () if copy.head + margin < live.head => Compared::LatencyFaster,
            () => Compared::LatencySame,
        }
    };
    let all = [what.status.then(status), what.body.then(body), what.latency.then(latency)];
    all.into_iter().flatten()
}

impl Seen {
    /// Time to its head.
    pub(crate) fn latency(&self) -> Duration {
        self.head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: MirrorCompare = MirrorCompare { status: true, latency: true, body: true };

    fn seen(status: u16, millis: u64, body: Option<(u64, u64)>) -> Option<Seen> {
        Some(Seen { status, head: Duration::from_millis(millis), body })
    }

    fn of(live: Option<Seen>, copy: Option<Seen>) -> Vec<Compared> {
        compare(ALL, live, copy).collect()
    }

    #[test]
    fn two_answers_are_compared_by_what_is_asked_for() {
        use Compared as C;
        let live = seen(200, 100, Some((7, 3)));
        assert_eq!(of(live, live), [C::StatusSame, C::BodySame, C::LatencySame]);
        let other = seen(500, 151, Some((8, 3)));
        assert_eq!(of(live, other), [C::StatusDiffers, C::BodyDiffers, C::LatencySlower]);
        let cut = seen(200, 10, None);
        assert_eq!(of(live, cut), [C::StatusSame, C::BodyMissing, C::LatencyFaster]);
        assert_eq!(of(live, None), [C::StatusMissing, C::BodyMissing, C::LatencyMissing]);
        let only = MirrorCompare { status: true, ..MirrorCompare::default() };
        assert_eq!(compare(only, live, live).count(), 1);
        assert_eq!(
            of(seen(200, 1, None), seen(200, 5, None))[2],
            C::LatencySame,
            "5 ms is no news"
        );
    }
}
