//! A key-value store that speaks Redis's protocol, for machines without `redis-server`, and the
//! client that `restaurants` uses with either.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use super::{args::AppArgs, counts::Counts};

/// Largest value and largest number of words in a command.
const VALUE_MAX: usize = 1 << 20;
const WORDS_MAX: usize = 64;

type Shared = Arc<Mutex<HashMap<Vec<u8>, Vec<u8>>>>;

/// Runs the store: PING, GET, SET and QUIT.
pub(super) fn run(args: &AppArgs) -> io::Result<()> {
    let counts = Counts::default();
    counts.serve(&args.counts, || {})?;
    let data = Shared::default();
    let listener = TcpListener::bind(("::", args.port))
        .or_else(|_| TcpListener::bind(("0.0.0.0", args.port)))?;
    for stream in listener.incoming().flatten() {
        // A Redis connection names no caller; in the demo there is only one.
        counts.received("restaurants");
        let data = Arc::clone(&data);
        thread::spawn(move || serve(&stream, &data));
    }
    Ok(())
}

fn serve(stream: &TcpStream, data: &Shared) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    while let Some(words) = read_command(&mut reader)? {
        let name = words.first().map(|w| w.to_ascii_uppercase()).unwrap_or_default();
        let mut data = data.lock().unwrap_or_else(PoisonError::into_inner);
        let reply = match (name.as_slice(), &words[1..]) {
            (b"PING", _) => b"+PONG\r\n".to_vec(),
            (b"GET", [key]) => match data.get(key) {
                Some(value) => bulk(value),
                None => b"$-1\r\n".to_vec(),
            },
            (b"SET", [key, value]) => {
                data.insert(key.clone(), value.clone());
                b"+OK\r\n".to_vec()
            }
            (b"QUIT", _) => return writer.write_all(b"+OK\r\n"),
            _ => b"-ERR this store knows PING, GET, SET and QUIT\r\n".to_vec(),
        };
        drop(data);
        writer.write_all(&reply)?;
    }
    Ok(())
}

fn bulk(value: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat()
}

/// An array of bulk strings; `None` at the end of the connection.
fn read_command(reader: &mut impl BufRead) -> io::Result<Option<Vec<Vec<u8>>>> {
    let Some(count) = read_number(reader, b'*')? else { return Ok(None) };
    let mut words = Vec::new();
    for _ in 0..count.min(WORDS_MAX) {
        words.push(read_bulk(reader)?.unwrap_or_default());
    }
    Ok(Some(words))
}

fn read_bulk(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let Some(length) = read_number(reader, b'$')? else { return Ok(None) };
    let mut value = vec![0; length.min(VALUE_MAX) + 2];
    reader.read_exact(&mut value)?;
    value.truncate(value.len() - 2);
    Ok(Some(value))
}

/// A line `<kind><number>`; `None` for the end of the connection and for a negative number.
fn read_number(reader: &mut impl BufRead, kind: u8) -> io::Result<Option<usize>> {
    let mut line = Vec::new();
    reader.take(64).read_until(b'\n', &mut line)?;
    let text = String::from_utf8_lossy(&line);
    match (line.first(), text.get(1..).unwrap_or("").trim().parse::<i64>()) {
        (None, _) => Ok(None),
        (Some(first), Ok(number)) if *first == kind => Ok(usize::try_from(number).ok()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not the Redis protocol")),
    }
}

/// Calls on one connection before a new one is opened, so that connections are there to be counted.
const CALLS_PER_CONNECTION: u32 = 20;

/// A client of the store.
#[derive(Debug, Default)]
pub(super) struct Client {
    connection: Option<(BufReader<TcpStream>, u32)>,
}

impl Client {
    /// Reads a key, storing `default` under it where it is absent.
    pub(super) fn get_or_set(
        &mut self,
        key: &str,
        default: &str,
        counts: &Counts,
    ) -> io::Result<String> {
        let (mut connection, calls) = match self.connection.take() {
            Some(kept) => kept,
            None => (connect(counts)?, 0),
        };
        let found = command(&mut connection, &[b"GET", key.as_bytes()])?;
        if found.is_none() {
            command(&mut connection, &[b"SET", key.as_bytes(), default.as_bytes()])?;
        }
        if calls + 1 < CALLS_PER_CONNECTION {
            self.connection = Some((connection, calls + 1));
        }
        Ok(found.unwrap_or_else(|| default.to_owned()))
    }
}

fn connect(counts: &Counts) -> io::Result<BufReader<TcpStream>> {
    let opened = TcpStream::connect(("store", 6379));
    counts.sent("store", opened.is_ok());
    let stream = opened?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    Ok(BufReader::new(stream))
}

fn command(connection: &mut BufReader<TcpStream>, words: &[&[u8]]) -> io::Result<Option<String>> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    words.iter().for_each(|word| bytes.extend(bulk(word)));
    connection.get_mut().write_all(&bytes)?;
    match connection.fill_buf()?.first() {
        Some(b'$') => Ok(read_bulk(connection)?.map(|v| String::from_utf8_lossy(&v).into_owned())),
        Some(_) => {
            let mut line = String::new();
            connection.read_line(&mut line)?;
            Ok(Some(line))
        }
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
