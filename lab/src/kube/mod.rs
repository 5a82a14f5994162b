//! A real Kubernetes in the lab's namespaces: etcd, API server and controller manager on the master,
//! containerd and kubelet on a node.
//!
//! The programs come from `cargo xtask test --only e2e`, which builds or unpacks them and names their
//! folders in [`PROGRAMS`]. All processes and files are gone with the value that started them.

mod control_plane;
mod image;
mod node;
mod program;

pub use control_plane::ControlPlane;
pub use image::{HTTPD_IMAGE, PAUSE_IMAGE};
pub use node::Node;

/// The environment variable with the search path of Kubernetes' programs.
pub const PROGRAMS: &str = "TRACER_KUBERNETES";
