//! Images out of one static program, as `docker save` writes them.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use ring::digest;
use serde_json::json;

use super::program;

/// Holds a pod's namespaces open.
pub const PAUSE_IMAGE: &str = "docker.io/library/pause:lab";
/// Answers every `GET /` on TCP port 8200, and has busybox's other programs.
pub const HTTPD_IMAGE: &str = "docker.io/library/httpd:lab";

/// Programs that a container finds under their own names.
const LINKS: [&str; 5] = ["sh", "sleep", "httpd", "wget", "nc"];

pub(super) fn write(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let busybox = std::fs::read(program::find("busybox")?).context("cannot read busybox")?;
    let layer = layer(&busybox)?;
    [
        (PAUSE_IMAGE, "pause.tar", vec!["/bin/sleep", "1000000"]),
        (
            HTTPD_IMAGE,
            "httpd.tar",
            vec!["/bin/httpd", "-f", "-p", "8200", "-h", "/www"],
        ),
    ]
    .into_iter()
    .map(|(name, file, command)| {
        let path = folder.join(file);
        std::fs::write(&path, archive(name, &layer, &command)?)?;
        Ok(path)
    })
    .collect()
}

fn archive(name: &str, layer: &[u8], command: &[&str]) -> Result<Vec<u8>> {
    let sum = hex(layer);
    let config = serde_json::to_vec(&json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Entrypoint": command, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]},
        "history": [{}],
    }))?;
    let config_file = format!("{}.json", hex(&config));
    let layer_file = format!("{sum}/layer.tar");
    let manifest = serde_json::to_vec(&json!([
        {"Config": config_file, "RepoTags": [name], "Layers": [layer_file]}
    ]))?;
    let mut archive = tar::Builder::new(Vec::new());
    add(&mut archive, &config_file, 0o644, &config)?;
    add(&mut archive, &layer_file, 0o644, layer)?;
    add(&mut archive, "manifest.json", 0o644, &manifest)?;
    Ok(archive.into_inner()?)
}

fn layer(busybox: &[u8]) -> Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    add(&mut layer, "bin/busybox", 0o755, busybox)?;
    for link in LINKS {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        layer.append_link(&mut header, format!("bin/{link}"), "busybox")?;
    }
    add(&mut layer, "www/index.html", 0o644, b"well\n")?;
    Ok(layer.into_inner()?)
}

fn add(archive: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    archive.append_data(&mut header, path, bytes)?;
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
