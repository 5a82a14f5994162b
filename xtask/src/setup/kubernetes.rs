//! A real Kubernetes: the servers built from Debian's source package, and what they need (etcd, containerd,
//! runc, CNI plugins) unpacked from Debian's packages. Nothing is installed and nothing needs root.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{cache, debian};
use crate::process;
use crate::workspace::Workspace;

const VERSION: &str = "1.20.2";
/// bookworm's, and the sum of it: another source may need other patches.
const SOURCE: &str = "kubernetes_1.20.5+really1.20.2.orig.tar.gz";
const SHA256: &str = "b83c0780efb182d928dc63d46488a847f161f04e40a94b96bf5247dd671ecdfc";
/// What is built.
const PROGRAMS: [&str; 4] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kubelet",
    "kubectl",
];
/// What is unpacked beside it.
const PACKAGES: [&str; 6] = [
    "etcd-server",
    "containerd",
    "runc",
    "containernetworking-plugins",
    "prometheus",
    "busybox-static",
];
const COMPILER: [&str; 2] = ["golang-1.19-go", "golang-1.19-src"];
/// Kubernetes 1.20 vendors 1.0.1, whose map iteration crashes when built by Go 1.18 or later; this is 1.0.2.
const REFLECT2: &str = "golang-github-modern-go-reflect2-dev";

pub(super) fn ensure(workspace: &Workspace) -> Result<bool> {
    let (_, built) = cache::entry(
        &key("kubernetes", VERSION),
        |entry| {
            PROGRAMS
                .iter()
                .all(|name| entry.join("bin").join(name).is_file())
        },
        |entry| build(workspace, entry),
    )?;
    let (_, unpacked) = cache::entry(
        &key("kubernetes-packages", VERSION),
        |entry| entry.join("bin/busybox").is_file() && entry.join("usr/bin/etcd").is_file(),
        |entry| {
            eprintln!("setup: unpacking what Kubernetes needs");
            debian::unpack(workspace, &PACKAGES, entry)
        },
    )?;
    Ok(built || unpacked)
}

/// The folders where the programs are, as a search path.
pub(crate) fn find() -> Result<std::ffi::OsString> {
    let cache = cache::folder()?;
    let packages = cache.join(key("kubernetes-packages", VERSION));
    Ok(env::join_paths([
        cache.join(key("kubernetes", VERSION)).join("bin"),
        packages.join("usr/bin"),
        packages.join("usr/sbin"),
        packages.join("usr/lib/cni"),
        packages.join("bin"),
    ])?)
}

fn key(name: &str, version: &str) -> String {
    format!("{name}-{version}-{}", env::consts::ARCH)
}

fn build(workspace: &Workspace, entry: &Path) -> Result<()> {
    if process::find("apt-get").is_none() {
        bail!(
            "Kubernetes is built from Debian's source package, and there is no apt-get here; \
             run this on Debian 12"
        );
    }
    eprintln!("setup: building Kubernetes {VERSION} (about four minutes)");
    let work = entry.join("build");
    fs::create_dir(&work)?;
    debian::unpack(workspace, &[COMPILER[0], COMPILER[1], REFLECT2], &work)?;
    fetch_source(&work)?;

    let go = Go::new(&work)?;
    // The one file that upstream does not check in.
    let generator = work.join("openapi-gen");
    go.build(
        "./vendor/k8s.io/kube-openapi/cmd/openapi-gen",
        &generator,
        &[],
    )?;
    let packages = go.packages_with_openapi()?;
    let violations = work.join("violations");
    process::run(
        go.command(&generator)
            .args(["--logtostderr", "-i", &packages.join(",")])
            .args(["-p", "k8s.io/kubernetes/pkg/generated/openapi"])
            .args(["-O", "zz_generated.openapi", "-h"])
            .arg("vendor/k8s.io/code-generator/hack/boilerplate.go.txt")
            .arg("-r")
            .arg(&violations),
    )?;
    // Upstream's own check that the generated file is right.
    if fs::read(&violations)?
        != fs::read(go.source.join("api/api-rules/violation_exceptions.list"))?
    {
        bail!("the generated OpenAPI definitions of Kubernetes are not what upstream expects");
    }

    let git_version = format!("v{VERSION}");
    let mut flags = "-s -w".to_owned();
    for package in ["component-base/version", "client-go/pkg/version"] {
        for (name, value) in [
            ("gitVersion", git_version.as_str()),
            ("gitMajor", "1"),
            ("gitMinor", "20"),
        ] {
            // Writing to a string cannot fail.
            let _ = write!(
                flags,
                " -X k8s.io/kubernetes/vendor/k8s.io/{package}.{name}={value}"
            );
        }
    }
    for program in PROGRAMS {
        let to = entry.join("bin").join(program);
        let options = ["-tags", "providerless", "-trimpath", "-ldflags", &flags];
        go.build(&format!("./cmd/{program}"), &to, &options)?;
    }
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
}

