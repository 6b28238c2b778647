//! Which server a ClientHello asks for, and what becomes of hellos that are none.

use heddle_wire::client_hello::{CLIENT_HELLO_BYTES_MAX, Hello, HelloReader};
use proptest::prelude::*;

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).expect("short").to_be_bytes(), bytes].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [kind.to_be_bytes().to_vec(), long(data)].concat()
}

fn name_entry(kind: u8, name: &[u8]) -> Vec<u8> {
    [vec![kind], long(name)].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    extension(0, &long(&name_entry(0, name)))
}

/// The handshake message of a ClientHello with these extensions.
fn message(extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([4, 1, 2, 3, 4]);
    body.extend(long(&[0x13, 1, 0x13, 2]));
    body.extend([1, 0]);
    body.extend(long(extensions));
    let length = u32::try_from(body.len()).expect("short").to_be_bytes();
    [vec![1], length[1..].to_vec(), body].concat()
}

/// A message in records of at most `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |piece: &[u8]| [vec![22, 3, 1], long(piece)].concat();
    message.chunks(size).flat_map(record).collect()
}

fn hello(extensions: &[u8]) -> Vec<u8> {
    records(&message(extensions), 16_384)
}

/// What is said of all bytes at once; it must be said of them one by one as well.
fn look(bytes: &[u8]) -> Hello {
    let mut reader = HelloReader::default();
    let stepwise = (0..=bytes.len())
        .map(|len| reader.look(&bytes[..len]))
        .find(|hello| *hello != Hello::NeedMore)
        .unwrap_or(Hello::NeedMore);
    assert_eq!(HelloReader::default().look(bytes), stepwise);
    stepwise
}

fn named(name: &str) -> Hello {
    Hello::Named(name.to_owned())
}

#[test]
fn a_hello_names_its_server_in_any_case_and_any_number_of_records() {
    let around = [extension(43, &[2, 3, 4]), server_name(b"Shop.Example.COM."), extension(16, &[])];
    let message = message(&around.concat());
    for size in [1, 2, 3, 7, 64, 16_000] {
        assert_eq!(look(&records(&message, size)), named("shop.example.com"), "{size}");
    }
    let with_more = [records(&message, 50), b"\x17\x03\x03\x00\x05hello".to_vec()].concat();
    assert_eq!(look(&with_more), named("shop.example.com"));
}

#[test]
fn a_hello_that_asks_for_nobody_is_nameless() {
    let two = [name_entry(0, b"a.example"), name_entry(0, b"b.example")].concat();
    let other = long(&[name_entry(9, b"x"), name_entry(0, b"a.example")].concat());
    assert_eq!(look(&hello(&extension(0, &other))), named("a.example"), "another kind of name");
    let nameless = [
        vec![],
        extension(43, &[2, 3, 4]),
        server_name(b""),
        server_name(b"a b"),
        server_name(b"10.0.0.1"),
        server_name(b"::1"),
        server_name(&[b'x'; 254]),
        server_name("caf\u{e9}".as_bytes()),
        [server_name(b"a.example"), server_name(b"b.example")].concat(),
        extension(0, &long(&two)),
        extension(0, b"\x00"),
        extension(0, b"\x00\x09\x00"),
        b"\x00\x00\xff\xff".to_vec(),
    ];
    for extensions in nameless {
        assert_eq!(look(&hello(&extensions)), Hello::Nameless, "{extensions:?}");
    }
}

#[test]
fn what_is_no_hello_is_not_waited_for() {
    for bytes in [
        &b"\x15\x03\x01\x00\x02"[..],
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        // Longer than is waited for, by its own words.
        b"\x16\x03\x01\x40\x00\x01\x00\x40\x00",
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
    ] {
        assert_eq!(look(bytes), Hello::Nameless, "{bytes:?}");
    }
    let whole = hello(&server_name(b"a.example"));
    let other_behind = [&whole[..20], b"\x17\x03\x03\x00\x01x"].concat();
    assert_eq!(look(&other_behind[..20]), Hello::NeedMore);
}

#[test]
fn a_hello_is_read_up_to_the_limit_and_no_further() {
    let padded = |bytes: usize| {
        let padding = extension(21, &vec![0; bytes]);
        hello(&[padding, server_name(b"a.example")].concat())
    };
    let around = padded(0).len();
    assert_eq!(look(&padded(CLIENT_HELLO_BYTES_MAX - around)), named("a.example"));
    assert_eq!(look(&padded(CLIENT_HELLO_BYTES_MAX - around + 1)), Hello::Nameless);
    // Heads of records alone are no way around it.
    let dust = records(&message(&extension(21, &vec![0; 8_000])), 1);
    assert_eq!(HelloReader::default().look(&dust[..CLIENT_HELLO_BYTES_MAX - 1]), Hello::NeedMore);
    assert_eq!(HelloReader::default().look(&dust), Hello::Nameless);
}

proptest! {
    #[test]
    fn a_cut_or_changed_hello_is_read_the_same_in_pieces(
        at in 0..200_usize, byte in any::<u8>(), cut in 0..200_usize, size in 1..80_usize,
    ) {
        let mut bytes = records(&message(&server_name(b"a.example")), size);
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(cut.max(1));
        look(&bytes);
    }
}
