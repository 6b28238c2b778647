//! Copies of a request's body on their way to mirrors. Whoever copies never waits: a copy that is not
//! taken in time is cut, and nothing of it is kept.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::Reason;
use http::HeaderMap;

use crate::{
    compared::{Live, Watch},
    frames::{Frame, Frames, Reset},
    limits::MIRROR_BUFFER_BYTES,
};

/// Where a body is copied from, as it passes, once: what is sent again passes again and is not copied
/// again. Dropped before the end, it leaves copies that are cut.
#[derive(Debug)]
pub(crate) struct Tee {
    copies: Vec<Rc<Shared>>,
    /// Bytes that were copied.
    copied: u64,
    /// Bytes that have passed on this attempt.
    passed: u64,
    ended: bool,
    /// The answer to the request, where those of copies are compared with it.
    pub(crate) live: Option<Live>,
}

/// A copy, as it is sent on.
#[derive(Debug)]
pub(crate) struct Copied(Rc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: RefCell<VecDeque<Frame>>,
    bytes: Cell<usize>,
    end: Cell<End>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum End {
    #[default]
    Open,
    Whole,
    Cut,
}

impl Shared {
    fn push(&self, frame: Frame) {
        if self.end.get() != End::Open {
            return;
        }
        let bytes = frame.weight();
        if self.bytes.get() + bytes > MIRROR_BUFFER_BYTES {
            return self.end(End::Cut);
        }
        self.bytes.set(self.bytes.get() + bytes);
        self.waiting.borrow_mut().push_back(frame);
        self.wake();
    }

    fn end(&self, end: End) {
        if self.end.get() == End::Open {
            self.end.set(end);
            if end == End::Cut {
                self.waiting.borrow_mut().clear();
            }
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Tee {
    /// So many copies of a body; `over`: there is none.
    pub(crate) fn new(copies: usize, over: bool) -> (Self, Vec<Copied>) {
        let shared: Vec<_> = (0..copies).map(|_| Rc::<Shared>::default()).collect();
        let copied = shared.iter().map(|one| Copied(Rc::clone(one))).collect();
        let mut tee = Self { copies: shared, copied: 0, passed: 0, ended: false, live: None };
        if over {
            tee.end();
        }
        (tee, copied)
    }

    /// Who is to see the answer to the request.
    pub(crate) fn watch(&self) -> Option<Rc<Watch>> {
        self.live.as_ref().map(|live| Rc::clone(&live.0))
    }

    /// The body begins anew.
    pub(crate) fn rewind(&mut self) {
        self.passed = 0;
    }

    /// A frame passes, or the end.
    pub(crate) fn pass(&mut self, frame: Option<&Frame>) {
        match frame {
            Some(Frame::Data(data)) => self.data(data),
            Some(Frame::Trailers(fields)) => self.trailers(fields),
            None => self.end(),
        }
    }

    fn data(&mut self, data: &Bytes) {
        let begin = self.passed;
        self.passed += data.len() as u64;
        if self.passed <= self.copied {
            return;
        }
        let known = usize::try_from(self.copied.saturating_sub(begin)).unwrap_or(usize::MAX);
        let new = data.slice(known.min(data.len())..);
        self.copied = self.passed;
        for copy in &self.copies {
            copy.push(Frame::Data(new.clone()));
        }
    }

    fn trailers(&mut self, fields: &HeaderMap) {
        if !self.ended {
            for copy in &self.copies {
                copy.push(Frame::Trailers(fields.clone()));
            }
        }
        self.end();
    }

    fn end(&mut self) {
        self.ended = true;
        self.copies.iter().for_each(|copy| copy.end(End::Whole));
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        self.copies.iter().for_each(|copy| copy.end(End::Cut));
    }
}

impl Copied {
    /// Was it not taken fast enough, or did the request itself not end?
    pub(crate) fn is_cut(&self) -> bool {
        self.0.end.get() == End::Cut
    }
}

impl Frames for Copied {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, Reset>>> {
        let shared = &self.0;
        if let Some(frame) = shared.waiting.borrow_mut().pop_front() {
            shared.bytes.set(shared.bytes.get() - frame.weight());
            return Poll::Ready(Some(Ok(frame)));
        }
        match shared.end.get() {
            End::Whole => Poll::Ready(None),
            End::Cut => Poll::Ready(Some(Err(Reset(Reason::CANCEL)))),
            End::Open => {
                *shared.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_over(&self) -> bool {
        self.0.end.get() == End::Whole && self.0.waiting.borrow().is_empty()
    }

    async fn gone(&mut self) {
        poll_fn(|context| {
            if self.is_cut() {
                return Poll::Ready(());
            }
            *self.0.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Copied {
    /// Nobody takes it any more.
    fn drop(&mut self) {
        self.0.end(End::Cut);
        self.0.waiting.borrow_mut().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(text: &str) -> Frame {
        Frame::Data(Bytes::copy_from_slice(text.as_bytes()))
    }

    /// What is there of a copy, and whether it ends well.
    fn taken(copy: &mut Copied) -> (String, Option<bool>) {
        let mut context = Context::from_waker(Waker::noop());
        let mut text = String::new();
        loop {
            match copy.poll_frame(&mut context) {
                Poll::Ready(Some(Ok(Frame::Data(data)))) => {
                    text.push_str(str::from_utf8(&data).unwrap());
                }
                Poll::Ready(Some(Ok(Frame::Trailers(_)))) => text.push_str("(trailers)"),
                Poll::Ready(None) => return (text, Some(true)),
                Poll::Ready(Some(Err(_))) => return (text, Some(false)),
                Poll::Pending => return (text, None),
            }
        }
    }

    #[test]
    fn a_body_that_is_sent_twice_is_copied_once() {
        let (mut tee, mut copies) = Tee::new(1, false);
        tee.pass(Some(&data("hel")));
        tee.rewind();
        tee.pass(Some(&data("hell")));
        tee.pass(Some(&data("o")));
        tee.pass(Some(&Frame::Trailers(HeaderMap::new())));
        tee.rewind();
        tee.pass(Some(&data("hello")));
        tee.pass(None);
        assert_eq!(taken(&mut copies[0]), ("hello(trailers)".to_owned(), Some(true)));
    }

    #[test]
    fn a_copy_that_nobody_takes_is_cut_and_holds_no_more_than_its_bound() {
        let (mut tee, mut copies) = Tee::new(2, false);
        let piece = Frame::Data(vec![b'x'; MIRROR_BUFFER_BYTES / 2].into());
        for _ in 0..100 {
            tee.pass(Some(&piece));
            let (text, end) = taken(&mut copies[0]);
            assert_eq!((text.len(), end), (MIRROR_BUFFER_BYTES / 2, None), "taken in time");
        }
        assert_eq!(taken(&mut copies[1]), (String::new(), Some(false)));
    }

    #[test]
    fn a_request_that_breaks_off_leaves_no_copy_that_looks_whole() {
        let (mut tee, mut copies) = Tee::new(1, false);
        tee.pass(Some(&data("half")));
        drop(tee);
        assert_eq!(taken(&mut copies[0]), (String::new(), Some(false)));
        let (tee, mut copies) = Tee::new(1, true);
        drop(tee);
        assert_eq!(taken(&mut copies[0]), (String::new(), Some(true)));
    }
}
