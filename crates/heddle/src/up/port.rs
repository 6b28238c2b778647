//! The dashboard's port of a mesh, where none is asked for: the one it had the last time, else one that its name
//! decides, so that a bookmark stays right; a free one where somebody else has it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use crate::output;

/// Where a mesh's state folder says which port it had.
const FILE: &str = "dashboard.port";
/// Ports a name may lead to: below those that kernels give to connections.
const FIRST: u16 = 20_000;
/// How many of them.
const COUNT: u64 = 10_000;
/// Ports that are tried from the one that the name decides.
const TRIED: u16 = 20;

/// Where the dashboard is to listen: the first of these that is free, at last whichever is.
pub(crate) fn of_mesh(name: &str, state_dir: Option<&Path>) -> Vec<SocketAddr> {
    let remembered = state_dir.and_then(remembered);
    let first = by_name(name);
    let own = remembered.into_iter().chain((0..TRIED).map(|more| first + more));
    own.chain([0]).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).collect()
}

/// Keeps the port for the next time.
pub(crate) fn remember(state_dir: &Path, address: SocketAddr) {
    let file = state_dir.join(FILE);
    if remembered(state_dir) == Some(address.port()) {
        return;
    }
    if let Err(error) = fs::write(&file, format!("{}\n", address.port())) {
        output::notice(format!(
            "the dashboard may have another port the next time: cannot write {}: {error}",
            file.display()
        ));
    }
}

fn remembered(state_dir: &Path) -> Option<u16> {
    let text = fs::read_to_string(state_dir.join(FILE)).ok()?;
    text.trim().parse().ok().filter(|port| *port >= 1_024)
}

/// The port that a name decides (FNV-1a).
fn by_name(name: &str) -> u16 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    FIRST + u16::try_from(hash % COUNT).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use heddle_testkit::folder::Folder;

    use super::*;

    #[test]
    fn a_mesh_tries_the_port_it_had_then_its_own_ones_then_any() {
        let folder = Folder::new("port");
        let first = of_mesh("a-mesh", Some(folder.path()))[0];
        assert!((20_000..30_020).contains(&first.port()), "{first}");
        remember(folder.path(), first);
        let other = of_mesh("another-name", Some(folder.path()));
        assert_eq!((other[0], other[other.len() - 1].port()), (first, 0));
        fs::write(folder.path().join(FILE), "80\n").unwrap();
        assert!(of_mesh("x", Some(folder.path()))[0].port() >= 20_000, "nonsense is not heeded");
    }

    #[test]
    fn meshes_of_different_names_have_different_ports() {
        assert_ne!(by_name("demo"), by_name("local"));
        assert_eq!(by_name("demo"), by_name("demo"));
    }
}
