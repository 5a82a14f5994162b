//! `--cluster PATH`: a file, a folder, or standard input.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tracer_policy::Cluster;

use super::documents::each_object;
use super::error::{LoadError, Warning};
use super::objects::Loaded;
use super::stream::Found;

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
    read_into(path, &mut loaded, None)?;
    Ok(loaded)
}

/// As [`load`], as if the objects were applied to a cluster that is there already.
///
/// # Errors
/// As of [`load`].
pub fn load_onto(path: &Path, cluster: Cluster) -> Result<Loaded, LoadError> {
    load_into(path, cluster, None)
}

/// As [`load_onto`]; objects that name no namespace belong to `namespace`, as if applied with `kubectl -n`.
///
/// # Errors
/// As of [`load`].
pub fn load_into(
    path: &Path,
    cluster: Cluster,
    namespace: Option<&str>,
) -> Result<Loaded, LoadError> {
    let mut loaded = Loaded::default();
    loaded.cluster = cluster;
    read_into(path, &mut loaded, namespace)?;
    Ok(loaded)
}

fn read_into(path: &Path, loaded: &mut Loaded, namespace: Option<&str>) -> Result<(), LoadError> {
    let take = |loaded: &mut Loaded, mut found: Found| {
        if let Some(namespace) = namespace {
            settle(&mut found.object, namespace);
        }
        loaded.take(found)
    };
    if path == Path::new("-") {
        each_object(path, io::stdin().lock(), |found| take(loaded, found))?;
    } else {
        let is_folder = path.is_dir();
        if is_folder {
            loaded.comes_from_folder();
        }
        for file in files(path)? {
            let open = File::open(&file).map_err(|source| LoadError::Read {
                path: file.clone(),
                source,
            })?;
            let reader = BufReader::with_capacity(1 << 16, open);
            match each_object(&file, reader, |found| take(loaded, found)) {
                Err(LoadError::Syntax {
                    place,
                    template: true,
                    ..
                }) if is_folder => loaded.warn(Warning::Foreign {
                    place: *place,
                    what: "a template that is not rendered",
                }),
                other => other?,
            }
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

/// Kinds that belong to no namespace, of those that are read.
const CLUSTER_WIDE: [&str; 9] = [
    "Namespace",
    "Node",
    "AdminNetworkPolicy",
    "BaselineAdminNetworkPolicy",
    "ClusterNetworkPolicy",
    "GlobalNetworkPolicy",
    "GlobalNetworkSet",
    "Tier",
    "APIService",
];

/// Gives an object the namespace that it does not name.
fn settle(object: &mut Value, namespace: &str) {
    let kind = object.get("kind").and_then(Value::as_str);
    let wide = |kind: &str| CLUSTER_WIDE.contains(&kind) || kind.ends_with("WebhookConfiguration");
    if kind.is_none_or(wide) {
        return;
    }
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        let own = metadata.entry("namespace").or_insert(Value::Null);
        if own.is_null() || own == "" {
            *own = namespace.into();
        }
    }
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
