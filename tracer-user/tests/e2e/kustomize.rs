//! `kubectl kustomize`: what it makes of `deploy/base` is what `deploy/tracer.yaml` installs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Objects by kind and name.
fn objects(yaml: &str) -> Result<BTreeMap<String, Value>> {
    let mut found = BTreeMap::new();
    for document in serde_saphyr::from_multiple::<Value>(yaml)? {
        let name = format!("{} {}", document["kind"], document["metadata"]["name"]);
        ensure!(
            found.insert(name.clone(), document).is_none(),
            "{name} twice"
        );
    }
    Ok(found)
}

#[test]
#[ignore = "needs kubectl: `cargo xtask e2e`"]
fn kustomize_makes_what_is_installed() -> Result<()> {
    let programs = std::env::var_os(lab::kube::PROGRAMS).unwrap_or_default();
    let kubectl: PathBuf = std::env::split_paths(&programs)
        .map(|folder| folder.join("kubectl"))
        .find(|program| program.is_file())
        .context("there is no kubectl; run `cargo xtask e2e`")?;
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/base");
    let output = Command::new(kubectl).arg("kustomize").arg(base).output()?;
    let problem = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kubectl kustomize: {problem}");
    let made = objects(&String::from_utf8(output.stdout)?)?;
    let installed = objects(include_str!("../../../deploy/tracer.yaml"))?;
    ensure!(!installed.is_empty());
    assert_eq!(made, installed);
    Ok(())
}
