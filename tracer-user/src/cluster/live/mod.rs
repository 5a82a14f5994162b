//! Cluster state from a live API server: listed once, or listed and watched.
//!
//! The API server being out of reach is the normal case for this tool: what was last known stays, is
//! said to be old, and catches up without a restart. It is kept on disk too, for an agent that starts then.

mod connect;
mod discover;
mod follow;
mod link;
mod list;
mod pause;
mod resources;
mod snapshot;
mod status;
mod update;
mod watch;

pub use connect::{ConnectError, Found, cluster_id, connect, find};
pub use list::list;
pub use snapshot::{Recorder, Snapshot};
pub use status::{AsOf, Health, Status};
pub use update::{Keeper, Update};
pub use watch::{Updates, watch};

#[cfg(test)]
mod server_tests;
#[cfg(test)]
mod tests;
