//! The agent's end of the stream.

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Access, CutOff, Greeting, History, Request, Rest, VERSION};
use crate::decode::RawDrop;
use crate::record::Drop;
use crate::sink::Sink;

/// Drops a reader may lag behind before it is cut off.
const BACKLOG: usize = 4096;
/// How long a reader may take for a line, and a client for its request.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long who drains is kept waiting at most: a part of the time that a pod has to end.
const DRAINED_WITHIN: Duration = Duration::from_secs(5);
/// Bytes a request may have.
const LONGEST_REQUEST: u64 = 4096;

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another agent answers there.
    #[error("another agent answers at {}; stop it, or choose another path with --socket", .0.display())]
    Taken(PathBuf),
    /// There is a file that is no socket.
    #[error("{} exists and is no socket; choose another path with --socket", .0.display())]
    NotASocket(PathBuf),
    /// The system says no.
    #[error("cannot listen at {} (--socket chooses another path)", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Asked for each reader: what goes into [`Greeting::state`].
pub type Says = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// How much waits to be told, each of its own kind: where one gives to the other, the giving one first.
pub type Waiting = Arc<[watch::Receiver<usize>]>;

/// The sink that feeds the stream.
#[derive(Clone, Debug)]
pub struct Publisher {
    live: broadcast::Sender<Arc<str>>,
    history: Arc<Mutex<History>>,
}

impl Publisher {
    /// Readers that follow.
    pub fn readers(&self) -> usize {
        self.live.receiver_count()
    }

    /// Drops that the history keeps, and their bytes.
    pub fn history(&self) -> (usize, usize) {
        let history = self.history.lock();
        history.unwrap_or_else(PoisonError::into_inner).size()
    }
}

impl Sink for Publisher {
    fn accept(&mut self, drop: &Drop, _raw: Option<&RawDrop>) -> io::Result<()> {
        let line: Arc<str> = serde_json::to_string(drop)?.into();
        // Sent under the lock, so that a client that takes history and subscribes in between sees
        // each drop once.
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.push(drop.time, Arc::clone(&line));
        // Nobody listening is no failure.
        let _ = self.live.send(line);
        Ok(())
    }
}

/// The listening socket; removed when dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    node: String,
    publisher: Publisher,
}

impl Server {
    /// Listens at `path`, for whom `access` says; a socket that nobody answers on any more is replaced.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(
        path: &Path,
        access: Access,
        node: &str,
        history: History,
    ) -> Result<Self, BindError> {
        let io = |source| BindError::Io {
            path: path.to_owned(),
            source,
        };
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(BindError::NotASocket(path.to_owned()));
            }
            Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
                return Err(BindError::Taken(path.to_owned()));
            }
            Ok(_) => std::fs::remove_file(path).map_err(io)?,
            Err(_) => {
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder).map_err(io)?;
                }
            }
        }
        let listener = UnixListener::bind(path).map_err(io)?;
        access.apply(path).map_err(io)?;
        let (live, _) = broadcast::channel(BACKLOG);
        let publisher = Publisher {
            live,
            history: Arc::new(Mutex::new(history)),
        };
        Ok(Self {
            listener,
            path: path.to_owned(),
            node: node.to_owned(),
            publisher,
        })
    }

    /// The sink that feeds it.
    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    /// Serves until `stop` is cancelled. `waiting`: what who drains waits for.
    pub async fn serve(self, says: Says, waiting: Waiting, stop: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            match accepted {
                Ok((client, _)) => {
                    let (publisher, node) = (self.publisher.clone(), self.node.clone());
                    let (says, stop) = (Arc::clone(&says), stop.clone());
                    let waiting = Arc::clone(&waiting);
                    tokio::spawn(async move {
                        tokio::select! {
                            served = attend(client, publisher, node, says, waiting) => {
                                if let Err(error) = served {
                                    tracing::debug!(%error, "a stream reader went away");
                                }
                            }
                            () = stop.cancelled() => {}
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a stream reader");
                    // Out of descriptors, most likely: give others time to close theirs.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl std::ops::Drop for Server {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn attend(
    client: UnixStream,
    publisher: Publisher,
    node: String,
    says: Says,
    waiting: Waiting,
) -> io::Result<()> {
    let (read, mut write) = client.into_split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(LONGEST_REQUEST));
    tokio::time::timeout(PATIENCE, read.read_line(&mut line)).await??;
    let request = serde_json::from_str::<Request>(&line)
        .map_err(|error| format!("not a request: {error}"))
        .and_then(|request| match request.version {
            VERSION => Ok(request),
            other => Err(format!(
                "this agent speaks version {VERSION} of the stream, not {other}"
            )),
        });
    let refused = request.as_ref().err().cloned();
    say(
        &mut write,
        &serde_json::to_string(&Greeting {
            version: VERSION,
            node,
            refused,
            state: says(),
        })?,
    )
    .await?;
    let Ok(request) = request else { return Ok(()) };
    if request.drain {
        let rest = drained(&waiting).await;
        return say(&mut write, &serde_json::to_string(&rest)?).await;
    }
    let (past, mut live) = {
        let history = publisher
            .history
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        (history.answer(&request), publisher.live.subscribe())
    };
    drop(publisher);
    for line in past {
        say(&mut write, &line).await?;
    }
    if !request.follow {
        return Ok(());
    }
    let mut read = read.into_inner().into_inner();
    let mut gone = [0; 1];
    loop {
        let next = tokio::select! {
            next = live.recv() => next,
            // A client says nothing more; an end of file means it has gone.
            _ = read.read(&mut gone) => return Ok(()),
        };
        match next {
            Ok(line) => say(&mut write, &line).await?,
            Err(RecvError::Lagged(missed)) => {
                tracing::info!(missed, "a stream reader was too slow and is cut off");
                return say(&mut write, &serde_json::to_string(&CutOff { missed })?).await;
            }
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

/// Waits until nothing waits any more, within reason.
async fn drained(waiting: &[watch::Receiver<usize>]) -> Rest {
    let all = async {
        for one in waiting {
            // Whose sender is gone has told everything.
            let _ = one.clone().wait_for(|waiting| *waiting == 0).await;
        }
    };
    // What is left is said.
    let _ = tokio::time::timeout(DRAINED_WITHIN, all).await;
    let left = waiting.iter().map(|one| *one.borrow());
    Rest {
        waiting: left.sum(),
    }
}

async fn say(write: &mut OwnedWriteHalf, line: &str) -> io::Result<()> {
    tokio::time::timeout(PATIENCE, async {
        write.write_all(line.as_bytes()).await?;
        write.write_all(b"\n").await
    })
    .await?
}
