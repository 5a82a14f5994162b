//! Debian's cloud kernels: downloaded from their own suites and unpacked, never installed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::process;
use crate::setup::cache;

/// The kernel of a Debian suite.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kernel {
    /// Linux 5.10: no drop reasons
    #[value(name = "5.10")]
    Bullseye,
    /// Linux 6.1: the oldest with drop reasons
    #[value(name = "6.1")]
    Bookworm,
    /// Linux 6.12
    #[value(name = "6.12")]
    BookwormBackports,
    /// The newest that Debian builds for its stable release
    Newest,
    /// The oldest and the newest
    Ends,
    /// Each of them
    All,
}

impl Kernel {
    pub(super) const EACH: [Self; 4] = [
        Self::Bullseye,
        Self::Bookworm,
        Self::BookwormBackports,
        Self::Newest,
    ];

    fn suite(self) -> &'static str {
        match self {
            Self::Bullseye => "bullseye",
            Self::Bookworm => "bookworm",
            Self::BookwormBackports => "bookworm-backports",
            Self::Newest | Self::Ends | Self::All => "trixie-backports",
        }
    }

    /// The kernel, downloaded where it is not yet there.
    pub(super) fn files(self) -> Result<Files> {
        let suite = self.suite();
        let (entry, _) = cache::entry(
            &format!("kernel-{suite}-x86_64"),
            |entry| find_image(&entry.join("files")).is_some(),
            |entry| download(suite, entry),
        )?;
        let files = entry.join("files");
        let image = find_image(&files).context("the package has no kernel image")?;
        let (modules, version) = find_modules(&files).context("the package has no modules")?;
        if !modules.join("modules.dep").exists() {
            // Packages leave that to their installation. From 6.12 on the folder is below `usr` only.
            if !files.join("lib").exists() {
                symlink("usr/lib", files.join("lib"))?;
            }
            process::run(
                Command::new("/sbin/depmod")
                    .arg("-b")
                    .arg(&files)
                    .arg(&version),
            )?;
        }
        Ok(Files {
            root: files,
            image,
            modules,
            version,
        })
    }
}

/// An unpacked kernel.
pub(super) struct Files {
    /// Where its packages were unpacked.
    pub(super) root: PathBuf,
    /// What is booted.
    pub(super) image: PathBuf,
    /// `lib/modules/VERSION`.
    pub(super) modules: PathBuf,
    /// As `uname -r` says it.
    pub(super) version: String,
}

/// With an apt configuration of its own: the system's lists and sources are neither read nor changed.
fn download(suite: &str, entry: &Path) -> Result<()> {
    eprintln!("vm: downloading the kernel of Debian's {suite}");
    let folder = entry.display();
    for made in ["lists/partial", "cache/archives/partial", "files"] {
        fs::create_dir_all(entry.join(made))?;
    }
    fs::write(
        entry.join("sources.list"),
        format!(
            "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {} {suite} main\n",
            mirror()?
        ),
    )?;
    fs::write(
        entry.join("apt.conf"),
        format!(
            "Dir::Etc::sourcelist \"{folder}/sources.list\"; Dir::Etc::sourceparts \"-\";\n\
             Dir::State::lists \"{folder}/lists\"; Dir::State::status \"/dev/null\";\n\
             Dir::Cache \"{folder}/cache\"; APT::Sandbox::User \"\"; Acquire::Languages \"none\";\n"
        ),
    )?;
    let apt = |program: &str, seconds: &str| {
        let mut command = Command::new("timeout");
        command
            .args([seconds, program, "--quiet=2"])
            .env("APT_CONFIG", entry.join("apt.conf"))
            .current_dir(entry);
        command
    };
    process::run(apt("apt-get", "120").arg("update"))?;
    // The meta-package leads to the current version; a pinned one would age out of the mirror.
    let mut packages = depends(&mut apt("apt-cache", "60"), "linux-image-cloud-amd64")?;
    for package in packages.clone() {
        packages.extend(depends(&mut apt("apt-cache", "60"), &package)?);
    }
    process::run(apt("apt-get", "300").arg("download").args(&packages))?;
    for file in fs::read_dir(entry)? {
        let path = file?.path();
        if path.extension().is_some_and(|end| end == "deb") {
            process::run(
                Command::new("dpkg-deb")
                    .arg("--extract")
                    .arg(&path)
                    .arg(entry.join("files")),
            )?;
            fs::remove_file(&path)?;
        }
    }
    fs::remove_dir_all(entry.join("lists"))?;
    fs::remove_dir_all(entry.join("cache"))?;
    Ok(())
}

/// The mirror that this machine has Debian itself from: the one whose suites are neither of security nor of
/// somebody else's.
fn mirror() -> Result<String> {
    let targets = process::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(ORIGIN) $(LABEL)",
        "Created-By: Packages",
    ]))?;
    targets
        .lines()
        .find_map(|line| line.strip_suffix(" Debian Debian"))
        .map(str::to_owned)
        .context("apt on this machine has no sources of Debian's; `apt-get update` once, on Debian")
}

/// The kernel packages that `package` depends on; of the newest ones the image is in one of these.
fn depends(apt_cache: &mut Command, package: &str) -> Result<Vec<String>> {
    let text = process::output(apt_cache.args(["depends", package]))?;
    Ok(text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .filter(|name| {
            ["linux-image-", "linux-binary-", "linux-modules-"]
                .iter()
                .any(|start| name.starts_with(start))
        })
        .map(str::to_owned)
        .collect())
}

fn find_image(folder: &Path) -> Option<PathBuf> {
    let in_modules = fs::read_dir(folder.join("usr/lib/modules"))
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|version| version.path().join("vmlinuz"));
    let in_boot = fs::read_dir(folder.join("boot"))
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|file| file.path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
        });
    in_modules.chain(in_boot).find(|path| path.is_file())
}

fn find_modules(folder: &Path) -> Option<(PathBuf, String)> {
    ["usr/lib/modules", "lib/modules"]
        .into_iter()
        .flat_map(|at| fs::read_dir(folder.join(at)).into_iter().flatten())
        .filter_map(Result::ok)
        .map(|version| (version.path(), version.file_name()))
        .find(|(path, _)| path.join("kernel").is_dir())
        .and_then(|(path, name)| Some((path, name.into_string().ok()?)))
}
