//! DNS messages: reads a query as far as it must be understood, and makes our own answers.
//!
//! Queries that are forwarded travel as the bytes they came as; nothing here rewrites them.

use std::net::IpAddr;

use hickory_proto::{
    op::{Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, PTR},
    },
    serialize::binary::{BinDecodable, BinDecoder},
};

/// Time to live of our own answers, seconds.
pub(super) const TTL_SECONDS: u32 = 5;
/// A DNS header, bytes.
pub(super) const HEADER_LEN: usize = 12;
/// UDP payload we announce in EDNS: fits every path without fragments.
const EDNS_PAYLOAD: u16 = 1232;

/// A query, understood.
#[derive(Debug, Clone)]
pub(super) struct MeshQuery {
    metadata: Metadata,
    query: Query,
    edns: bool,
}

/// What bytes that came as a query are.
#[derive(Debug)]
pub(super) enum Read {
    /// One question.
    MeshQuery(Box<MeshQuery>),
    /// Not answerable, but its sender is told why.
    Reject(Vec<u8>),
    /// No query at all: a response, or too short. Answering could start a loop.
    Drop,
}

/// Reads a query.
pub(super) fn read(bytes: &[u8]) -> Read {
    let mut decoder = BinDecoder::new(bytes);
    let Ok(header) = Header::read(&mut decoder) else { return Read::Drop };
    if header.metadata.message_type != MessageType::Query {
        return Read::Drop;
    }
    let reject = |code| Read::Reject(rejection(header.metadata.id, code));
    if header.metadata.op_code != OpCode::Query {
        return reject(ResponseCode::NotImp);
    }
    if header.counts.queries != 1 {
        return reject(ResponseCode::FormErr);
    }
    let Ok(query) = Query::read(&mut decoder) else { return reject(ResponseCode::FormErr) };
    // Whatever follows the question is the upstream's to judge; we only want to know of EDNS.
    let edns = Message::from_vec(bytes).is_ok_and(|message| message.edns.is_some());
    Read::MeshQuery(Box::new(MeshQuery { metadata: header.metadata, query, edns }))
}

fn rejection(id: u16, code: ResponseCode) -> Vec<u8> {
    Message::error_msg(id, OpCode::Query, code).to_vec().unwrap_or_default()
}

impl MeshQuery {
    /// The name in lower case without a trailing dot.
    pub(super) fn host(&self) -> String {
        let mut host = self.query.name().to_ascii();
        host.make_ascii_lowercase();
        host.truncate(host.trim_end_matches('.').len());
        host
    }

    /// Is it about the Internet class? Others (`version.bind CH`) are not ours.
    pub(super) fn is_internet(&self) -> bool {
        matches!(self.query.query_class(), DNSClass::IN | DNSClass::ANY)
    }

    /// Is it about addresses, of either family?
    pub(super) fn is_about_addresses(&self) -> bool {
        matches!(self.query.query_type(), RecordType::A | RecordType::AAAA)
    }

    /// The address whose reverse name is asked about, for whatever it has.
    pub(super) fn reverse(&self) -> Option<IpAddr> {
        let network = self.query.name().parse_arpa_name().ok()?;
        (network.prefix_len() == network.max_prefix_len()).then(|| network.addr())
    }

    /// The name exists and has these addresses; another type, or a family it lacks, is an empty
    /// NOERROR answer.
    pub(super) fn addresses(&self, all: impl IntoIterator<Item = IpAddr>) -> Vec<u8> {
        let kind = self.query.query_type();
        let records = all.into_iter().map(|ip| match ip {
            IpAddr::V4(ip) => (RecordType::A, RData::A(A(ip))),
            IpAddr::V6(ip) => (RecordType::AAAA, RData::AAAA(AAAA(ip))),
        });
        let data = records.filter(|(family, _)| kind == *family || kind == RecordType::ANY);
        self.answer(ResponseCode::NoError, data.map(|(_, data)| data))
    }

    /// The name an address has; another type is an empty NOERROR answer.
    pub(super) fn pointer(&self, host: &str) -> Vec<u8> {
        let asked = matches!(self.query.query_type(), RecordType::PTR | RecordType::ANY);
        let name = asked.then(|| Name::from_ascii(format!("{host}."))).and_then(Result::ok);
        self.answer(ResponseCode::NoError, name.map(|name| RData::PTR(PTR(name))))
    }

    /// The name exists, or names below it do, and has no records.
    pub(super) fn no_data(&self) -> Vec<u8> {
        self.answer(ResponseCode::NoError, None)
    }

    /// The name does not exist.
    pub(super) fn no_such_name(&self) -> Vec<u8> {
        self.answer(ResponseCode::NXDomain, None)
    }

    /// Nobody can tell now.
    pub(super) fn server_failure(&self) -> Vec<u8> {
        self.answer(ResponseCode::ServFail, None)
    }

    fn answer(&self, code: ResponseCode, data: impl IntoIterator<Item = RData>) -> Vec<u8> {
        let mut message = Message::response(self.metadata.id, OpCode::Query);
        message.metadata = Metadata::response_from_request(&self.metadata);
        message.metadata.recursion_available = true;
        message.metadata.authoritative = code != ResponseCode::ServFail;
        message.metadata.response_code = code;
        message.add_query(self.query.clone());
        let name = self.query.name();
        message.add_answers(
            data.into_iter().map(|data| Record::from_rdata(name.clone(), TTL_SECONDS, data)),
        );
        if self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(EDNS_PAYLOAD);
            message.set_edns(edns);
        }
        // A name that was read can be written again; should it not, the client asks once more.
        message.to_vec().unwrap_or_default()
    }
}

/// Is `reply` an answer to `query`? Same question, and the response bit. Ids are compared by the caller.
///
/// Also a reply that only says that something is wrong has to repeat the question (RFC 5452 §9.1):
/// without it an id that was guessed would be enough to deny a name.
pub(super) fn answers(query: &[u8], reply: &[u8]) -> bool {
    let question = |bytes: &[u8]| {
        let mut decoder = BinDecoder::new(bytes);
        let header = Header::read(&mut decoder).ok()?;
        let query = (header.counts.queries == 1).then(|| Query::read(&mut decoder).ok());
        Some((header.metadata.message_type, query.flatten()))
    };
    match (question(query), question(reply)) {
        (Some((_, Some(asked))), Some((MessageType::Response, Some(answered)))) => {
            asked == answered
        }
        _ => false,
    }
}
