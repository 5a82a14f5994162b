//! Who is this address, and which policies are there: cluster state from files.

mod documents;
mod error;
mod files;
pub mod host;
mod kind;
pub mod live;
mod meter;
pub mod object;
mod objects;
mod stream;
mod unique;
mod yaml;

pub use error::{LoadError, Place, Warning};
pub use files::{load, load_onto};
pub use kind::Kind;
pub use objects::{Loaded, PolicySource};

#[cfg(test)]
mod tests;
