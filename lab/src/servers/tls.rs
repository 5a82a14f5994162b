//! The lab's own certificate authority.

use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::plan::{KUBERNETES_SERVICE, MASTER, PODS};
use crate::traffic::HttpsClient;

/// A certificate authority and one server certificate that names every server of the lab: what is
/// wrong in the incident is never the certificate.
pub(crate) struct Authority {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    pub(crate) fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "tracer lab CA");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![
            "kubernetes.default.svc".to_owned(),
            "vault.vault.svc".to_owned(),
        ])?;
        let pods = PODS.iter().map(|pod| pod.addresses);
        for addresses in pods.chain([MASTER, KUBERNETES_SERVICE]) {
            let names = addresses.both();
            params
                .subject_alt_names
                .extend(names.map(SanType::IpAddress));
        }
        let certificate = params.signed_by(&key, &issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder
                    .with_no_client_auth()
                    .with_single_cert(vec![certificate.der().clone()], key)
            })
            .context("cannot set up the stand-ins' TLS")?;
        let mut roots = RootCertStore::empty();
        roots.add(issuer.der().clone())?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("cannot set up the clients' TLS")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }

    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    pub(crate) fn client(&self) -> HttpsClient {
        HttpsClient::new(Arc::clone(&self.client))
    }
}
