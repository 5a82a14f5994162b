//! Where drops go: one file an output.

mod compact;
pub mod events;
mod json;
pub mod metrics;
mod pcapng;
pub(crate) mod text;
mod wide;

pub use compact::Compact;
pub use json::Json;
pub use pcapng::Pcapng;
pub use wide::Wide;

use std::io;

use tracer_policy::Cluster;

use crate::decode::RawDrop;
use crate::record::Drop;

/// Takes drops one by one.
pub trait Sink: Send {
    /// Takes one drop; `raw` is what the kernel sent, absent in a replay.
    ///
    /// # Errors
    /// What the underlying writer says; a closed pipe comes as [`io::ErrorKind::BrokenPipe`].
    fn accept(&mut self, drop: &Drop, raw: Option<&RawDrop>) -> io::Result<()>;

    /// Forgets what is of nobody who is in `cluster`, which is whole and current; called now and then.
    fn tidy(&mut self, _cluster: &Cluster) {}

    /// Brings out what is buffered; called whenever there is nothing more to take at once.
    ///
    /// # Errors
    /// As [`Sink::accept`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
