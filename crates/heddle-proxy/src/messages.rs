//! Messages of gRPC, counted as they pass: each is a flag, four bytes of length, and so many bytes (gRPC over HTTP/2,
//! "Length-Prefixed-Message"). However frames cut them, a message counts once its length is known; nothing is kept.

use std::{cell::Cell, time::Instant};

/// Bytes before a message.
const HEAD_BYTES: usize = 5;

/// Messages in one direction.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    count: Cell<u64>,
    /// The last bytes of the length of one whose head is not complete, and how many of its head there were.
    length: Cell<u32>,
    head: Cell<u8>,
    /// Bytes of the last one that are still to come.
    rest: Cell<u32>,
}

impl Messages {
    /// These bytes passed.
    pub(crate) fn pass(&self, mut data: &[u8]) {
        loop {
            let skipped = data.len().min(self.rest.get() as usize);
            data = &data[skipped..];
            self.rest.set(self.rest.get() - u32::try_from(skipped).unwrap_or(u32::MAX));
            let [first, rest @ ..] = data else { return };
            data = rest;
            // The flag is shifted out by the length.
            self.length.set(self.length.get() << 8 | u32::from(*first));
            self.head.set(self.head.get() + 1);
            if usize::from(self.head.get()) == HEAD_BYTES {
                self.head.set(0);
                self.rest.set(self.length.take());
                self.count.set(self.count.get() + 1);
            }
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.get()
    }
}

/// Messages of one call.
#[derive(Debug, Default)]
pub(crate) struct CallMessages {
    /// From the client.
    pub(crate) received: Messages,
    /// To it.
    pub(crate) sent: Messages,
    /// What of them is written to a series.
    told: Cell<(u64, u64)>,
    /// When that is to be done next, while the call goes on.
    pub(crate) due: Cell<Option<Instant>>,
}

impl CallMessages {
    /// Those that nobody has taken yet, from the client and to it.
    pub(crate) fn take(&self) -> (u64, u64) {
        let now = (self.received.count(), self.sent.count());
        let before = self.told.replace(now);
        (now.0 - before.0, now.1 - before.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![1];
        bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
        bytes.resize(HEAD_BYTES + length, 0xff);
        bytes
    }

    #[test]
    fn a_message_of_any_length_is_one_and_half_a_head_is_none() {
        let messages = Messages::default();
        messages.pass(&[message(0), message(3), message(70_000)].concat());
        assert_eq!(messages.count(), 3);
        messages.pass(&[0, 0xff, 0xff, 0xff]);
        assert_eq!(messages.count(), 3);
        messages.pass(&[0xff]);
        messages.pass(&[0; 1_000]);
        assert_eq!(messages.count(), 4, "one of 4 GiB is not over yet");
    }

    #[test]
    fn frames_may_cut_anywhere() {
        let bytes = [message(0), message(7), message(1), message(300), message(0)].concat();
        for size in 1..bytes.len() {
            for first in 0..size {
                let messages = Messages::default();
                let (head, rest) = bytes.split_at(first);
                messages.pass(head);
                rest.chunks(size).for_each(|piece| messages.pass(piece));
                assert_eq!(messages.count(), 5, "{first} bytes, then {size} at a time");
            }
        }
    }
}
