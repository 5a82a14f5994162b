//! How much of a document was read, and no more at a time than an object can be.

use std::cell::Cell;
use std::io::{self, Read};

/// Counts lines, and bytes since the last object was handed on.
#[derive(Debug)]
pub(super) struct Meter {
    line: Cell<u64>,
    pending: Cell<u64>,
    most: u64,
    /// Whether items of a list wait for its kind.
    waiting: Cell<bool>,
    last: Cell<u8>,
    template: Cell<bool>,
}

impl Meter {
    /// `most`: how many bytes one object may have.
    pub(super) const fn new(most: u64) -> Self {
        Self {
            line: Cell::new(1),
            pending: Cell::new(0),
            most,
            waiting: Cell::new(false),
            last: Cell::new(b'\n'),
            template: Cell::new(false),
        }
    }

    /// The line that is being read, from 1; right only for who reads byte by byte.
    pub(super) const fn line(&self) -> u64 {
        self.line.get()
    }

    /// What is wrong where a reader had to fail; the YAML parser keeps an I/O error's words to itself.
    pub(super) fn problem(&self) -> Option<String> {
        let most = self.most >> 10;
        (self.pending.get() > self.most).then(|| {
            if self.waiting.get() {
                format!(
                    "more than {most} KiB of items that do not say their kind, in a list that has not said its own \
                     yet: put the list's apiVersion and kind ahead of its items"
                )
            } else {
                format!("an object longer than {most} KiB, which no API server takes")
            }
        })
    }

    /// Whether what was read has a template's braces in it, which YAML hardly has.
    pub(super) const fn is_template(&self) -> bool {
        self.template.get()
    }

    /// An item of a list is held until its kind is known.
    pub(super) fn waits(&self) {
        self.waiting.set(true);
    }

    /// Nothing of what was read so far is held any more.
    pub(super) fn handed_on(&self) {
        self.pending.set(0);
        self.waiting.set(false);
    }
}

/// A reader that counts, and fails rather than let one object fill the memory.
pub(super) struct Metered<'a, R> {
    inner: R,
    meter: &'a Meter,
}

impl<'a, R> Metered<'a, R> {
    pub(super) const fn new(inner: R, meter: &'a Meter) -> Self {
        Self { inner, meter }
    }
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let meter = self.meter;
        if let Some(problem) = meter.problem() {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
        }
        let read = self.inner.read(buf)?;
        meter.pending.set(meter.pending.get() + read as u64);
        for byte in &buf[..read] {
            meter.line.set(meter.line.get() + u64::from(*byte == b'\n'));
            if *byte == b'{' && meter.last.get() == b'{' {
                meter.template.set(true);
            }
            meter.last.set(*byte);
        }
        Ok(read)
    }
}
