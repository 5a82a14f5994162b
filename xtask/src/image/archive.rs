//! An OCI image archive of one file, the same bytes for the same input.
//!
//! Layout: <https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md>.

use anyhow::Result;
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::io::Write as _;

/// What the image is made of.
pub(super) struct Image<'a> {
    pub(super) name: &'a str,
    pub(super) tag: &'a str,
    pub(super) platform: Platform,
    pub(super) program: &'a [u8],
}

pub(super) struct Platform {
    /// As Go names it.
    pub(super) architecture: &'static str,
}

impl Image<'_> {
    /// The archive's bytes.
    pub(super) fn archive(&self) -> Result<Vec<u8>> {
        let layer = layer(self.program)?;
        let packed = gzip(&layer)?;
        let config = serde_json::to_vec(&json!({
            "architecture": self.platform.architecture,
            "os": "linux",
            "config": {"Entrypoint": ["/tracer"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        }))?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &packed)],
        }))?;
        let mut listed = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        listed["platform"] = json!({"architecture": self.platform.architecture, "os": "linux"});
        // containerd names the image by the first, others tag it by the second.
        listed["annotations"] = json!({
            "io.containerd.image.name": full_name(self.name, self.tag),
            "org.opencontainers.image.ref.name": self.tag,
        });
        let index = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [listed],
        }))?;

        let mut archive = tar::Builder::new(Vec::new());
        add(
            &mut archive,
            "oci-layout",
            0o644,
            br#"{"imageLayoutVersion":"1.0.0"}"#,
        )?;
        add(&mut archive, "index.json", 0o644, &index)?;
        for blob in [&config, &manifest, &packed] {
            let path = format!("blobs/sha256/{}", hex(blob));
            add(&mut archive, &path, 0o644, blob)?;
        }
        Ok(archive.into_inner()?)
    }
}

/// As containerd and the kubelet complete a short name.
fn full_name(name: &str, tag: &str) -> String {
    match name.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) => format!("{name}:{tag}"),
        Some(_) => format!("docker.io/{name}:{tag}"),
        None => format!("docker.io/library/{name}:{tag}"),
    }
}

fn layer(program: &[u8]) -> Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    add(&mut layer, "tracer", 0o755, program)?;
    Ok(layer.into_inner()?)
}

/// Nobody's file of no time: the same bytes whoever makes it, and whenever.
fn add(archive: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    archive.append_data(&mut header, path, bytes)?;
    Ok(())
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut packed = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::best());
    packed.write_all(bytes)?;
    Ok(packed.finish()?)
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::*;

    fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        tar::Archive::new(archive)
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                (entry.path().unwrap().display().to_string(), bytes)
            })
            .collect()
    }

    fn archive() -> Vec<u8> {
        let platform = Platform {
            architecture: "amd64",
        };
        Image {
            name: "tracer",
            tag: "1",
            platform,
            program: b"a program",
        }
        .archive()
        .unwrap()
    }

    #[test]
    fn each_blob_is_what_its_name_says_and_the_layer_holds_the_program() {
        let files = files(&archive());
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap();
            let bytes = &files[&format!("blobs/{}", digest.replace(':', "/"))];
            assert_eq!(digest, super::digest(bytes));
            assert_eq!(descriptor["size"], bytes.len());
            bytes.clone()
        };
        let index = json(&files["index.json"]);
        let listed = &index["manifests"][0];
        assert_eq!(
            listed["annotations"]["io.containerd.image.name"],
            "docker.io/library/tracer:1"
        );
        let manifest = json(&blob(listed));
        let config = json(&blob(&manifest["config"]));
        let mut layer = Vec::new();
        flate2::read::GzDecoder::new(&*blob(&manifest["layers"][0]))
            .read_to_end(&mut layer)
            .unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&layer));
        assert_eq!(self::files(&layer)["tracer"], b"a program");
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        assert_eq!(archive(), archive());
    }

    #[test]
    fn names_are_completed_as_containerd_does() {
        assert_eq!(full_name("tracer", "1"), "docker.io/library/tracer:1");
        assert_eq!(full_name("me/tracer", "1"), "docker.io/me/tracer:1");
        assert_eq!(full_name("reg.example/tracer", "1"), "reg.example/tracer:1");
    }
}
