//! Fresh identities without an endpoint each: a QUIC client whose TLS says what an iroh node says (raw ed25519 keys,
//! TLS 1.3, no server name), so that thousands of strangers share a few sockets.
//!
//! An iroh endpoint holds three megabytes; ten thousand identities would be thirty gigabytes of attacker. Whom it talks
//! to does not matter to an attacker, so the remote's key is not checked.

use std::{sync::Arc, time::Duration};

use noq::{
    ClientConfig, TransportConfig,
    crypto::rustls::QuicClientConfig,
    rustls::{
        self, DigitallySignedStruct, SignatureScheme,
        client::{
            AlwaysResolvesClientRawPublicKeys,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
        sign::CertifiedKey,
    },
};

/// A stranger keeps its connection open with a ping this often: well below the 10 s after which a node forgets a
/// silent one.
const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// What every identity shares, made once.
#[derive(Debug, Clone)]
pub(super) struct Identities {
    provider: Arc<CryptoProvider>,
    transport: Arc<TransportConfig>,
    alpn: Vec<u8>,
}

impl Identities {
    /// Identities that speak `alpn`.
    pub(super) fn new(alpn: &[u8]) -> Self {
        let mut transport = TransportConfig::default();
        transport.keep_alive_interval(Some(KEEP_ALIVE));
        Self { provider: Arc::new(ring::default_provider()), transport: Arc::new(transport), alpn: alpn.to_vec() }
    }

    /// The client side of a new identity, drawn at random.
    pub(super) fn fresh(&self) -> ClientConfig {
        let mut tls = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("ring speaks TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::new(fresh_key()))));
        tls.alpn_protocols = vec![self.alpn.clone()];
        // As iroh does: the name is known to the client only.
        tls.enable_sni = false;
        let crypto = QuicClientConfig::try_from(tls).expect("ring has the cipher of QUIC's first packets");
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(self.transport.clone());
        config
    }
}

/// A raw ed25519 key pair, drawn at random, as a TLS endpoint takes it that has no certificate.
pub fn fresh_key() -> CertifiedKey {
    // PKCS #8, version 1, ed25519 (RFC 8410, section 7): a fixed head, then the seed.
    const HEAD: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let seed: [u8; 32] = rand::random();
    let document = PrivatePkcs8KeyDer::from([&HEAD[..], &seed].concat());
    let key = ring::sign::any_eddsa_type(&document).expect("every 32 bytes are an ed25519 seed");
    let public = key.public_key().expect("ring derives the public key").to_vec();
    CertifiedKey::new(vec![CertificateDer::from(public)], key)
}

/// Takes every answer for the right one: checking it would only cost the attacker time.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
