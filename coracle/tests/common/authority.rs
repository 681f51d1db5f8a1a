//! An authority for tests, and certificates of every kind, right and wrong.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use coracle::{Tls, TlsError, TlsFiles, TlsMode};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
    date_time_ymd,
};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Signs certificates, and keeps files in a directory of its own.
pub struct Authority {
    pub dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// From when until when, by years.
pub type Years = (i32, i32);

/// A certificate that is valid now.
pub const NOW: Years = (2020, 2120);

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { dir: tempfile::tempdir().unwrap(), issuer: Issuer::new(params, key), pem }
    }

    /// Files for whoever has these names, which are URIs.
    pub fn files(&self, file: &str, names: &[&str], years: Years) -> TlsFiles {
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            names.iter().map(|name| SanType::URI((*name).try_into().unwrap())).collect();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let at = |ending: &str| self.dir.path().join(format!("{file}.{ending}"));
        let files = TlsFiles { authority: at("ca"), certificate: at("crt"), key: at("key") };
        fs::write(&files.authority, &self.pem).unwrap();
        fs::write(&files.certificate, certificate.pem()).unwrap();
        write_key(&files.key, &key.serialize_pem());
        files
    }

    /// What node `id` of the cluster `east` has.
    pub fn node(&self, id: u64, mode: TlsMode) -> Tls {
        let name = format!("coracle://east/node/{id}");
        Tls::load(self.files(&name.replace('/', "-"), &[&name], NOW), mode).unwrap()
    }

    /// What a client of it has.
    pub fn client(&self, name: &str) -> Tls {
        let name = format!("coracle://east/client/{name}");
        Tls::load(self.files(&name.replace('/', "-"), &[&name], NOW), TlsMode::Require).unwrap()
    }

    /// Whoever has this name.
    pub fn named(&self, name: &str, years: Years) -> Result<Tls, TlsError> {
        Tls::load(self.files("named", &[name], years), TlsMode::Require)
    }

    /// Believes this one, with a certificate of another.
    pub fn misled(&self, by: &Authority, name: &str) -> Tls {
        let files = by.files("misled", &[name], NOW);
        fs::write(&files.authority, &self.pem).unwrap();
        Tls::load(files, TlsMode::Require).unwrap()
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }
}

pub fn write_key(path: &Path, pem: &str) -> PathBuf {
    fs::write(path, pem).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_owned()
}
