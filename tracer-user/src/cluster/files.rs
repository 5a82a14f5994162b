//! `--cluster PATH`: a file, a folder, or standard input.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use tracer_policy::Cluster;

use super::documents::each_object;
use super::error::{LoadError, Warning};
use super::objects::Loaded;

/// Reads cluster state from a YAML or JSON file, from all such files below a folder in order of their
/// names, or from standard input (`-`).
///
/// # Errors
/// The first thing that cannot be read, with file, document and field.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    load_onto(path, Cluster::new())
}

/// As [`load`], but an object that is not as the API says stops nothing: it is said in the warnings, and
/// verdicts that hang on it are unknown.
///
/// # Errors
/// Where a file cannot be read, or holds no objects at all.
pub fn load_what_can_be_read(path: &Path) -> Result<Loaded, LoadError> {
    let mut loaded = Loaded::default();
    loaded.go_on_past_errors();
    read_into(path, &mut loaded)?;
    Ok(loaded)
}

/// As [`load`], as if the objects were applied to a cluster that is there already.
///
/// # Errors
/// As of [`load`].
pub fn load_onto(path: &Path, cluster: Cluster) -> Result<Loaded, LoadError> {
    let mut loaded = Loaded::default();
    loaded.cluster = cluster;
    read_into(path, &mut loaded)?;
    Ok(loaded)
}

fn read_into(path: &Path, loaded: &mut Loaded) -> Result<(), LoadError> {
    if path == Path::new("-") {
        each_object(path, io::stdin().lock(), |found| loaded.take(found))?;
    } else {
        for file in files(path)? {
            let open = File::open(&file).map_err(|source| LoadError::Read {
                path: file.clone(),
                source,
            })?;
            each_object(&file, BufReader::with_capacity(1 << 16, open), |found| {
                loaded.take(found)
            })?;
        }
    }
    loaded.cluster.add_nodes_of_pods();
    if loaded.used.is_empty() {
        loaded.warn(Warning::Nothing {
            path: path.to_owned(),
        });
    }
    Ok(())
}

/// The files that `path` stands for.
fn files(path: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let read = |source| LoadError::Read {
        path: path.to_owned(),
        source,
    };
    let kind = fs::metadata(path).map_err(read)?;
    if kind.is_dir() {
        let mut files = Vec::new();
        walk(path, &mut files)?;
        if files.is_empty() {
            return Err(LoadError::EmptyFolder(path.to_owned()));
        }
        files.sort();
        return Ok(files);
    }
    // Pipes are fine: `--cluster <(kubectl get ...)`.
    Ok(vec![path.to_owned()])
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), LoadError> {
    let read = |source| LoadError::Read {
        path: folder.to_owned(),
        source,
    };
    for entry in fs::read_dir(folder).map_err(read)? {
        let entry = entry.map_err(read)?;
        let path = entry.path();
        // Symbolic links to folders are not followed, so that no loop is.
        if entry.file_type().map_err(read)?.is_dir() {
            walk(&path, files)?;
        } else if path.extension().is_some_and(|end| {
            ["yaml", "yml", "json"]
                .iter()
                .any(|known| end.eq_ignore_ascii_case(known))
        }) {
            files.push(path);
        }
    }
    Ok(())
}