/// By an apt configuration of our own: the machine's own seldom names the sources of packages.
fn fetch_source(work: &Path) -> Result<()> {
    for folder in [
        "apt/parts",
        "apt/lists/partial",
        "apt/cache/archives/partial",
    ] {
        fs::create_dir_all(work.join(folder))?;
    }
    let mut sources = 0;
    let given = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten();
    for file in given.filter_map(Result::ok) {
        let text = fs::read_to_string(file.path()).unwrap_or_default();
        if text.contains("debian-archive-keyring") {
            let text = text.replace("Types: deb\n", "Types: deb deb-src\n");
            fs::write(work.join("apt/parts").join(file.file_name()), text)?;
            sources += 1;
        }
    }
    let list = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    let lines: Vec<_> = list
        .lines()
        .filter_map(|line| line.strip_prefix("deb "))
        .map(|rest| format!("deb-src {rest}\n"))
        .collect();
    if !lines.is_empty() {
        fs::write(work.join("apt/parts/list.list"), lines.concat())?;
        sources += 1;
    }
    if sources == 0 {
        bail!("apt on this machine has no sources of Debian's; expected some in /etc/apt");
    }
    let apt = |arguments: &[&str]| {
        let folder = |name: &str| format!("{name}={}", work.join("apt").display());
        process::run(
            Command::new("apt-get")
                .arg("--quiet=2")
                .args(["-o", "Dir::Etc::sourcelist=/dev/null"])
                .args(["-o", &(folder("Dir::Etc::sourceparts") + "/parts")])
                .args(["-o", &(folder("Dir::State::Lists") + "/lists")])
                .args(["-o", &(folder("Dir::Cache") + "/cache")])
                // The folders are ours, not _apt's.
                .args(["-o", "APT::Sandbox::User=root"])
                .args(arguments)
                .current_dir(work),
        )
    };
    apt(&["update"])?;
    apt(&["source", "--download-only", "kubernetes"])?;

    let sum = process::output(Command::new("sha256sum").arg(work.join(SOURCE)))?;
    if !sum.starts_with(SHA256) {
        bail!(
            "{SOURCE} from Debian's source package is not the one this build is known to work with"
        );
    }
    process::run(
        Command::new("tar")
            .args(["--extract", "--file", SOURCE])
            .current_dir(work),
    )
}

/// The compiler, and the source as it wants to see it.
struct Go {
    work: PathBuf,
    root: PathBuf,
    source: PathBuf,
}

impl Go {
    fn new(work: &Path) -> Result<Self> {
        let folder = work.join("gopath/src/k8s.io");
        fs::create_dir_all(&folder)?;
        let source = folder.join("kubernetes");
        fs::rename(work.join(format!("kubernetes-{VERSION}")), &source)
            .context("Debian's source package does not hold the source where it used to")?;

        let vendored = source.join("vendor/github.com/modern-go/reflect2");
        let fixed = work.join("usr/share/gocode/src/github.com/modern-go/reflect2");
        let is_code = |path: &Path| {
            path.extension()
                .is_some_and(|end| end == "go" || end == "s")
        };
        for file in fs::read_dir(&vendored)? {
            let path = file?.path();
            if is_code(&path) {
                fs::remove_file(path)?;
            }
        }
        for file in fs::read_dir(&fixed)? {
            let file = file?;
            if is_code(&file.path()) {
                fs::copy(file.path(), vendored.join(file.file_name()))?;
            }
        }
        Ok(Self {
            work: work.to_owned(),
            root: work.join("usr/lib/go-1.19"),
            source,
        })
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = [self.root.join("bin")]
            .into_iter()
            .chain(env::split_paths(&path));
        command
            .current_dir(&self.source)
            .env("GOROOT", &self.root)
            .env("GOPATH", self.work.join("gopath"))
            .env("GOCACHE", self.work.join("gocache"))
            .env("GO111MODULE", "off")
            .env("GOPROXY", "off")
            .env("GOFLAGS", "")
            .env("CGO_ENABLED", "0");
        if let Ok(path) = env::join_paths(folders) {
            command.env("PATH", path);
        }
        command
    }

    fn build(&self, package: &str, to: &Path, options: &[&str]) -> Result<()> {
        process::run(
            self.command(&self.root.join("bin/go"))
                .arg("build")
                .args(options)
                .arg("-o")
                .args([to, Path::new(package)]),
        )
        .with_context(|| format!("could not build {package} of Kubernetes {VERSION}"))
    }

    /// The packages whose types the API server describes, as upstream's makefile finds them.
    fn packages_with_openapi(&self) -> Result<Vec<String>> {
        let aside = [
            "/code-generator/",
            "/sample-apiserver/",
            "testdata",
            "_test.go",
            "/kube-openapi/",
            "/gengo/",
        ];
        let found = process::output(
            self.command(Path::new("grep"))
                .args(["-rl", "--include=*.go", "+k8s:openapi-gen="])
                .args([
                    "staging/src/k8s.io",
                    "vendor/k8s.io",
                    "pkg",
                    "cmd",
                    "plugin",
                ]),
        )?;
        let mut packages: Vec<_> = found
            .lines()
            .filter(|file| !aside.iter().any(|part| file.contains(part)))
            .filter_map(|file| file.rsplit_once('/'))
            .map(|(folder, _)| match folder.strip_prefix("staging/src/") {
                Some(staged) => format!("k8s.io/kubernetes/vendor/{staged}"),
                None => format!("k8s.io/kubernetes/{folder}"),
            })
            .collect();
        packages.sort_unstable();
        packages.dedup();
        Ok(packages)
    }
}
