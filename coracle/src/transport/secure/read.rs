//! What is read of a certificate: whose it is, and until when.

use crate::transport::certificate::{CertificateName, Insecure, SCHEME};
use coracle_core::Mark;
use rustls::crypto::CryptoProvider;
use rustls::crypto::hash::HashAlgorithm;
use rustls::pki_types::CertificateDer;
use std::time::{Duration, SystemTime};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The one name among those of a certificate that is of this kind.
pub(super) fn name_of(certificate: &CertificateDer<'_>) -> Result<CertificateName, String> {
    let certificate = parsed(certificate)?;
    let mut found = None;
    for extension in certificate.extensions() {
        let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else { continue };
        for name in &names.general_names {
            let GeneralName::URI(uri) = name else { continue };
            if !uri.starts_with(SCHEME) {
                continue;
            }
            let name = CertificateName::parse(uri);
            let name = name.ok_or_else(|| format!("has a name that is none of Coracle's: {uri:?}"))?;
            if found.replace(name).is_some() {
                return Err("has two names of Coracle's, and must have one".to_owned());
            }
        }
    }
    found.ok_or_else(|| format!("has no name of the form {SCHEME}CLUSTER/node/ID"))
}

/// Whose the certificate of the other end is, if that is somebody in the own cluster, or in any if it is not known which is.
pub(super) fn known(leaf: &CertificateDer<'_>, cluster: Option<&str>) -> Result<CertificateName, Insecure> {
    let refused = |what: String| Insecure::Refused(format!("the certificate of the other end {what}"));
    let name = name_of(leaf).map_err(refused)?;
    match cluster {
        Some(own) if own != name.cluster => Err(refused(format!("is that of {name}, in another cluster"))),
        _ => Ok(name),
    }
}

/// Of which moment a certificate is, and for which key.
pub(super) fn mark_of(certificate: &CertificateDer<'_>, provider: &CryptoProvider) -> Result<Mark, String> {
    let parsed = parsed(certificate)?;
    let issued = u64::try_from(parsed.validity().not_before.timestamp()).unwrap_or_default();
    let hash = provider.cipher_suites.iter().find_map(|suite| {
        let hash = suite.tls13()?.common.hash_provider;
        (hash.algorithm() == HashAlgorithm::SHA256).then_some(hash)
    });
    let hash = hash.ok_or("cannot be hashed: the cryptography has no SHA-256")?;
    let key = hash.hash(parsed.public_key().raw);
    let key = key.as_ref().try_into().map_err(|_| "cannot be hashed".to_owned())?;
    Ok(Mark { issued, key })
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => Ok(parsed),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

/// When a certificate is not valid any more.
pub(super) fn expires(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let seconds = parsed(certificate).ok()?.validity().not_after.timestamp();
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}
