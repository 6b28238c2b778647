//! TLS that is begun: who is believed, what is shown, what is said when it fails, and the manners of the
//! connection it makes. On TCP and on a pair within the process.
#![expect(clippy::unwrap_used, reason = "a test says best what it expected by failing there")]

use std::{fs, future::Future, io, time::Duration};

use heddle_model::discovery::ClientTls;
use heddle_runtime::{
    clock,
    net::{self, Liveness},
    task::run_local,
    tls::{Asks, FILES_LOOK, Origin, TlsError, TlsFault, check},
    transport::{Transport, move_bytes},
};
use heddle_testkit::{
    folder::Folder,
    tls::{Authority, Certified, Server, asked_for, self_signed},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::server::TlsStream;

const NAME: &str = "shop.example.com";
const LIMIT: Duration = Duration::from_secs(5);

async fn tcp_pair() -> (Transport, Transport) {
    let listener = net::listen_tcp("127.0.0.1:0".parse().unwrap(), None, false).unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(net::connect_tcp(address, None), listener.accept());
    (near.unwrap().into(), far.unwrap().0.into())
}

/// An authority with its file.
struct Files {
    folder: Folder,
    authority: Authority,
}

impl Files {
    fn new() -> Self {
        let (folder, authority) = (Folder::new("tls"), Authority::new("shop"));
        fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
        Self { folder, authority }
    }

    fn path(&self, name: &str) -> Option<String> {
        Some(self.folder.join(name).to_str().unwrap().to_owned())
    }

    /// Verified by the authority, as `NAME`.
    fn simple(&self) -> ClientTls {
        let authorities = self.path("ca.pem");
        ClientTls { authorities, server_name: NAME.to_owned(), ..ClientTls::default() }
    }

    fn mutual(&self, own: &Certified) -> ClientTls {
        let _written = own.write(&self.folder, "own");
        let (certificate, private_key) = (self.path("own.pem"), self.path("own-key.pem"));
        ClientTls { mutual: true, certificate, private_key, ..self.simple() }
    }
}

async fn agree(
    (near, far): (Transport, Transport),
    tls: &Origin,
    server: &Server,
) -> (Result<Transport, TlsError>, io::Result<TlsStream<Transport>>) {
    tokio::join!(tls.begin(near, Asks::Nothing, LIMIT), server.accept(far))
}

/// Why they do not agree; `None` if they do.
fn fault(settings: ClientTls, server: &Server) -> Option<TlsError> {
    let mut found = None;
    run_local(async {
        let (near, _) = agree(Transport::pair(), &Origin::new(settings), server).await;
        found = near.err();
    })
    .unwrap();
    found
}

fn fault_of(settings: ClientTls, own: &Certified) -> Option<TlsFault> {
    fault(settings, &Server::new(own)).map(|error| error.fault)
}

/// Runs a fact on a connection of TLS over TCP and over a pair: the end that is looked at, and its server.
fn on_both<F: Future<Output = ()>>(fact: impl Fn(Transport, TlsStream<Transport>) -> F) {
    let files = Files::new();
    let server = Server::new(&files.authority.vouch(&[NAME]));
    let tls = Origin::new(files.simple());
    run_local(async {
        for ends in [Transport::pair(), tcp_pair().await] {
            let (near, far) = agree(ends, &tls, &server).await;
            fact(near.unwrap(), far.unwrap()).await;
        }
    })
    .unwrap();
}

#[test]
fn the_server_is_asked_for_by_name_and_bytes_pass_both_ways() {
    on_both(|mut near, mut far| async move {
        assert!(near.is_tls());
        assert_eq!(asked_for(&far).as_deref(), Some(NAME));
        near.write_all(b"question").await.unwrap();
        let mut seen = [0; 8];
        far.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"question");
        far.write_all(b"answer").await.unwrap();
        far.shutdown().await.unwrap();
        let mut rest = Vec::new();
        near.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"answer");
    });
}

#[test]
fn an_end_is_passed_on_and_the_other_direction_goes_on() {
    on_both(|mut near, mut far| async move {
        near.write_all(b"question").await.unwrap();
        near.shutdown_write();
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"question");
        far.write_all(b"answer").await.unwrap();
        far.flush().await.unwrap();
        let mut seen = [0; 6];
        near.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"answer");
        assert!(near.write_all(b"more").await.is_err());
    });
}

