//! What the program has started and left behind: found by who started whom, as `run` is the
//! adoptive parent of every orphan below it.

use std::{collections::BTreeMap, fs, io};

use heddle_runtime::{process::Pidfd, signal::Signal};

/// Most rounds of killing; each round finds what was forked during the one before.
const ROUNDS_MAX: usize = 50;

/// Kills every descendant of this process. Those in the workload's network namespace have been ended
/// by the holder; these left it on purpose.
///
/// # Errors
/// Where `/proc` cannot be read.
pub(crate) fn kill_all() -> io::Result<()> {
    for _ in 0..ROUNDS_MAX {
        let mut killed = 0;
        for pid in descendants_of(std::process::id(), &parents()?) {
            killed += usize::from(Pidfd::open(pid).and_then(|p| p.signal(Signal::KILL)).is_ok());
        }
        heddle_runtime::process::reap_orphans(&[])?;
        if killed == 0 {
            return Ok(());
        }
    }
    Ok(())
}

/// Kills what is below a process, and not that itself.
///
/// # Errors
/// Where `/proc` cannot be read.
pub(crate) fn kill_below(ancestor: u32) -> io::Result<()> {
    for pid in descendants_of(ancestor, &parents()?) {
        // It may have ended by itself just now.
        drop(Pidfd::open(pid).and_then(|process| process.signal(Signal::KILL)));
    }
    Ok(())
}

/// Parent by process id.
fn parents() -> io::Result<BTreeMap<u32, u32>> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The second field, the program's name, may hold blanks and parentheses.
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let mut fields = rest.split_ascii_whitespace();
        let (state, parent) = (fields.next(), fields.next().and_then(|field| field.parse().ok()));
        if let (Some(parent), Some(state)) = (parent, state)
            && state != "Z"
        {
            parents.insert(pid, parent);
        }
    }
    Ok(parents)
}

fn descendants_of(ancestor: u32, parents: &BTreeMap<u32, u32>) -> Vec<u32> {
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        let children = parents.iter().filter(|(_, p)| **p == parent).map(|(child, _)| *child);
        found.extend(children.filter(|child| *child != ancestor));
        next += 1;
    }
    found.split_off(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_are_children_and_theirs() {
        let parents = BTreeMap::from([(2, 1), (3, 2), (4, 3), (5, 1), (6, 9)]);
        assert_eq!(descendants_of(2, &parents), [3, 4]);
        assert_eq!(descendants_of(1, &parents), [2, 5, 3, 4]);
        assert_eq!(descendants_of(7, &parents), [0; 0]);
    }
}
