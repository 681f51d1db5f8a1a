//! Certificates for those who have no authority of their own: one of the cluster, which signs those of its nodes and clients.
//!
//! All of it is in one directory, each certificate in `NAME.pem` and its key, which nobody else may read, in `NAME.key`. What
//! a file holds is never overwritten unless that is asked for, and then by a rename. The authority's key is needed to make
//! certificates and for nothing else: it is best kept where no node runs.

use coracle::{CertificateName, Role};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;

/// The authority's files begin with this.
const AUTHORITY: &str = "ca";

/// By how much the clocks of those who look at a new certificate may be behind.
const EARLIER: Duration = Duration::from_secs(3600);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Makes the authority of a cluster. Returns the files that it wrote.
pub fn init(dir: &Path, cluster: &str, days: u32) -> Result<[PathBuf; 2], String> {
    name(cluster, Role::Client("x".to_owned()))?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| cannot("make", dir, &error))?;
    let mut params = valid_for(days);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, cluster);
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let certificate = params.self_signed(&key).map_err(|error| error.to_string())?;
    write_both(dir, AUTHORITY, &certificate.pem(), &key.serialize_pem(), false)
}

/// Makes the certificate of a node or of a client, signed by the authority in the directory. `renew`: in the place of the one
/// that is there, by a new key. `hosts` are names and addresses by which clients may know it that compare those, as Redis
/// libraries do; nothing of Coracle does. One that is renewed keeps those that it has, if none are given.
pub fn sign(
    dir: &Path,
    role: Role,
    hosts: &[String],
    days: u32,
    renew: bool,
) -> Result<[PathBuf; 2], String> {
    let (at, key) = (dir.join(format!("{AUTHORITY}.pem")), dir.join(format!("{AUTHORITY}.key")));
    let read = |path: &Path| {
        let hint = "make the authority first, by `coracle certs init`";
        fs::read_to_string(path).map_err(|error| format!("{}; {hint}", cannot("read", path, &error)))
    };
    let authority = read(&at)?;
    let unusable = |error: &dyn std::fmt::Display| format!("{} is no authority: {error}", at.display());
    let key = KeyPair::from_pem(&read(&key)?).map_err(|error| unusable(&error))?;
    let name = name(&cluster_of(&authority).ok_or_else(|| unusable(&"it names no cluster"))?, role)?;
    let issuer = Issuer::from_ca_cert_pem(&authority, key).map_err(|error| unusable(&error))?;
    let mut params = valid_for(days);
    let uri = name.to_string().try_into().map_err(|_| format!("{name} cannot be a name"))?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    for host in hosts {
        params.subject_alt_names.push(host_name(host)?);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let file = match &name.role {
        Role::Node(id) => format!("node-{id}"),
        Role::Client(client) => format!("client-{client}"),
    };
    if renew && hosts.is_empty() {
        let old = fs::read_to_string(dir.join(format!("{file}.pem"))).unwrap_or_default();
        params.subject_alt_names.extend(hosts_of(&old).unwrap_or_default());
    }
    params.distinguished_name.push(DnType::CommonName, &file);
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let certificate = params.signed_by(&key, &issuer).map_err(|error| error.to_string())?;
    write_both(dir, &file, &certificate.pem(), &key.serialize_pem(), renew)
}

fn name(cluster: &str, role: Role) -> Result<CertificateName, String> {
    let name = CertificateName { cluster: cluster.to_owned(), role };
    let rule =
        "the words in it are of 1 to 64 letters, digits, '-', '_' and '.', and a node's id is at least 1";
    CertificateName::parse(&name.to_string()).ok_or_else(|| format!("{name} is no name: {rule}"))
}

/// A host's name or address, as certificates hold it.
fn host_name(host: &str) -> Result<SanType, String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let fits = |word: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&word.len()) && word.bytes().all(known)
    };
    let wrong = || format!("--host {host}: it is neither a host's name nor an address");
    let name = host.strip_prefix("*.").unwrap_or(host);
    if name.len() > 253 || !name.split('.').all(fits) {
        return Err(wrong());
    }
    host.try_into().map(SanType::DnsName).map_err(|_| wrong())
}