#[test]
fn what_is_left_out_at_the_end_is_no_end() {
    on_both(|mut near, far| async move {
        // The carrier ends, and nobody said that the words did.
        let (carrier, _) = far.into_inner();
        drop(carrier);
        let error = near.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(near.liveness(), Liveness::Closed);
        assert!(!near.is_quiet());
    });
}

#[test]
fn a_connection_that_is_dropped_says_that_it_ends() {
    on_both(|mut near, mut far| async move {
        near.write_all(b"all").await.unwrap();
        drop(near);
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"all");
    });
}

#[test]
fn a_look_takes_nothing_and_tells_idle_from_readable_from_closed() {
    on_both(|mut near, mut far| async move {
        // Session tickets come unasked, and are nobody's answer.
        far.flush().await.unwrap();
        assert_eq!(near.liveness(), Liveness::Idle);
        assert!(near.is_quiet());
        far.write_all(b"xy").await.unwrap();
        far.flush().await.unwrap();
        assert_eq!(near.peek().await.unwrap(), 1);
        assert_eq!(near.liveness(), Liveness::Readable);
        assert!(!near.is_quiet());
        let mut first = [0; 9];
        assert_eq!(near.peek_at(&mut first).await.unwrap(), 2);
        assert_eq!(near.read_u8().await.unwrap(), b'x');
        assert_eq!(near.read_u8().await.unwrap(), b'y');
        assert_eq!(near.liveness(), Liveness::Idle);
        far.shutdown().await.unwrap();
        assert_eq!(near.peek().await.unwrap(), 0);
        assert_eq!(near.liveness(), Liveness::Closed);
    });
}

