//! Peers that break HTTP/2 on purpose: each is closed with the right code, holds no more memory than a
//! well-behaved one, and others are served all the while.

use std::{cell::Cell, rc::Rc, time::Duration};

use heddle_runtime::{clock, task::spawn_contained};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::mesh::{End, GET, Mesh, OK, with_standing_clock};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// GET / of `reviews`, by HPACK's static table.
const REQUEST: &[u8] = b"\x82\x84\x86\x01\x07reviews";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A mesh whose one application counts what it is asked, and answers each client by HTTP/1.
fn counting() -> (Mesh, Rc<Cell<u32>>) {
    let asked = Rc::new(Cell::new(0));
    let counted = Rc::clone(&asked);
    let mesh = Mesh::new(move |mut end: End| {
        let counted = Rc::clone(&counted);
        async move {
            while let Some((head, _)) = end.message().await {
                if head.starts_with("PRI") {
                    return end.send("HTTP/1.1 505 No\r\nContent-Length: 0\r\n\r\n").await;
                }
                counted.set(counted.get() + 1);
                end.send(OK).await;
            }
        }
    });
    (mesh, asked)
}

/// Sends frames until nobody takes them any more, and gives the code of the GOAWAY that came.
async fn attack(mesh: &Mesh, frames: impl Iterator<Item = Vec<u8>> + 'static) -> Option<u32> {
    let (mut read, mut write) = tokio::io::split(mesh.call().transport);
    drop(spawn_contained("attack", async move {
        let begin = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        if write.write_all(&begin).await.is_err() {
            return;
        }
        for frame in frames {
            if write.write_all(&frame).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        std::future::pending::<()>().await;
    }));
    let mut said = Vec::new();
    let reading = async {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(n @ 1..) = read.read(&mut buffer).await {
            said.extend_from_slice(&buffer[..n]);
        }
    };
    let _in_time = clock::within(Duration::from_secs(60), reading).await;
    goaway(&said)
}

fn goaway(mut said: &[u8]) -> Option<u32> {
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = said {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let payload = rest.get(..length)?;
        if *kind == GOAWAY {
            return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        said = &rest[length..];
    }
    None
}

async fn others_are_served(mesh: &Mesh) {
    let (head, body) = mesh.call().ask(GET).await;
    assert!(head.starts_with("HTTP/1.1 200") && body == "ok", "{head}");
}

const ENHANCE_YOUR_CALM: u32 = 0xb;
const PROTOCOL_ERROR: u32 = 1;

#[test]
fn a_client_that_resets_all_it_asks_for_is_told_to_calm_down() {
    with_standing_clock(|| async {
        let (mesh, asked) = counting();
        // What nobody has looked at yet is reset in the same breath.
        let burst = |burst: u32| {
            (0..100).flat_map(move |n| {
                let stream = 2 * (100 * burst + n) + 1;
                let request = frame(HEADERS, END_HEADERS | END_STREAM, stream, REQUEST);
                [request, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
            })
        };
        let code = attack(&mesh, (0..1_000).map(move |n| burst(n).collect())).await;
        assert_eq!(code, Some(ENHANCE_YOUR_CALM));
        assert!(asked.get() < 200, "{} requests were made of it", asked.get());
        others_are_served(&mesh).await;
    });
}

#[test]
fn a_head_that_never_ends_is_no_reason_to_keep_it() {
    with_standing_clock(|| async {
        let (mesh, _) = counting();
        let piece = |n: u32| {
            frame(
                CONTINUATION,
                0,
                1,
                format!("\x00\x04x{n:03}\x7f\x00{}", "a".repeat(127)).as_bytes(),
            )
        };
        let first = frame(HEADERS, END_STREAM, 1, REQUEST);
        let code =
            attack(&mesh, std::iter::once(first).chain((0..100_000).map(move |n| piece(n % 1000))))
                .await;
        assert!(code.is_some_and(|code| code != 0), "{code:?}");
        others_are_served(&mesh).await;
    });
}

#[test]
fn a_head_that_is_small_on_the_wire_and_large_in_memory_is_refused() {
    with_standing_clock(|| async {
        let (mesh, asked) = counting();
        // One field of 4 KB into the dynamic table, then named ten thousand times.
        let large = [b"\x40\x01x\x7f\xa1\x1e".as_slice(), &[b'a'; 4000]].concat();
        let head = [REQUEST, &large, &[0xbe; 10_000]].concat();
        let frames = [frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)];
        let code = attack(&mesh, frames.into_iter()).await;
        assert_eq!(asked.get(), 0, "{code:?}");
        others_are_served(&mesh).await;
    });
}

#[test]
fn questions_whose_answers_nobody_reads_wait_with_whoever_asks() {
    with_standing_clock(|| async {
        for (kind, payload) in [(PING, &[0; 8][..]), (SETTINGS, &[0, 3, 0, 0, 0, 9])] {
            let (mesh, _) = counting();
            let (_unread, mut write) = tokio::io::split(mesh.call().transport);
            let begin = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
            write.write_all(&begin).await.unwrap();
            let flood = frame(kind, 0, 0, payload).repeat(1_000);
            let mut taken = 0;
            while taken < 100_000_000 {
                let wrote = clock::within(Duration::from_secs(5), write.write(&flood)).await;
                match wrote {
                    Some(Ok(n @ 1..)) => taken += n,
                    _ => break,
                }
            }
            assert!(taken < 10_000_000, "{taken} bytes of {kind} were taken");
            others_are_served(&mesh).await;
        }
    });
}

#[test]
fn frames_where_none_may_be_end_the_connection() {
    with_standing_clock(|| async {
        let (mesh, _) = counting();
        let cases = [
            frame(DATA, 0, 1, b"idle"),
            frame(HEADERS, END_HEADERS | END_STREAM, 2, REQUEST),
            frame(CONTINUATION, END_HEADERS, 1, REQUEST),
        ];
        for case in cases {
            let code = attack(&mesh, std::iter::once(case.clone())).await;
            assert_eq!(code, Some(PROTOCOL_ERROR), "{case:?}");
        }
        others_are_served(&mesh).await;
    });
}
