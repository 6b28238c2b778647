//! A netlink socket: one request, its acknowledgement or its dump.

use std::{
    io::{self, Read},
    os::fd::AsFd,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::message::{self, HEADER_BYTES, Message, attributes, i32_at};
use crate::sys;

/// Room for one recv: the kernel fills at most 32 KiB per part of a dump.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Receives per request: bounds a dump that does not end.
const RECEIVES_MAX: usize = 4096;
/// How long an answer may take; the kernel answers within the send.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// The kernel's own text in an acknowledgement.
const NLMSGERR_ATTR_MSG: u16 = 1;
/// Flag: the acknowledgement has attributes.
const NLM_F_ACK_TLVS: u16 = 0x200;

/// A netlink socket of the network namespace it was opened in.
#[derive(Debug)]
pub(crate) struct NetlinkSocket {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
    detail: Option<String>,
}

impl NetlinkSocket {
    /// Opens one for a netlink protocol (NETLINK_ROUTE, …).
    pub(crate) fn open(protocol: i32) -> io::Result<Self> {
        let domain = Domain::from(libc::AF_NETLINK);
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)))?;
        socket.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        sys::netlink::want_extended_acks(socket.as_fd())?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; RECEIVE_BYTES], detail: None })
    }

    /// Sends a message and waits for its acknowledgement.
    pub(crate) fn request(&mut self, message: Message) -> io::Result<()> {
        let sequence = self.next_sequence();
        self.socket.send(&message.finish(sequence))?;
        self.await_acknowledgement(sequence)
    }

    /// Sends several messages at once (a batch of which the last but one asks for an
    /// acknowledgement) and waits for the first refusal or that acknowledgement.
    pub(crate) fn batch(&mut self, messages: Vec<Message>) -> io::Result<()> {
        let mut bytes = Vec::new();
        let count = messages.len();
        let mut acknowledged = 0;
        for (index, message) in messages.into_iter().enumerate() {
            let sequence = self.next_sequence();
            if index + 2 == count {
                acknowledged = sequence;
            }
            bytes.extend_from_slice(&message.finish(sequence));
        }
        self.socket.send(&bytes)?;
        self.await_acknowledgement(acknowledged)
    }

    /// Sends a dump request and hands each answer's payload to `each`.
    pub(crate) fn dump(&mut self, message: Message, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let sequence = self.next_sequence();
        self.socket.send(&message.finish(sequence))?;
        for _ in 0..RECEIVES_MAX {
            let count = self.receive()?;
            for received in message::messages(&self.buffer[..count]) {
                if received.sequence != sequence {
                    continue;
                }
                match i32::from(received.kind) {
                    libc::NLMSG_DONE => return verdict(&received),
                    libc::NLMSG_ERROR => return verdict(&received),
                    _ => each(received.payload),
                }
            }
        }
        Err(unending())
    }

    /// The kernel's own words about the last refusal, if it had any.
    pub(crate) fn take_detail(&mut self) -> Option<String> {
        self.detail.take()
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence += 1;
        self.sequence
    }

    fn receive(&mut self) -> io::Result<usize> {
        loop {
            match (&self.socket).read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn await_acknowledgement(&mut self, sequence: u32) -> io::Result<()> {
        for _ in 0..RECEIVES_MAX {
            let count = self.receive()?;
            for received in message::messages(&self.buffer[..count]) {
                if i32::from(received.kind) != libc::NLMSG_ERROR {
                    continue;
                }
                self.detail = detail(&received);
                verdict(&received)?;
                if received.sequence == sequence {
                    return Ok(());
                }
            }
        }
        Err(unending())
    }
}

/// The errno of an acknowledgement or of a dump's end.
fn verdict(received: &message::Received<'_>) -> io::Result<()> {
    match i32_at(received.payload, 0) {
        None | Some(0) => Ok(()),
        Some(number) => Err(io::Error::from_raw_os_error(-number)),
    }
}

/// The kernel's own words in an acknowledgement.
fn detail(received: &message::Received<'_>) -> Option<String> {
    if received.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    // The errno, then the header of the refused message, then the attributes.
    let tail = received.payload.get(4 + HEADER_BYTES..)?;
    let (_, text) = attributes(tail).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)?;
    Some(String::from_utf8_lossy(text.strip_suffix(&[0]).unwrap_or(text)).into_owned())
}

fn unending() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the kernel's netlink answer does not end")
}