/// The hosts that a certificate names.
fn hosts_of(pem: &str) -> Option<Vec<SanType>> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let host = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => host_name(name).ok(),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(IpAddr::from).map(SanType::IpAddress),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(IpAddr::from).map(SanType::IpAddress),
        },
        _ => None,
    };
    Some(names.value.general_names.iter().filter_map(host).collect())
}

/// The cluster that an authority names.
fn cluster_of(pem: &str) -> Option<String> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    certificate.subject().iter_common_name().next()?.as_str().ok().map(str::to_owned)
}

fn valid_for(days: u32) -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = (now - EARLIER).into();
    params.not_after = (now + DAY * days).into();
    params
}

fn write_both(
    dir: &Path,
    file: &str,
    certificate: &str,
    key: &str,
    renew: bool,
) -> Result<[PathBuf; 2], String> {
    let paths = [dir.join(format!("{file}.key")), dir.join(format!("{file}.pem"))];
    if let Some(path) = paths.iter().find(|path| path.exists()).filter(|_| !renew) {
        return Err(format!("{} is there already, and nothing was changed", path.display()));
    }
    for (path, text, mode) in [(&paths[0], key, 0o600), (&paths[1], certificate, 0o644)] {
        let new = path.with_extension("tmp");
        let written = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new);
        written
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&new, path))
            .map_err(|error| cannot("write", path, &error))?;
    }
    Ok(paths)
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle::raft::NodeId;
    use coracle::{Tls, TlsFiles, TlsMode};
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_is_made_can_be_used_and_is_overwritten_by_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("new/certs");
        assert!(
            sign(&dir, Role::Node(NodeId(1)), &[], 10, false).unwrap_err().contains("coracle certs init")
        );
        let [authority_key, authority] = init(&dir, "east", 100).unwrap();
        assert!(init(&dir, "east", 100).unwrap_err().contains("there already"));
        let load = |role: Role, renew| {
            let [key, certificate] = sign(&dir, role, &[], 10, renew)?;
            assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o600);
            let files = TlsFiles { authority: authority.clone(), certificate, key };
            Ok::<_, String>(Tls::load(files, TlsMode::Require).unwrap())
        };
        let node = load(Role::Node(NodeId(3)), false).unwrap();
        assert_eq!(node.name().to_string(), "coracle://east/node/3");
        let left = node.expires().duration_since(SystemTime::now()).unwrap();
        assert!(left <= DAY * 10 && left > DAY * 9, "{left:?}");
        let client = load(Role::Client("backup".to_owned()), false).unwrap();
        assert_eq!(client.name().to_string(), "coracle://east/client/backup");
        assert!(load(Role::Node(NodeId(3)), false).unwrap_err().contains("there already"));
        load(Role::Node(NodeId(3)), true).unwrap();
        node.reload().unwrap();
        assert_eq!(fs::metadata(authority_key).unwrap().mode() & 0o777, 0o600);
        for wrong in ["", "ea st", "east/node/3"] {
            assert!(init(&dir.join("other"), wrong, 1).is_err(), "{wrong:?}");
            assert!(load(Role::Client(wrong.to_owned()), false).is_err(), "{wrong:?}");
        }
        assert!(load(Role::Node(NodeId(0)), false).is_err());
    }

    #[test]
    fn hosts_are_named_beside_the_node_and_kept_when_it_is_renewed() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), "east", 100).unwrap();
        let hosts = |given: &[&str], renew| {
            let given: Vec<String> = given.iter().map(|host| (*host).to_owned()).collect();
            let [_, certificate] = sign(dir.path(), Role::Node(NodeId(1)), &given, 10, renew)?;
            Ok::<_, String>(hosts_of(&fs::read_to_string(certificate).unwrap()).unwrap())
        };
        let all = ["db-1.example.com", "192.0.2.1", "2001:db8::1", "*.example.com"];
        let said: Vec<SanType> = all.iter().map(|host| host_name(host).unwrap()).collect();
        assert_eq!(hosts(&all, false).unwrap(), said);
        assert_eq!(hosts(&[], true).unwrap(), said);
        assert_eq!(hosts(&["other"], true).unwrap(), [host_name("other").unwrap()]);
        for wrong in ["", "a b", "a..b", "-*", "a/b", "coracle://east/node/2"] {
            assert!(hosts(&[wrong], true).unwrap_err().contains("--host"), "{wrong:?}");
        }
    }
}
