//! What a command can fail with, and the exit code that says so.

use std::io;
use std::path::PathBuf;

use crate::kernel;

/// A command's failure. Each message stands alone: a cause is said once.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Options that contradict each other or lack something.
    #[error("{0}")]
    Usage(String),
    /// Cluster objects that cannot be read.
    #[error(transparent)]
    Cluster(#[from] crate::cluster::LoadError),
    /// Recorded drops or flows that cannot be read.
    #[error("{}, line {line}: {problem}", path.display())]
    Line {
        /// The file, `-` for standard input.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// A file that cannot be opened or created.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The kernel, the privilege or the cluster lacks something.
    #[error("{0}")]
    Environment(String),
    /// The kernel side.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// Standard output, or the runtime.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The agent's stream.
    #[error(transparent)]
    Stream(#[from] crate::stream::ClientError),
    /// The agent's socket.
    #[error(transparent)]
    Socket(#[from] crate::stream::BindError),
    /// A defect.
    #[error("internal error: {0}; please report it")]
    Internal(String),
}

impl Error {
    /// 2 for wrong usage or input, 3 where the environment lacks something.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_)
            | Self::Cluster(_)
            | Self::Line { .. }
            | Self::File { .. }
            | Self::Kernel(kernel::Error::Reason(_)) => 2,
            Self::Environment(_)
            | Self::Kernel(_)
            | Self::Io(_)
            | Self::Stream(_)
            | Self::Socket(_)
            | Self::Internal(_) => 3,
        }
    }

    /// The message and what caused it, each once.
    pub fn report(&self) -> String {
        use std::error::Error as _;
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }

    /// A reader that has gone away: nothing to complain about.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl From<crate::pipeline::Error> for Error {
    fn from(error: crate::pipeline::Error) -> Self {
        match error {
            crate::pipeline::Error::Kernel(error) => Self::Kernel(error),
            crate::pipeline::Error::Io(error) => Self::Io(error),
            worker @ crate::pipeline::Error::Worker => Self::Internal(worker.to_string()),
        }
    }
}
