//! `cargo xtask manifests`: what is written twice in `deploy/`, kept the same.
//!
//! K3s applies single files from its auto-deploy folder, kustomize wants one a matter; Prometheus reads
//! plain rules, its operator a resource. The one is made from the other.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Say what differs instead of writing it
    #[arg(long)]
    pub(crate) check: bool,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    let deploy = workspace.root.join("deploy");
    for (name, wanted) in [
        ("tracer.yaml", plain(&deploy)?),
        ("monitoring/prometheusrule.yaml", rule(&deploy)?),
    ] {
        let path = deploy.join(name);
        let same = fs::read_to_string(&path).is_ok_and(|text| text == wanted);
        if same {
            continue;
        }
        if arguments.check {
            bail!("deploy/{name} is not what it is made from; run `cargo xtask manifests`");
        }
        fs::write(&path, wanted).with_context(|| format!("cannot write {}", path.display()))?;
        println!("deploy/{name}");
    }
    Ok(ExitCode::SUCCESS)
}

/// The base's resources in the order that kustomization.yaml names them.
fn plain(deploy: &Path) -> Result<String> {
    let base = deploy.join("base");
    let list = read(&base.join("kustomization.yaml"))?;
    let files: Vec<_> = list
        .lines()
        .filter_map(|line| line.strip_prefix("- "))
        .collect();
    if files.is_empty() {
        bail!("deploy/base/kustomization.yaml names no resources");
    }
    let mut text =
        "# Made from deploy/base by `cargo xtask manifests`: for K3s's auto-deploy folder,\n\
                    # /var/lib/rancher/k3s/server/manifests, and for `kubectl apply -f`.\n"
            .to_owned();
    for (index, file) in files.into_iter().enumerate() {
        if index > 0 {
            text.push_str("---\n");
        }
        text.push_str(&read(&base.join(file))?);
    }
    Ok(text)
}

/// The rules as the operator's resource has them.
fn rule(deploy: &Path) -> Result<String> {
    let rules = read(&deploy.join("prometheus/rules.yaml"))?;
    let mut text = "# Made from deploy/prometheus/rules.yaml by `cargo xtask manifests`, for the Prometheus operator.\n\
                    apiVersion: monitoring.coreos.com/v1\n\
                    kind: PrometheusRule\n\
                    metadata:\n  name: tracer\n  namespace: tracer\n  labels:\n    app.kubernetes.io/name: tracer\n\
                    spec:\n"
        .to_owned();
    for line in rules.lines().filter(|line| !line.starts_with('#')) {
        if !line.is_empty() {
            text.push_str("  ");
        }
        text.push_str(line);
        text.push('\n');
    }
    Ok(text)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
