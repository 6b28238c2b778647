//! Small changes to inputs, from a seed.

/// What decoders look for: put in, it leads further than chance would.
const WORDS: [&[u8]; 28] = [
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";a=b",
    b"0\r\n\r\n",
    b"ffffffffffffffff",
    b"HTTP/1.0",
    b"HTTP/1.1",
    b"HTTP/2.0",
    b"HEAD ",
    b"CONNECT ",
    b"http://h",
    b"Content-Length: 5\r\n",
    b"Content-Length: 18446744073709551616\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"Connection: close, upgrade, te, x-a\r\n",
    b"Upgrade: h2c, x\r\n",
    b"TE: trailers\r\n",
    b"Host: a\r\n",
    b"\xff\xff\xff\xff\x0f",
    b"\x80",
    b"#?%2e",
];

/// Changed inputs without end.
#[derive(Debug)]
pub(crate) struct Changes<'c> {
    corpus: &'c [Vec<u8>],
    state: u64,
}

impl<'c> Changes<'c> {
    pub(crate) fn new(corpus: &'c [Vec<u8>], seed: u64) -> Self {
        Self { corpus, state: seed }
    }

    /// One of the corpus with one to four changes.
    pub(crate) fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.one_of_the_corpus().to_vec();
        for _ in 0..=self.below(4) {
            self.change(&mut input);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let end = (at + 1 + self.below(8)).min(input.len()).max(at);
        match self.below(7) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = self.below(256) as u8,
            2 => drop(input.drain(at..end)),
            3 => input.truncate(at),
            // The same bytes once more.
            4 => drop(input.splice(at..at, input[at..end].to_vec())),
            5 => {
                let word = WORDS[self.below(WORDS.len())];
                drop(input.splice(at..at, word.iter().copied()));
            }
            _ => {
                // The end of another one.
                let other = self.one_of_the_corpus();
                let from = self.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }

    fn one_of_the_corpus(&mut self) -> &'c [u8] {
        let corpus = self.corpus;
        &corpus[self.below(corpus.len())]
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.random() % limit as u64) as usize
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
