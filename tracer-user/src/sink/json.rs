//! `-o json` and `--record`: one object a line.

use std::io::{self, Write};

use super::Sink;
use crate::decode::RawDrop;
use crate::record::Drop;

/// Writes JSON lines.
#[derive(Debug)]
pub struct Json<W>(W);

impl<W: Write> Json<W> {
    /// Writes to `out`, which should be buffered.
    pub const fn new(out: W) -> Self {
        Self(out)
    }
}

impl<W: Write + Send> Sink for Json<W> {
    fn accept(&mut self, drop: &Drop, _raw: Option<&RawDrop>) -> io::Result<()> {
        serde_json::to_writer(&mut self.0, drop)?;
        self.0.write_all(b"\n")
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
