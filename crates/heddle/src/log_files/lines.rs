//! Lines out of a stream of bytes, none of them longer than a bound.

/// Longest line that is kept together, bytes; a longer one is broken.
pub(crate) const LINE_MAX: usize = 64 * 1024;

/// The beginning of a line whose end has not come yet.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// The lines that these bytes make whole, without their ends.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            for piece in part.chunks(LINE_MAX) {
                self.begun.extend_from_slice(piece);
                let is_whole = piece.ends_with(b"\n");
                if is_whole || self.begun.len() >= LINE_MAX {
                    let mut line = std::mem::take(&mut self.begun);
                    if is_whole {
                        line.pop();
                    }
                    lines.push(line);
                }
            }
        }
        lines
    }

    /// What was begun and has no end.
    pub(crate) fn end(&mut self) -> Option<Vec<u8>> {
        Some(std::mem::take(&mut self.begun)).filter(|rest| !rest.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_whole_with_its_end_or_at_the_bound() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"a\n\nb"), [b"a".to_vec(), Vec::new()]);
        assert_eq!(lines.push(b"c\n"), [b"bc".to_vec()]);
        let broken = lines.push(&vec![b'x'; 3 * LINE_MAX]);
        assert!(broken.len() == 3 && broken.iter().all(|line| line.len() <= 2 * LINE_MAX));
        lines.push(b"rest");
        assert_eq!((lines.end(), lines.end()), (Some(b"rest".to_vec()), None));
    }
}
