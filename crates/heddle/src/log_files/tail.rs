//! The lines of a file that grows, and may be cut or replaced meanwhile.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::lines::Lines;

/// Bytes read at one time.
const CHUNK: usize = 64 * 1024;
/// How far back the last lines are looked for, bytes.
const BACK_MAX: u64 = 8 << 20;

/// A file's lines, from where one stands.
#[derive(Debug)]
pub(crate) struct Tail {
    path: PathBuf,
    prefix: String,
    file: File,
    inode: u64,
    at: u64,
    lines: Lines,
}

impl Tail {
    /// Stands at the beginning, or before the last `lines`. `prefix` begins every line that is given.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(crate) fn open(path: &Path, prefix: String, lines: Option<usize>) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let meta = file.metadata()?;
        let at = match lines {
            Some(lines) => before_last(&mut file, meta.len(), lines)?,
            None => 0,
        };
        Ok(Self {
            path: path.to_owned(),
            prefix,
            file,
            inode: meta.ino(),
            at,
            lines: Lines::default(),
        })
    }

    /// Some more of the lines that are complete; none where there is no more now.
    pub(crate) fn lines(&mut self) -> Vec<String> {
        loop {
            let mut chunk = vec![0; CHUNK];
            let read =
                self.file.seek(SeekFrom::Start(self.at)).and_then(|_| self.file.read(&mut chunk));
            match read {
                Ok(count) if count > 0 => {
                    self.at += count as u64;
                    let lines = self.take(&chunk[..count]);
                    if !lines.is_empty() {
                        return lines;
                    }
                }
                _ if self.is_replaced() => {}
                _ => return Vec::new(),
            }
        }
    }

    /// What was begun and has no end.
    pub(crate) fn end(&mut self) -> Option<String> {
        self.lines.end().map(|rest| self.line(&rest))
    }

    fn take(&mut self, chunk: &[u8]) -> Vec<String> {
        let whole = self.lines.push(chunk);
        whole.iter().map(|line| self.line(line)).collect()
    }

    fn line(&self, bytes: &[u8]) -> String {
        format!("{}{}", self.prefix, String::from_utf8_lossy(bytes))
    }

    /// Is there another file of that name, or was this one cut? Then it is read from its beginning.
    fn is_replaced(&mut self) -> bool {
        let Ok(named) = fs::metadata(&self.path) else { return false };
        if named.ino() == self.inode {
            let cut = named.len() < self.at;
            if cut {
                self.at = 0;
            }
            return cut;
        }
        let Ok(file) = File::open(&self.path) else { return false };
        (self.file, self.inode, self.at) = (file, named.ino(), 0);
        true
    }
}

/// Where the last `lines` of a file of this length begin.
fn before_last(file: &mut File, length: u64, lines: usize) -> io::Result<u64> {
    if lines == 0 {
        return Ok(length);
    }
    let from = length.saturating_sub(BACK_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(BACK_MAX).read_to_end(&mut bytes)?;
    let body = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let ends = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    let begin = ends.map(|(at, _)| at + 1).nth(lines - 1).unwrap_or(0);
    Ok(from + begin as u64)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use heddle_testkit::folder::Folder;

    use super::{super::lines::LINE_MAX, *};

    fn all(tail: &mut Tail) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let more = tail.lines();
            if more.is_empty() {
                return lines;
            }
            lines.extend(more);
        }
    }

    #[test]
    fn a_line_is_given_when_it_is_whole_and_the_file_may_be_cut_or_replaced() {
        let folder = Folder::new("tail");
        let path = folder.path().join("a.log");
        fs::write(&path, "one\ntwo\nthr").unwrap();
        let mut tail = Tail::open(&path, "a | ".into(), None).unwrap();
        assert_eq!(all(&mut tail), ["a | one", "a | two"]);
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"ee\n").unwrap();
        assert_eq!(all(&mut tail), ["a | three"]);
        fs::write(&path, "new\n").unwrap();
        assert_eq!(all(&mut tail), ["a | new"]);
        fs::rename(&path, folder.path().join("old")).unwrap();
        assert!(all(&mut tail).is_empty());
        fs::write(&path, "next\nno end").unwrap();
        assert_eq!(all(&mut tail), ["a | next"]);
        assert_eq!(tail.end().as_deref(), Some("a | no end"));
    }

    #[test]
    fn the_last_lines_are_found_and_a_line_without_an_end_stays_within_bounds() {
        let folder = Folder::new("tail-last");
        let path = folder.path().join("a.log");
        fs::write(&path, "1\n2\n3\n").unwrap();
        for (lines, left) in [(0, ""), (1, "3"), (2, "2 3"), (9, "1 2 3")] {
            let mut tail = Tail::open(&path, String::new(), Some(lines)).unwrap();
            assert_eq!(all(&mut tail).join(" "), left);
        }
        fs::write(&path, vec![b'x'; 3 * LINE_MAX]).unwrap();
        let mut tail = Tail::open(&path, String::new(), None).unwrap();
        assert!(all(&mut tail).iter().all(|line| line.len() <= LINE_MAX + CHUNK));
    }
}
