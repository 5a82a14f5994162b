//! What can be wrong with cluster objects in files, and where.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::object::FieldError;

/// Where an object stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, `-` for standard input.
    pub file: PathBuf,
    /// Document in the file, from 1.
    pub document: usize,
    /// Index in the document's list, where it is one.
    pub item: Option<usize>,
    /// Line, from 1, where the parser knows it.
    pub line: Option<u64>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": document {}", self.document)?;
        if let Some(item) = self.item {
            write!(f, ", items[{item}]")?;
        }
        Ok(())
    }
}

/// Why cluster state cannot be had from the files given.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file or folder cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A folder without any YAML or JSON file.
    #[error("{} holds no .yaml, .yml or .json file", .0.display())]
    EmptyFolder(PathBuf),
    /// What is there is no YAML or JSON, or beyond what we take.
    #[error("{place}: {problem}")]
    Syntax {
        /// Where.
        place: Box<Place>,
        /// What is wrong.
        problem: String,
        /// Whether it looks like a template that is not rendered.
        template: bool,
    },
    /// An object of a kind we use whose field does not hold what the API says.
    #[error("{place}: {object}: {field}: {problem}")]
    Field {
        /// Where.
        place: Box<Place>,
        /// Kind and name, as far as they can be told.
        object: String,
        /// Path of the field.
        field: String,
        /// What is wrong and what was expected.
        problem: String,
    },
}

impl LoadError {
    pub(super) fn field(place: Place, error: FieldError) -> Self {
        Self::Field {
            place: Box::new(place),
            object: error.object,
            field: error.field,
            problem: error.problem,
        }
    }
}

/// Something worth saying that stops nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// The same object twice; the later one counts.
    Twice {
        /// Kind and name.
        object: String,
        /// Where the later one stands.
        place: Place,
    },
    /// Objects that decide what passes and are not read: verdicts that hang on them are unknown.
    Policy {
        /// Version and kind.
        kind: String,
        /// Where the first one stands.
        place: Place,
    },
    /// Objects that the API server does not list for us.
    Unread {
        /// Which.
        resource: String,
        /// What it says.
        problem: String,
    },
    /// An object that is not as the API says, hence left out.
    Unreadable(String),
    /// A policy says something that is not known here: verdicts that hang on it are unknown.
    NotKnown {
        /// Object, field and problem.
        error: String,
        /// Where it stands.
        place: Place,
    },
    /// What is there is none of a cluster's objects, and is passed over.
    Foreign {
        /// Where.
        place: Place,
        /// What it is.
        what: &'static str,
    },
    /// Nothing of use in what was given.
    Nothing {
        /// What was given.
        path: PathBuf,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Twice { object, place } => {
                write!(f, "{object} is there twice; the one at {place} counts")
            }
            Self::Policy { kind, place } => write!(
                f,
                "{kind} is not read by this version (first at {place}): verdicts that hang on such policies \
                 are unknown"
            ),
            Self::Unread { resource, problem } => write!(
                f,
                "{resource} cannot be listed, so verdicts that hang on them are unknown: {problem}"
            ),
            Self::NotKnown { error, place } => {
                write!(f, "{place}: {error}; verdicts that hang on it are unknown")
            }
            Self::Foreign { place, what } => write!(f, "{place}: passed over: {what}"),
            Self::Unreadable(problem) => write!(f, "left out: {problem}"),
            Self::Nothing { path } => write!(
                f,
                "{}: no pod, node, namespace, service, endpoint or policy in it",
                path.display()
            ),
        }
    }
}
