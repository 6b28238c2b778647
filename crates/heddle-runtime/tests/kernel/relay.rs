//! splice_all moves every byte, in order, in both shapes, and tells which side broke.

use heddle_runtime::{
    net,
    splice::{BrokenEnd, splice_all},
    task,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const BULK: usize = 50 * 1024 * 1024;

/// A pattern without a period that a pipe or a page could hide.
fn byte_at(index: usize) -> u8 {
    (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7]
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener =
        net::listen_tcp("127.0.0.1:0".parse().expect("an address"), None, false).expect("listens");
    let address = listener.local_addr().expect("bound");
    let (client, server) = tokio::join!(net::connect_tcp(address, None), listener.accept());
    (client.expect("connects"), server.expect("accepts").0)
}

/// Writes `count` bytes of the pattern in uneven pieces.
async fn produce(stream: &mut TcpStream, count: usize) {
    let mut sent = 0;
    let mut piece = 1;
    while sent < count {
        let end = (sent + piece).min(count);
        let bytes: Vec<u8> = (sent..end).map(byte_at).collect();
        stream.write_all(&bytes).await.expect("writes");
        sent = end;
        piece = (piece * 3 + 1) % 100_003;
    }
}

/// Reads `count` bytes and checks each.
async fn consume(stream: &mut TcpStream, count: usize) {
    let mut buffer = vec![0; 64 * 1024];
    let mut seen = 0;
    while seen < count {
        let room = buffer.len().min(count - seen);
        let read = stream.read(&mut buffer[..room]).await.expect("reads");
        assert_ne!(read, 0, "the end came after {seen} bytes");
        for (offset, byte) in buffer[..read].iter().enumerate() {
            assert_eq!(*byte, byte_at(seen + offset), "at {}", seen + offset);
        }
        seen += read;
    }
}

/// Progress nobody asks for.
fn unheard(_bytes: u64) {}

fn local<F: Future>(future: F) -> F::Output {
    task::run_local(future).expect("a runtime")
}

#[test]
fn fifty_megabytes_arrive_intact() {
    local(async {
        let (mut client, from) = pair().await;
        let (to, mut server) = pair().await;
        let mut progressed = 0;
        let mut progress = |bytes| progressed += bytes;
        let producing = async {
            produce(&mut client, BULK).await;
            net::shutdown_write(&client).expect("shuts down");
        };
        let (moved, (), ()) = tokio::join!(
            splice_all(&from, &to, None, &mut progress),
            producing,
            consume(&mut server, BULK)
        );
        assert_eq!(moved.expect("relays"), BULK as u64);
        assert_eq!(progressed, BULK as u64);
    });
}

#[test]
fn a_limit_is_kept_to_the_byte() {
    local(async {
        let (mut client, from) = pair().await;
        let (to, mut server) = pair().await;
        let limit = BULK - 12_345;
        let mut quiet = unheard;
        let (moved, (), ()) = tokio::join!(
            splice_all(&from, &to, Some(limit as u64), &mut quiet),
            produce(&mut client, BULK),
            async {
                consume(&mut server, limit).await;
                // What is behind the limit is still in the source; the next reader gets it.
            }
        );
        assert_eq!(moved.expect("relays"), limit as u64);
        let mut rest = vec![0; BULK - limit];
        let mut from = from;
        from.read_exact(&mut rest).await.expect("reads");
        assert!(rest.iter().enumerate().all(|(offset, byte)| *byte == byte_at(limit + offset)));
        assert_eq!(net::probe(&server), net::Liveness::Idle);
    });
}

#[test]
fn a_source_that_ends_before_the_limit_is_no_error() {
    local(async {
        let (mut client, from) = pair().await;
        let (to, mut server) = pair().await;
        client.write_all(b"short").await.expect("writes");
        drop(client);
        let moved = splice_all(&from, &to, Some(100), &mut unheard).await.expect("relays");
        assert_eq!(moved, 5);
        let mut text = [0; 5];
        server.read_exact(&mut text).await.expect("reads");
        assert_eq!(&text, b"short");
        assert_eq!(splice_all(&from, &to, Some(0), &mut unheard).await.expect("nothing"), 0);
    });
}

#[test]
fn the_broken_side_is_named() {
    local(async {
        let (client, from) = pair().await;
        let (to, _server) = pair().await;
        net::reset_on_close(&client).expect("sets");
        drop(client);
        let error = splice_all(&from, &to, None, &mut unheard).await.expect_err("reset");
        assert_eq!(error.side, BrokenEnd::Read);

        let (mut client, from) = pair().await;
        let (to, server) = pair().await;
        net::reset_on_close(&server).expect("sets");
        drop(server);
        let mut quiet = unheard;
        let (error, ()) = tokio::join!(splice_all(&from, &to, None, &mut quiet), async {
            // The target's reset may take one write to be noticed.
            while client.write_all(&[7; 1000]).await.is_ok() {
                tokio::task::yield_now().await;
                if net::probe(&to) == net::Liveness::Closed {
                    client.write_all(&[7; 1000]).await.expect("the source is untouched");
                    break;
                }
            }
        });
        assert_eq!(error.expect_err("reset").side, BrokenEnd::Write);
    });
}

/// Set in the process that the next test starts.
const FEW_DESCRIPTORS: &str = "HEDDLE_TEST_FEW_DESCRIPTORS";

#[test]
fn without_a_descriptor_for_a_pipe_bytes_are_copied() {
    if std::env::var_os(FEW_DESCRIPTORS).is_some() {
        return local(relay_without_descriptors());
    }
    // The limit is the whole process's.
    let again = r#"ulimit -n 64 && exec "$0" --exact relay::without_a_descriptor_for_a_pipe_bytes_are_copied"#;
    let program = std::env::current_exe().expect("has a path");
    let mut command = std::process::Command::new("sh");
    let output = command.args(["-c", again]).arg(program).env(FEW_DESCRIPTORS, "").output();
    let output = output.expect("runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

async fn relay_without_descriptors() {
    const COUNT: usize = 1024 * 1024;
    let (mut client, from) = pair().await;
    let (to, mut server) = pair().await;
    let mut taken = Vec::new();
    let error = loop {
        match std::fs::File::open("/dev/null") {
            Ok(file) => taken.push(file),
            Err(error) => break error,
        }
    };
    assert!(net::lacks_descriptors(&error), "{error}");
    let mut progressed = 0;
    let mut progress = |bytes| progressed += bytes;
    let producing = async {
        produce(&mut client, COUNT).await;
        net::shutdown_write(&client).expect("shuts down");
    };
    let (moved, (), ()) = tokio::join!(
        splice_all(&from, &to, None, &mut progress),
        producing,
        consume(&mut server, COUNT)
    );
    assert_eq!((moved.expect("relays"), progressed), (COUNT as u64, COUNT as u64));
}
