//! Floors inside the crates: files import downwards only, and no file imports one that imports it
//! back. Which file stands where is in `table.rs`; that there is no circle holds without it.

mod graph;
mod table;

use std::path::Path;

use graph::{Arrow, House};
use table::{FLOORS, Floors, covers};

/// Findings of all crates.
pub(super) fn check(root: &Path) -> Result<Vec<String>, String> {
    let mut findings = Vec::new();
    for folder in crates(root)? {
        let name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let house = House::read(&folder.join("src"))?;
        findings.extend(circles(&name, &house));
        match FLOORS.iter().find(|floors| floors.of == name) {
            Some(floors) => findings.extend(misplaced(floors, &house)),
            None => findings.push(format!("{name}: no floors in xtask/src/tidy/floors/table.rs")),
        }
    }
    Ok(findings)
}

/// The folders of the workspace's crates, in order of name.
fn crates(root: &Path) -> Result<Vec<std::path::PathBuf>, String> {
    let entries = std::fs::read_dir(root.join("crates")).map_err(|e| format!("crates: {e}"))?;
    let mut folders: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    folders.push(root.join("xtask"));
    folders.retain(|folder| folder.join("Cargo.toml").is_file());
    folders.sort();
    Ok(folders)
}

/// A finding per circle, with what ties it.
fn circles(of: &str, house: &House) -> Vec<String> {
    let shown = |circle: &Vec<usize>| {
        let ties = house.arrows.iter().filter(|a| circle.contains(&a.from));
        let ties = ties.filter(|a| circle.contains(&a.to)).map(|a| tie(house, a));
        format!(
            "{of}: {} files import each other in a circle:\n    {}",
            circle.len(),
            ties.collect::<Vec<_>>().join("\n    ")
        )
    };
    house.circles().iter().map(shown).collect()
}

fn tie(house: &House, arrow: &Arrow) -> String {
    let names = arrow.names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    format!("{} -> {}: {names}", house.files[arrow.from].name, house.files[arrow.to].name)
}

/// Files on no floor, entries without a file, and imports that lead upwards.
fn misplaced(floors: &Floors, house: &House) -> Vec<String> {
    let of = floors.of;
    let place = |file: usize| floors.place(&house.files[file].module);
    let homeless = (0..house.files.len())
        .filter(|file| place(*file).is_none())
        .map(|file| format!("{of}: {} stands on no floor", house.files[file].name));
    let empty = floors
        .entries()
        .filter(|entry| !house.files.iter().any(|file| covers(entry, &file.module)))
        .map(|entry| format!("{of}: the floors name `{entry}`, which no file is"));
    let upwards = house.arrows.iter().filter_map(|arrow| {
        let (from, to) = place(arrow.from).zip(place(arrow.to))?;
        let said = || {
            let floor = |at| floors.name(at);
            let tie = tie(house, arrow);
            format!("{of}: an import leads up from {} to {}: {tie}", floor(from), floor(to))
        };
        (to > from).then(said)
    });
    homeless.chain(empty).chain(upwards).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn house(files: &[(&str, &str)]) -> House {
        House::of(files.iter().map(|(name, text)| (Path::new(name).to_owned(), (*text).to_owned())))
    }

    fn arrows(house: &House) -> Vec<String> {
        house.arrows.iter().map(|arrow| tie(house, arrow)).collect()
    }

    #[test]
    fn two_files_that_import_each_other_are_a_circle() {
        let house = house(&[
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "pub struct B; fn f(a: &super::a::A) {}"),
            ("c.rs", "use crate::{a::A, b::B};"),
        ]);
        let found = circles("x", &house);
        let wanted =
            "x: 2 files import each other in a circle:\n    a.rs -> b.rs: B\n    b.rs -> a.rs: A";
        assert_eq!(found, [wanted]);
    }

    #[test]
    fn a_parent_and_its_child_are_two_files() {
        let house = house(&[
            ("lib.rs", "mod a;"),
            ("a.rs", "mod b; use b::B; pub struct A;"),
            ("a/b.rs", "use super::A; pub struct B;"),
        ]);
        assert_eq!(circles("x", &house).len(), 1, "{:?}", arrows(&house));
    }

    #[test]
    fn a_name_handed_on_is_imported_from_where_it_is_defined() {
        let house = house(&[
            ("lib.rs", "mod a; mod b; mod c; pub use a::A; pub use b::*;"),
            ("a.rs", "use crate::B; pub struct A; mod d; pub use d::D;"),
            ("a/d.rs", "pub struct D;"),
            ("b.rs", "pub struct B;"),
            ("c.rs", "use crate::{A, B, a::D};"),
        ]);
        let wanted = ["a.rs -> b.rs: B", "c.rs -> a.rs: A", "c.rs -> a/d.rs: D", "c.rs -> b.rs: B"];
        assert_eq!(arrows(&house), wanted);
        assert!(circles("x", &house).is_empty());
    }

    #[test]
    fn what_the_root_defines_is_imported_from_the_root() {
        let house = house(&[
            ("main.rs", "mod a; fn main() { a::run(); } pub(crate) struct R;"),
            ("a.rs", "use crate::R; pub fn run() {}"),
        ]);
        assert_eq!(circles("x", &house).len(), 1);
    }

    #[test]
    fn tests_are_left_out() {
        let house = house(&[
            ("lib.rs", "mod a; mod b; #[cfg(test)] mod testing;"),
            ("a.rs", "pub struct A; #[cfg(test)] mod tests { use crate::b::B; }"),
            ("a/tests.rs", "use crate::b::B;"),
            ("b.rs", "use crate::a::A; pub struct B;"),
            ("testing.rs", "use crate::b::B;"),
        ]);
        assert_eq!(arrows(&house), ["b.rs -> a.rs: A"]);
    }

    #[test]
    fn an_import_upwards_a_file_on_no_floor_and_an_entry_without_a_file_are_found() {
        let house = house(&[
            ("lib.rs", "mod low; mod high; mod stray;"),
            ("low.rs", "mod top; use crate::high::H;"),
            ("low/top.rs", "use crate::high::H;"),
            ("high.rs", "pub struct H;"),
            ("stray.rs", ""),
        ]);
        let floors = Floors {
            of: "x",
            floors: &[("ground", &["low", "gone"]), ("first", &["high", "low/top"])],
        };
        let wanted = [
            "x: stray.rs stands on no floor",
            "x: the floors name `gone`, which no file is",
            "x: an import leads up from ground to first: low.rs -> high.rs: H",
        ];
        assert_eq!(misplaced(&floors, &house), wanted);
    }
}
