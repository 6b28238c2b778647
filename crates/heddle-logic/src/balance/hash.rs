//! Which endpoint a key belongs to, such that most keys stay where they are when endpoints come and go.
//!
//! All sidecars place keys alike, as they know endpoints by the same names. A table is built when the
//! endpoints change, never by a request; whose key falls on somebody who takes no requests walks on from
//! there, and so do all of that one's keys, each to its own next.

use heddle_model::discovery::HashTable;

/// Points of all endpoints of a ring together, at most, unless a rule asks for more.
pub const RING_POINTS: usize = 1 << 16;
/// The same whatever a rule asks for: 10 bytes each.
pub const RING_POINTS_MAX: usize = 1 << 20;
/// Most endpoints in a table.
pub const HASHED_ENDPOINTS_MAX: usize = 1 << 16;

/// Somebody whom keys may belong to.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// By this it is known everywhere.
    pub name: &'a [u8],
    /// Its share of keys among the others; at least 1.
    pub weight: u32,
}

/// Endpoints with the keys that belong to them.
#[derive(Debug, Clone)]
pub struct Table(Kind);

#[derive(Debug, Clone)]
enum Kind {
    /// Points in order, and beside each whose it is.
    Ring { points: Box<[u64]>, owners: Box<[u16]> },
    /// Whose an entry is.
    Maglev(Box<[u16]>),
}

/// A number of 64 bits for a key, evenly spread and the same everywhere: FNV-1a, mixed.
#[must_use]
pub fn hash(key: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    mix(key.iter().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// The finalizer of splitmix64: every bit of the input changes half of the output's.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

impl Table {
    /// The table of these; those beyond [`HASHED_ENDPOINTS_MAX`] get no keys.
    #[must_use]
    pub fn build(kind: HashTable, members: &[Member<'_>]) -> Self {
        let members = &members[..members.len().min(HASHED_ENDPOINTS_MAX)];
        Self(match kind {
            HashTable::Ring(size) => ring(size as usize, members),
            HashTable::Maglev(size) => Kind::Maglev(maglev(size, members)),
        })
    }

    /// Whom a key belongs to, among those who are `fit`; `None` if none is.
    pub fn pick(&self, hash: u64, mut fit: impl FnMut(usize) -> bool) -> Option<usize> {
        let (owners, at) = match &self.0 {
            Kind::Ring { points, owners } => (owners, points.partition_point(|one| *one < hash)),
            Kind::Maglev(owners) => (owners, reduce(hash, owners.len())),
        };
        let around = owners.iter().skip(at).chain(owners.iter().take(at));
        around.map(|owner| usize::from(*owner)).find(|owner| fit(*owner))
    }

    /// How many points or entries it has.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Kind::Ring { owners, .. } | Kind::Maglev(owners) => owners.len(),
        }
    }

    /// Does nobody own anything?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A hash as a position, evenly.
fn reduce(hash: u64, len: usize) -> usize {
    ((u128::from(hash) * len as u128) >> 64) as usize
}

/// A ring of at least `least` points. How many a weight of 1 has does not depend on how many endpoints
/// there are, as long as they are few (64 by default): so who comes takes only what becomes its own, and
/// who goes leaves only what was. Among many it is halved where their number doubles.
fn ring(least: usize, members: &[Member<'_>]) -> Kind {
    // Rounding down to a power of two leaves at least half.
    let most = RING_POINTS.max(least.saturating_mul(2).min(RING_POINTS_MAX));
    let weights: usize = members.iter().map(|one| one.weight.max(1) as usize).sum();
    let fits = most / weights.max(1);
    let wanted = least.clamp(1, RING_POINTS_MAX).next_power_of_two();
    // The greatest power of two that fits.
    let each = wanted.min(fits.checked_ilog2().map_or(0, |log| 1 << log));
    let count = |one: &Member<'_>| match each {
        0 => (one.weight.max(1) as usize * most / weights).max(1),
        each => one.weight.max(1) as usize * each,
    };
    let mut all = Vec::with_capacity(members.iter().map(count).sum());
    for (owner, one) in (0..=u16::MAX).zip(members) {
        let name = hash(one.name);
        let point = |at: usize| mix(name ^ (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        all.extend((1..=count(one)).map(|at| (point(at), owner)));
    }
    all.sort_unstable();
    Kind::Ring {
        points: all.iter().map(|(point, _)| *point).collect(),
        owners: all.iter().map(|(_, owner)| *owner).collect(),
    }
}

/// Maglev's table ("Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016): every
/// endpoint in turn takes the next free entry in an order of its own, by weight more or less often. `size`
/// is a prime number, so that each order reaches every entry.
fn maglev(size: u32, members: &[Member<'_>]) -> Box<[u16]> {
    const NOBODY: u32 = u32::MAX;
    if members.is_empty() {
        return Box::default();
    }
    let heaviest = members.iter().map(|one| u64::from(one.weight.max(1))).max().unwrap_or(1);
    let length = u64::from(size.max(1));
    let mut entries = vec![NOBODY; size.max(1) as usize];
    let mut orders: Vec<(u64, u64)> = members
        .iter()
        .map(|one| {
            let name = hash(one.name);
            (name % length, mix(!name) % length.saturating_sub(1).max(1) + 1)
        })
        .collect();
    let mut credit = vec![0u64; members.len()];
    let mut left = entries.len();
    while left > 0 {
        for (owner, one) in members.iter().enumerate() {
            credit[owner] += u64::from(one.weight.max(1));
            if credit[owner] < heaviest {
                continue;
            }
            credit[owner] -= heaviest;
            let (at, skip) = &mut orders[owner];
            // At most once around: then all is taken, and `left` is 0.
            while entries[*at as usize] != NOBODY {
                *at = (*at + *skip) % length;
            }
            entries[*at as usize] = owner as u32;
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    entries.into_iter().map(|owner| owner as u16).collect()
}

#[cfg(test)]
mod tests;
