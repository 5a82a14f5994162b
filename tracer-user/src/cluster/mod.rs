//! Who is this address, and which policies are there: cluster state from files.

mod documents;
mod error;
mod files;
pub mod host;
mod kind;
mod lines;
pub mod live;
mod meter;
mod nulls;
pub mod object;
mod objects;
mod salvage;
mod stream;
mod templates;
mod unique;
mod yaml;

pub use error::{LoadError, Place, Warning};
pub use files::{load, load_into, load_onto, load_what_can_be_read};
pub use kind::Kind;
pub use lines::lines_of;
pub use objects::{Loaded, PolicySource};

#[cfg(test)]
mod tests;