#[test]
fn a_reset_below_is_seen_as_one() {
    on_both(|mut near, far| async move {
        let (carrier, _) = far.into_inner();
        carrier.reset();
        near.reset_by_peer().await;
        let error = near.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_reset_from_here_is_no_end_there() {
    on_both(|near, mut far| async move {
        near.reset();
        assert!(far.read_u8().await.is_err());
    });
}

#[test]
fn large_amounts_pass_both_ways_at_once_whoever_is_slow() {
    const BYTES: usize = 3 << 20;
    on_both(|mut near, mut far| async move {
        let (mut near_read, mut near_write) = near.split();
        let sent = vec![7; BYTES];
        let up = async {
            near_write.write_both(&sent[..100], &sent[100..]).await.unwrap();
            near_write.shutdown();
        };
        let down = async {
            let mut buffer = vec![0; 50_000];
            let mut seen = 0;
            while seen < BYTES {
                clock::sleep(Duration::from_micros(50)).await;
                seen += near_read.read(&mut buffer).await.unwrap();
            }
            seen
        };
        let server = async {
            let (mut read, mut write) = tokio::io::split(&mut far);
            let echo = tokio::io::copy(&mut read, &mut write);
            let copied = echo.await.unwrap();
            write.flush().await.unwrap();
            copied
        };
        let ((), seen, copied) = tokio::join!(up, down, server);
        assert_eq!((seen, copied), (BYTES, BYTES as u64));
    });
}

#[test]
fn bytes_are_moved_through_and_never_past_it() {
    const BYTES: usize = 1 << 20;
    on_both(|mut near, mut far| async move {
        let (mut plain, mut other) = Transport::pair();
        let filling = async {
            far.write_all(&vec![3; BYTES]).await.unwrap();
            far.shutdown().await.unwrap();
        };
        let moving = async {
            let ((mut from, _), (_, mut to)) = (near.split(), plain.split());
            let moved = move_bytes(&mut from, &mut to, None, &mut |_| {}).await.unwrap();
            to.shutdown();
            moved
        };
        let draining = async {
            let mut all = Vec::new();
            other.read_to_end(&mut all).await.unwrap();
            all.len()
        };
        let ((), moved, drained) = tokio::join!(filling, moving, draining);
        assert_eq!((moved, drained), (BYTES as u64, BYTES));
    });
}

#[test]
fn a_server_is_believed_by_issuer_time_and_name() {
    let files = Files::new();
    let good = files.authority.vouch(&[NAME]);
    assert_eq!(fault(files.simple(), &Server::new(&good)), None);
    assert_eq!(fault(files.simple(), &Server::old(&good)), None);
    let stranger = Authority::new("other").vouch(&[NAME]);
    assert_eq!(fault_of(files.simple(), &stranger), Some(TlsFault::UnknownIssuer));
    let late = files.authority.vouch_until(&[NAME], 2001);
    assert_eq!(fault_of(files.simple(), &late), Some(TlsFault::Expired));
    let other = files.authority.vouch(&["other.example.com"]);
    let error = fault(files.simple(), &Server::new(&other)).unwrap();
    assert_eq!(error.fault, TlsFault::NameMismatch);
    assert!(error.to_string().starts_with("TLS error: the server's certificate is for another"));
    for wrong in [&stranger, &late, &other] {
        let settings = ClientTls { authorities: None, unverified: true, ..files.simple() };
        assert_eq!(fault_of(settings, wrong), None, "unverified, any will do");
    }
    let by_system = ClientTls { authorities: None, ..files.simple() };
    let error = fault_of(by_system, &good);
    assert!(matches!(error, Some(TlsFault::UnknownIssuer | TlsFault::File)), "{error:?}");
}

#[test]
fn names_that_a_certificate_must_hold_take_the_place_of_the_one_asked_for() {
    let files = Files::new();
    let own = files.authority.vouch(&["*.example.com", "10.0.0.1", "spiffe://shop/ns/a/sa/b"]);
    let under = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let server_name = "unheard.of".to_owned();
        let settings = ClientTls { subject_alt_names: names, server_name, ..files.simple() };
        fault_of(settings, &own)
    };
    for held in
        ["a.example.com", "A.Example.com", "*.example.com", "10.0.0.1", "spiffe://shop/ns/a/sa/b"]
    {
        assert_eq!(under(&[held]), None, "{held}");
        assert_eq!(under(&["b.other", held]), None, "one is enough: {held}");
    }
    for missing in ["example.com", "a.b.example.com", "10.0.0.2", "spiffe://shop/ns/a/sa/c", "a@b"]
    {
        assert_eq!(under(&[missing]), Some(TlsFault::NameMismatch), "{missing}");
    }
    assert_eq!(under(&[]), Some(TlsFault::NameMismatch), "then it is the one asked for");
    let by_address = ClientTls { server_name: "10.0.0.1".to_owned(), ..files.simple() };
    assert_eq!(fault_of(by_address, &own), None);
}

#[test]
fn a_server_may_be_its_own_issuer_if_it_is_named_as_one() {
    let files = Files::new();
    let own = self_signed(&[NAME]);
    assert!(fault_of(files.simple(), &own).is_some());
    fs::write(files.folder.join("ca.pem"), &own.certificate).unwrap();
    assert_eq!(fault_of(files.simple(), &own), None);
    let another = self_signed(&[NAME]);
    assert!(fault_of(files.simple(), &another).is_some(), "of the same name, and another");
    let other_name = self_signed(&["other.example"]);
    fs::write(files.folder.join("ca.pem"), &other_name.certificate).unwrap();
    assert_eq!(fault_of(files.simple(), &other_name), Some(TlsFault::NameMismatch));
}

#[test]
fn a_client_shows_its_certificate_where_it_has_one() {
    let files = Files::new();
    let clients = Authority::new("clients");
    let server = Server::with(&files.authority.vouch(&[NAME]), Some(&clients), &[]);
    let settings = files.mutual(&clients.vouch(&["client"]));
    assert_eq!(check(&settings), Ok(()));
    run_local(async {
        let (near, far) = agree(Transport::pair(), &Origin::new(settings), &server).await;
        let (_near, far) = (near.unwrap(), far.unwrap());
        assert!(far.get_ref().1.peer_certificates().is_some());
        // In TLS 1.3 a server says so only behind the client's part of the handshake.
        let (near, far) = agree(Transport::pair(), &Origin::new(files.simple()), &server).await;
        assert!(far.is_err(), "it shows none");
        assert!(near.unwrap().read_u8().await.is_err());
    })
    .unwrap();
}

#[test]
fn http2_is_spoken_only_where_both_want_it() {
    let files = Files::new();
    let own = files.authority.vouch(&[NAME]);
    let tls = Origin::new(files.simple());
    run_local(async {
        for (asks, offers, http1, chosen) in [
            (Asks::Http2, &["h2", "http/1.1"][..], false, Some(&b"h2"[..])),
            (Asks::Http2, &["http/1.1"], true, Some(b"http/1.1")),
            (Asks::Http2, &[], false, None),
            (Asks::Nothing, &["h2", "http/1.1"], false, None),
        ] {
            let server = Server::with(&own, None, offers);
            let (near, far) = Transport::pair();
            let (near, far) = tokio::join!(tls.begin(near, asks, LIMIT), server.accept(far));
            let (near, far) = (near.unwrap(), far.unwrap());
            assert_eq!(near.chose_http1(), http1, "{offers:?}");
            assert_eq!(far.get_ref().1.alpn_protocol(), chosen, "{offers:?}");
        }
    })
    .unwrap();
}

#[test]
fn a_server_that_speaks_no_tls_or_nothing_at_all_is_told_apart() {
    let files = Files::new();
    let tls = Origin::new(files.simple());
    run_local(async {
        let failed = async |far: &dyn Fn(Transport)| {
            let (near, other) = Transport::pair();
            far(other);
            tls.begin(near, Asks::Nothing, Duration::from_millis(50)).await.unwrap_err()
        };
        let closed = failed(&drop).await;
        assert_eq!(closed.fault, TlsFault::Closed);
        let (near, _silent) = Transport::pair();
        let silent = tls.begin(near, Asks::Nothing, Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(silent.fault, TlsFault::Timeout);
        for answer in
            ["HTTP/1.1 400 Bad Request\r\n\r\n", "\x15\x03\x01\x00\x02\x02\x28", "SSH-2.0-x"]
        {
            let (near, mut far) = Transport::pair();
            far.write_all(answer.as_bytes()).await.unwrap();
            let error = tls.begin(near, Asks::Nothing, LIMIT).await.unwrap_err();
            let wanted =
                if answer.starts_with('\x15') { TlsFault::Alert } else { TlsFault::Protocol };
            assert_eq!(error.fault, wanted, "{error}");
        }
    })
    .unwrap();
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_its_field_and_never_shown() {
    let files = Files::new();
    let own = files.authority.vouch(&["client"]);
    let good = files.mutual(&own);
    let other = files.authority.vouch(&["client"]);
    fs::write(files.folder.join("other-key.pem"), &other.key).unwrap();
    fs::write(files.folder.join("empty"), "").unwrap();
    fs::write(files.folder.join("huge"), vec![b'x'; (1 << 20) + 1]).unwrap();
    let secret = own.key.lines().nth(1).unwrap();
    let cases = [
        (ClientTls { authorities: files.path("absent"), ..good.clone() }, "`caCertificates`"),
        (ClientTls { authorities: files.path("empty"), ..good.clone() }, "holds no certificate"),
        (ClientTls { authorities: files.path("huge"), ..good.clone() }, "more than 1048576 bytes"),
        (ClientTls { authorities: files.path("."), ..good.clone() }, "it is no file"),
        (ClientTls { certificate: files.path("absent"), ..good.clone() }, "`clientCertificate`"),
        (ClientTls { certificate: None, ..good.clone() }, "no file is named"),
        (ClientTls { certificate: files.path("own-key.pem"), ..good.clone() }, "no certificate"),
        (ClientTls { private_key: files.path("own.pem"), ..good.clone() }, "no private key"),
        (ClientTls { private_key: files.path("other-key.pem"), ..good.clone() }, "not the key of"),
    ];
    for (settings, words) in cases {
        let said = check(&settings).unwrap_err().to_string();
        assert!(said.contains(words), "{said}");
        let error = fault(settings, &Server::new(&own)).unwrap();
        assert_eq!(error.fault, TlsFault::File);
        assert_eq!(error.text, said, "at apply and at run time the same");
        assert!(!said.contains(secret));
    }
    assert_eq!(check(&good), Ok(()));
}

#[test]
fn files_are_read_again_when_they_change_and_half_a_change_breaks_nothing() {
    let files = Files::new();
    let tls = Origin::new(files.simple());
    let (first, second) = (files.authority.vouch(&[NAME]), Authority::new("next"));
    let next = second.vouch(&[NAME]);
    run_local(async {
        tokio::time::pause();
        let believes = async |own: &Certified| {
            agree(Transport::pair(), &tls, &Server::new(own)).await.0.is_ok()
        };
        assert!(believes(&first).await && !believes(&next).await);
        fs::write(files.folder.join("ca.pem"), "-----BEGIN CERTIFICATE-----\nMII").unwrap();
        clock::sleep(FILES_LOOK).await;
        assert!(believes(&first).await, "half a file");
        fs::remove_file(files.folder.join("ca.pem")).unwrap();
        clock::sleep(FILES_LOOK).await;
        assert!(believes(&first).await, "no file");
        fs::write(files.folder.join("ca.pem"), second.pem()).unwrap();
        assert!(believes(&first).await, "not looked at so soon");
        clock::sleep(FILES_LOOK).await;
        assert!(believes(&next).await && !believes(&first).await);
    })
    .unwrap();
}
