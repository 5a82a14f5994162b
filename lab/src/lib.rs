//! A K3s-shaped network in namespaces of its own.
