//! One self-contained HTML page from recorded drops: the incident's timeline and its fix.
//!
//! Pure: drops go into an [`Aggregate`], whose memory is bounded; a [`Fix`] is made from it where there is a
//! cluster; a [`Page`] of both is text. Whatever comes from the input is cut to a length and escaped.

mod aggregate;
mod bounded;
mod cause;
mod chart;
mod finding;
mod fix;
mod histogram;
mod key;
mod page;
mod stages;
mod story;
mod view;
mod when;
mod words;

pub use aggregate::Aggregate;
pub use fix::{Advised, Fix};
pub use page::{About, Page, render};
