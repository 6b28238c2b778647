//! What a program writes: into its log, and to the terminal with its name before each line.

use std::{
    cell::RefCell,
    fs::{self, File, OpenOptions},
    io::{self, PipeReader, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use tokio::{io::AsyncReadExt as _, net::unix::pipe::Receiver};

use crate::{log_files::lines::Lines, output};

/// Largest log, bytes: a fuller one is set aside as `NAME.log.1`, and what was there is gone.
const FULL: u64 = 8 << 20;
/// Bytes read at one time.
const CHUNK: usize = 16 * 1024;

/// A program's log.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    open: RefCell<Option<(File, u64)>>,
    /// What begins its lines on the terminal; `None`: they are not shown there.
    prefix: Option<String>,
}

impl Log {
    pub(super) fn new(path: PathBuf, prefix: Option<String>) -> Self {
        Self { path, open: RefCell::new(None), prefix }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads until the last process that could write has ended.
    ///
    /// # Errors
    /// Where the pipe cannot be read.
    pub(super) async fn fill(&self, pipe: PipeReader) -> io::Result<()> {
        let mut pipe = Receiver::from_owned_fd(pipe.into())?;
        let mut lines = Lines::default();
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = pipe.read(&mut chunk).await?;
            if count == 0 {
                lines.end().into_iter().for_each(|line| self.take(&line));
                return Ok(());
            }
            lines.push(&chunk[..count]).iter().for_each(|line| self.take(line));
        }
    }

    fn take(&self, line: &[u8]) {
        if let Err(error) = self.write(line) {
            // A full disk stops no program; what is shown goes on.
            tracing::warn!(log = %self.path.display(), %error, "cannot be written");
            self.open.replace(None);
        }
        if let Some(prefix) = &self.prefix {
            output::line(format!("{prefix}{}", String::from_utf8_lossy(line)));
        }
    }

    fn write(&self, line: &[u8]) -> io::Result<()> {
        let mut open = self.open.borrow_mut();
        if open.as_ref().is_some_and(|(_, size)| *size >= FULL) {
            fs::rename(&self.path, self.path.with_extension("log.1"))?;
            *open = None;
        }
        if open.is_none() {
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
            let size = file.metadata()?.len();
            *open = Some((file, size));
        }
        if let Some((file, size)) = open.as_mut() {
            let whole = [line, b"\n"].concat();
            file.write_all(&whole)?;
            *size += whole.len() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use heddle_testkit::folder::Folder;

    use super::*;

    #[test]
    fn a_full_log_is_set_aside_and_no_line_is_lost_on_the_way() {
        let folder = Folder::new("program-log");
        let path = folder.path().join("web.log");
        let log = Log::new(path.clone(), None);
        log.take(b"first");
        let long = vec![b'x'; usize::try_from(FULL).unwrap()];
        log.take(&long);
        log.take(b"last");
        assert_eq!(fs::read_to_string(&path).unwrap(), "last\n");
        let aside = fs::read(folder.path().join("web.log.1")).unwrap();
        assert!(aside.starts_with(b"first\nxxx"));
    }

    #[tokio::test]
    async fn a_last_line_without_an_end_is_kept() {
        let folder = Folder::new("program-log-end");
        let path = folder.path().join("web.log");
        let log = Log::new(path.clone(), None);
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"one\ntwo").unwrap();
        drop(writer);
        log.fill(reader).await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }
}
