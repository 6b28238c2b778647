//! Which traces are recorded, where nobody has decided yet. The randomness is that of the request's id
//! (`x-request-id`), so that every hop that meets the id decides alike, as Envoy does.

/// How many parts of a whole are told apart: 0.01 %, as Istio says.
const PARTS: u64 = 10_000;
/// Length of an id that is a UUID.
const UUID_BYTES: usize = 36;
/// Where a UUID has its version, which Envoy writes its decision into.
pub const DECISION_AT: usize = 14;
/// What stands there for an id whose trace is recorded by chance.
pub const SAMPLED_DIGIT: u8 = b'9';

/// A share of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler(u64);

impl Sampler {
    /// So many in a hundred.
    #[must_use]
    pub fn of_percent(percent: f64) -> Self {
        Self((percent * PARTS as f64 / 100.0).round().clamp(0.0, PARTS as f64) as u64)
    }

    /// Is the trace of the request with this id recorded?
    #[must_use]
    pub fn records(self, id: &[u8]) -> bool {
        says_recorded(id) || number(id) % PARTS < self.0
    }
}

impl Sampler {
    /// The same by chance alone: `random` is of 64 random bits.
    #[must_use]
    pub fn records_one_of(self, random: u64) -> bool {
        random % PARTS < self.0
    }
}

/// Does an id say that its trace is recorded: by chance, or because a service or a client wanted it?
fn says_recorded(id: &[u8]) -> bool {
    is_uuid(id) && matches!(id[DECISION_AT], SAMPLED_DIGIT | b'a' | b'b')
}

/// A number that is random as far as the id is: of a UUID its first eight digits, as Envoy takes them.
fn number(id: &[u8]) -> u64 {
    let digits = id.get(..8).filter(|_| is_uuid(id));
    let leading = digits.and_then(|digits| str::from_utf8(digits).ok());
    let parsed = leading.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    // FNV-1a, whose low bits alone are too regular.
    let hashed = || {
        let hash = id.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        hash ^ (hash >> 32)
    };
    parsed.unwrap_or_else(hashed)
}

fn is_uuid(id: &[u8]) -> bool {
    let right = |(at, byte): (usize, &u8)| match at {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    id.len() == UUID_BYTES && id.iter().enumerate().all(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uuid(first: u32, version: char) -> String {
        format!("{first:08x}-0000-{version}000-8000-000000000000")
    }

    #[test]
    fn an_id_is_recorded_at_every_hop_or_at_none() {
        let one = Sampler::of_percent(1.0);
        assert!(one.records(uuid(99, '4').as_bytes()) && !one.records(uuid(100, '4').as_bytes()));
        assert!(one.records(uuid(10_000, '4').as_bytes()));
        let (none, all) = (Sampler::of_percent(0.0), Sampler::of_percent(100.0));
        for id in [uuid(0, '4'), uuid(u32::MAX, '4'), "no-uuid".to_owned(), String::new()] {
            assert!(!none.records(id.as_bytes()) && all.records(id.as_bytes()), "{id}");
        }
        assert_eq!(Sampler::of_percent(0.01), Sampler(1));
    }

    #[test]
    fn what_another_hop_wrote_into_an_id_holds() {
        let none = Sampler::of_percent(0.0);
        for (version, recorded) in [('4', false), ('9', true), ('a', true), ('b', true)] {
            assert_eq!(none.records(uuid(7, version).as_bytes()), recorded, "{version}");
        }
    }

    #[test]
    fn ids_that_are_no_uuids_are_recorded_by_their_share() {
        let tenth = Sampler::of_percent(10.0);
        let hit = (0..10_000).filter(|n| tenth.records(format!("req-{n}").as_bytes())).count();
        // Ten times the standard deviation (30): it is the same in every run.
        assert!((700..1300).contains(&hit), "{hit}");
    }
}
