//! `heddle example`: the rules under `examples/`, which are part of the binary.

use include_dir::{Dir, File, include_dir};

use crate::{cli::made::ExampleArgs, failure::Failure, output};

static EXAMPLES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../examples");

/// `heddle example`.
///
/// # Errors
/// There is no example of that name.
pub(crate) fn example(args: &ExampleArgs) -> Result<(), Failure> {
    let Some(name) = &args.name else {
        let rows: Vec<Vec<String>> =
            all().map(|(name, text)| vec![name.to_owned(), about(text)]).collect();
        output::line(output::table(&["NAME", "WHAT IT DOES"], &rows));
        output::notice("put one in force:  heddle example NAME | heddle apply -f -");
        return Ok(());
    };
    let wanted = name.trim_end_matches(".yaml");
    match all().find(|(one, _)| *one == wanted) {
        Some((_, text)) => output::line(text.trim_end()),
        None => {
            let names: Vec<&str> = all().map(|(one, _)| one).collect();
            return Err(Failure::refused(format!(
                "there is no example `{name}`; there are {}",
                names.join(", ")
            )));
        }
    }
    Ok(())
}

/// Names and texts, by name.
fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    EXAMPLES.files().filter_map(|file: &File<'_>| {
        let name = file.path().file_name()?.to_str()?.strip_suffix(".yaml")?;
        Some((name, file.contents_utf8()?))
    })
}

/// The first sentence of its first comment.
fn about(text: &str) -> String {
    let comments = text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim);
    let first: Vec<&str> = comments.take_while(|line| !line.is_empty()).collect();
    let first = first.join(" ");
    let end = first.find(['.', '?']).map_or(first.len(), |end| end + 1);
    first[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_says_in_a_sentence_what_it_does() {
        assert!(all().count() > 10);
        for (name, text) in all() {
            let about = about(text);
            assert!((20..200).contains(&about.len()), "{name}: {about}");
        }
    }
}
