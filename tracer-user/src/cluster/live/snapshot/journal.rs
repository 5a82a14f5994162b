//! A kind's journal as it is written.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;

use super::create;
use super::read::lines_left;

/// A journal is written anew when it has this many lines more than are left of it, and is twice as long.
const SLACK: usize = 1000;

/// Where a kind's changes go.
#[derive(Debug, Default)]
pub(super) struct Journal {
    path: PathBuf,
    /// What it goes on with.
    current: Option<BufWriter<File>>,
    /// The list that is being read, and will replace it.
    listing: Option<BufWriter<File>>,
    /// Lines in it, and how many of them there were when it was written anew.
    lines: usize,
    left: usize,
}

impl Journal {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            ..Self::default()
        }
    }

    fn new_path(&self) -> PathBuf {
        self.path.with_extension("new")
    }

    /// A list begins.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        self.listing = Some(BufWriter::new(create(&self.new_path())?));
        self.lines = 0;
        Ok(())
    }

    /// The list is whole.
    pub(super) fn end(&mut self) -> io::Result<()> {
        let Some(listing) = self.listing.take() else {
            return Ok(());
        };
        self.replace(listing)
    }

    /// There is nothing.
    pub(super) fn empty(&mut self) -> io::Result<()> {
        self.begin()?;
        self.end()
    }

    fn replace(&mut self, mut by: BufWriter<File>) -> io::Result<()> {
        by.flush()?;
        // Else the name could outlive a crash of the machine and what it names not.
        by.get_ref().sync_data()?;
        fs::rename(self.new_path(), &self.path)?;
        self.left = self.lines;
        self.current = Some(by);
        Ok(())
    }

    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let to = match (&mut self.listing, &mut self.current) {
            (Some(listing), _) => listing,
            (None, Some(current)) => current,
            (None, None) => self.go_on()?,
        };
        to.write_all(line)?;
        self.lines += 1;
        if self.listing.is_none() && self.lines > 2 * self.left + SLACK {
            self.compact()?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        let mut open = self.listing.iter_mut().chain(&mut self.current);
        open.try_for_each(BufWriter::flush)
    }

    /// Goes on with what an earlier agent left, whose last line may be half written.
    fn go_on(&mut self) -> io::Result<&mut BufWriter<File>> {
        if self.path.exists() {
            self.compact()?;
        } else {
            self.empty()?;
        }
        self.current
            .as_mut()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Writes it anew, without what is gone.
    fn compact(&mut self) -> io::Result<()> {
        self.flush()?;
        let mut new = BufWriter::new(create(&self.new_path())?);
        self.lines = lines_left(&self.path, |line| new.write_all(line))?;
        self.replace(new)
    }

    /// It is of no use any more, as something could not be written.
    pub(super) fn give_up(&mut self) {
        self.current = None;
        self.listing = None;
        for path in [&self.path, &self.new_path()] {
            // Of what cannot be removed either, the stamp tells how old it is.
            let _ = fs::remove_file(path);
        }
    }
}
