//! Encrypted connections: who gets in, who does not, and that both are told why.

use crate::authority::{Authority, NOW};
use crate::kit::*;
use coracle::raft::{Boot, NodeId};
use coracle::transport::tcp::{Local, ProbeError, TcpConfig};
use coracle::transport::{Inbound, PeerMessage};
use coracle::wire::{AlarmReason, Hello, Incoming, Purpose, RefusedReason};
use coracle::{Tls, TlsError, TlsFiles, TlsMode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

fn with(tls: Option<Tls>) -> TcpConfig {
    TcpConfig { tls, ..patient() }
}

async fn node(id: u64, tls: impl Into<Option<Tls>>) -> Node {
    Node::at(LOOPBACK, local(id, Some(CLUSTER)), with(tls.into())).await
}

/// Whether the second node, which dials the first, gets a message to it and one back.
async fn meet(mut one: Node, mut two: Node) -> bool {
    if !dialed(&two, 1, &one.address()).await {
        return false;
    }
    two.send(peer(1), forward(7, 10)).await;
    assert!(matches!(one.message().await, (from, _, PeerMessage::Forward(_)) if from == peer(2)));
    one.send(peer(2), forward(8, 10)).await;
    assert!(matches!(two.message().await, (from, _, PeerMessage::Forward(_)) if from == peer(1)));
    true
}

/// Whether a node gets a connection to another one; not, if it has failed twice.
async fn dialed(node: &Node, id: u64, address: &str) -> bool {
    node.knows(&[(id, address)]);
    while node.tcp.counts().dials < 3 {
        if node.tcp.peer(peer(id)).is_some() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    false
}

#[tokio::test]
async fn two_nodes_with_certificates_talk_and_nobody_between_them_can_read_it() {
    let authority = Authority::new();
    let require = |id| authority.node(id, TlsMode::Require);
    let mut one = node(1, require(1)).await;
    let two = node(2, require(2)).await;
    let (tap, heard) = Tap::to(&one.address()).await;
    two.knows(&[(1, &tap)]);
    two.send(peer(1), forward(7, 100)).await;
    assert!(matches!(one.message().await, (from, _, PeerMessage::Forward(_)) if from == peer(2)));
    // What `forward` sends is a hundred sevens, and every frame begins with this word.
    let heard = heard.lock().unwrap();
    for secret in [&[7; 32][..], b"CRCL"] {
        assert!(!heard.windows(secret.len()).any(|window| window == secret));
    }
    assert!(heard.len() > 500, "something went through");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_at_both_ends() {
    let warnings = Warnings::collect();
    let (right, wrong) = (Authority::new(), Authority::new());
    let require = TlsMode::Require;
    assert!(!meet(node(1, right.node(1, require)).await, node(2, wrong.node(2, require)).await).await);
    assert_eq!(
        warnings.with("connection is not secure: invalid peer certificate"),
        1,
        "the one that dials says so once: {:?}",
        warnings.all()
    );
    // It believes the right one, and so goes on; it is the other end that does not believe it.
    let misled = right.misled(&wrong, "coracle://east/node/2");
    assert!(!meet(node(1, right.node(1, require)).await, node(2, misled).await).await);
    assert!(warnings.with("refused a connection: invalid peer certificate") >= 1);
    assert!(warnings.with("connection is not secure: received fatal alert") >= 1, "and is told");
}

#[tokio::test]
async fn the_certificate_of_another_node_or_cluster_or_time_is_refused() {
    let authority = Authority::new();
    let require = TlsMode::Require;
    let named = |name: &str, years| authority.named(name, years).unwrap();
    assert!(meet(node(1, authority.node(1, require)).await, node(2, authority.node(2, require)).await).await);
    for (wrong, word) in [
        (named("coracle://east/node/3", NOW), "none of node 2"),
        (named("coracle://east/client/2", NOW), "none of node 2"),
        (named("coracle://west/node/2", NOW), "in another cluster"),
        (named("coracle://east/node/2", (2019, 2020)), "expired"),
        (named("coracle://east/node/2", (2119, 2120)), "not valid yet"),
    ] {
        // Both ends see it: the one that dials when it judges who answers, the other when it is dialed.
        for dials in [true, false] {
            let warnings = Warnings::collect();
            let (one, two) = (node(1, authority.node(1, require)).await, node(2, wrong.clone()).await);
            let name = wrong.name();
            let met = if dials { meet(one, two).await } else { dialed(&one, 2, &two.address()).await };
            assert!(!met, "{name} {dials}");
            assert!(warnings.with(word) >= 1, "{name} {dials}: {:?}", warnings.all());
        }
    }
}

#[tokio::test]
async fn where_it_is_required_a_plain_connection_is_refused_in_words() {
    let authority = Authority::new();
    let node = node(1, authority.node(1, TlsMode::Require)).await;
    let mut stranger = Stranger::connect(&node.address()).await;
    match stranger.greet(&hello(2, 1)).await {
        Some(Incoming::Close(close)) => assert!(close.text.contains("none but encrypted"), "{}", close.text),
        other => panic!("a refusal was expected: {other:?}"),
    }
    assert!(stranger.hear().await.is_none(), "and the connection ends");
}

#[tokio::test]
async fn a_node_without_a_certificate_says_so_to_one_that_has_one() {
    let warnings = Warnings::collect();
    let authority = Authority::new();
    assert!(!meet(node(1, None).await, node(2, authority.node(2, TlsMode::Require)).await).await);
    assert!(warnings.with("this node has no certificate") >= 1);
}

#[tokio::test]
async fn a_cluster_goes_over_node_by_node() {
    let authority = Authority::new();
    let tls = |id, mode| authority.node(id, mode);
    let (prefer, require) = (TlsMode::Prefer, TlsMode::Require);
    for (one, two) in [
        (None, Some(tls(2, prefer))),
        (Some(tls(1, prefer)), None),
        (Some(tls(1, prefer)), Some(tls(2, prefer))),
        (Some(tls(1, prefer)), Some(tls(2, require))),
        (Some(tls(1, require)), Some(tls(2, prefer))),
        (Some(tls(1, require)), Some(tls(2, require))),
    ] {
        let what = format!("{one:?} {two:?}");
        assert!(meet(node(1, one).await, node(2, two).await).await, "{what}");
    }
    assert!(!meet(node(1, None).await, node(2, tls(2, require)).await).await);
    assert!(!meet(node(1, tls(1, require)).await, node(2, None).await).await);
}

#[tokio::test]
async fn whoever_prefers_it_never_falls_back_to_plain_after_a_wrong_certificate() {
    let (right, wrong) = (Authority::new(), Authority::new());
    let prefer = TlsMode::Prefer;
    let (one, two) = (node(1, right.node(1, prefer)).await, node(2, wrong.node(2, prefer)).await);
    assert!(!meet(one, two).await);
    let (one, two) =
        (node(1, right.node(1, prefer)).await, node(2, right.misled(&wrong, "coracle://east/node/2")).await);
    assert!(!meet(one, two).await);
}

#[tokio::test]
async fn a_client_needs_a_certificate_too_and_is_no_node() {
    let authority = Authority::new();
    let mut one = node(1, authority.node(1, TlsMode::Require)).await;
    let client = authority.client("billing");
    let mut ask = hello(2, 1);
    (ask.purpose, ask.to, ask.to_incarnation) = (Purpose::Client, NodeId(0), None);
    ask.facts.from.id = NodeId(0);
    let answer = greeted(&client, &one.address(), &ask).await;
    assert!(answer.is_none(), "who serves clients says welcome, and nobody does here");
    assert!(matches!(one.next().await, Inbound::Client(_)));
    for purpose in [Purpose::Raft, Purpose::Probe, Purpose::Founding] {
        let hello = Hello { purpose, ..hello(2, 1) };
        match greeted(&client, &one.address(), &hello).await {
            Some(Incoming::Refused(refused)) => assert_eq!(refused.reason, RefusedReason::Certificate),
            other => panic!("{purpose:?}: a refusal was expected: {other:?}"),
        }
    }
}

/// What a node answers somebody with this certificate.
async fn greeted(tls: &Tls, address: &str, hello: &Hello) -> Option<Incoming> {
    let files = tls.files();
    let config = rustls_client(files, &[&rustls::version::TLS13], true);
    let stream = TcpStream::connect(address).await.unwrap();
    let mut stream = config.connect("coracle".try_into().unwrap(), stream).await.ok()?;
    stream.write_all(&hello.encode()).await.ok()?;
    let (mut buffer, mut decoder) = (bytes::BytesMut::new(), coracle::wire::Decoder::new(64 << 20));
    let heard = async {
        loop {
            if let Some((incoming, _)) = decoder.next(&mut buffer).unwrap() {
                return Some(incoming);
            }
            if let Ok(0) | Err(_) = stream.read_buf(&mut buffer).await {
                return None;
            }
        }
    };
    timeout(Duration::from_millis(500), heard).await.ok().flatten()
}

/// Somebody else's program that speaks TLS.
fn rustls_client(
    files: &TlsFiles,
    versions: &[&'static rustls::SupportedProtocolVersion],
    shows: bool,
) -> tokio_rustls::TlsConnector {
    #[derive(Debug)]
    struct Anybody;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::{DigitallySignedStruct, SignatureScheme};
    impl ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &rustls::pki_types::ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
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
            rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let config = if shows {
        let chain = CertificateDer::pem_file_iter(&files.certificate).unwrap().map(Result::unwrap).collect();
        builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&files.key).unwrap()).unwrap()
    } else {
        builder.with_no_client_auth()
    };
    Arc::new(config).into()
}

#[tokio::test]
async fn whoever_shows_no_certificate_or_speaks_an_older_tls_is_refused() {
    let authority = Authority::new();
    let node = node(1, authority.node(1, TlsMode::Prefer)).await;
    let files = authority.node(2, TlsMode::Require).files().clone();
    for (versions, shows) in [(&rustls::version::TLS13, false), (&rustls::version::TLS12, true)] {
        let refused = node.tcp.counts().refused;
        let stream = TcpStream::connect(node.address()).await.unwrap();
        let connector = rustls_client(&files, &[versions], shows);
        let heard = async {
            let mut stream = connector.connect("coracle".try_into().unwrap(), stream).await?;
            stream.write_all(&hello(2, 1).encode()).await?;
            stream.read_u8().await
        };
        let heard = timeout(PATIENCE, heard).await.expect("in time");
        assert!(heard.is_err(), "{versions:?}: the connection ends");
        until(|| node.tcp.counts().refused == refused + 1).await;
    }
}

#[tokio::test]
async fn half_a_handshake_ends_in_time_and_holds_nobody_up() {
    let authority = Authority::new();
    let tls = authority.node(1, TlsMode::Require);
    let one = Node::at(LOOPBACK, local(1, Some(CLUSTER)), TcpConfig { tls: Some(tls), ..curt() }).await;
    for beginning in [&[][..], &[0x16], &[0x16, 3, 1, 2, 0, 1, 0], &[0x16, 3, 1, 0xff, 0xff, 1, 2, 3]] {
        let mut stranger = TcpStream::connect(one.address()).await.unwrap();
        stranger.write_all(beginning).await.unwrap();
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, stranger.read_to_end(&mut rest)).await.expect("it ends");
    }
    assert!(meet(one, node(2, authority.node(2, TlsMode::Require)).await).await);
}

#[tokio::test]
async fn a_renewed_certificate_is_used_for_new_connections_and_disturbs_no_old_one() {
    let authority = Authority::new();
    let (one, two) = (authority.node(1, TlsMode::Require), authority.node(2, TlsMode::Require));
    let mut first = node(1, one.clone()).await;
    let second = node(2, two.clone()).await;
    second.knows(&[(1, &first.address())]);
    second.send(peer(1), forward(1, 10)).await;
    let _ = first.message().await;
    let before = one.expires();
    let mut newer = authority.files("newer", &["coracle://east/node/1"], (2020, 2090));
    replace(&newer, one.files());
    one.reload().unwrap();
    assert!(one.expires() < before);
    assert!(second.tcp.send(peer(1), forward(2, 10)), "the connection is there still");
    let _ = first.message().await;
    // Whoever comes now sees the new one.
    let third = node(3, authority.node(3, TlsMode::Require)).await;
    assert!(dialed(&third, 1, &first.address()).await);
    // Another's, and one that cannot be used, change nothing.
    let expires = one.expires();
    newer = authority.files("newer", &["coracle://east/node/9"], NOW);
    replace(&newer, one.files());
    assert!(matches!(one.reload(), Err(TlsError::Renamed { .. })));
    fs::write(&one.files().certificate, "nothing").unwrap();
    assert!(matches!(one.reload(), Err(TlsError::File { .. })));
    assert_eq!((one.expires(), one.name().to_string()), (expires, "coracle://east/node/1".to_owned()));
}

fn replace(from: &TlsFiles, to: &TlsFiles) {
    fs::copy(&from.certificate, &to.certificate).unwrap();
    fs::copy(&from.key, &to.key).unwrap();
}

#[test]
fn files_that_cannot_be_used_are_refused_in_words() {
    let authority = Authority::new();
    let load =
        |files: &TlsFiles| Tls::load(files.clone(), TlsMode::Require).map(|_| ()).unwrap_err().to_string();
    let good = || authority.files("good", &["coracle://east/node/1"], NOW);
    assert!(Tls::load(good(), TlsMode::Require).unwrap().expires() > SystemTime::now());
    let files = good();
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(load(&files).contains("chmod 600"), "{}", load(&files));
    let files = good();
    fs::remove_file(&files.key).unwrap();
    assert!(load(&files).contains("good.key"), "{}", load(&files));
    let files = good();
    fs::write(&files.certificate, "").unwrap();
    assert!(load(&files).contains("holds no certificate"), "{}", load(&files));
    // The key of another.
    let (files, other) = (good(), authority.files("other", &["coracle://east/node/1"], NOW));
    fs::copy(&other.key, &files.key).unwrap();
    assert!(load(&files).contains("cannot be used"), "{}", load(&files));
    for (names, word) in [
        (&[][..], "no name of the form"),
        (&["https://example.org/"][..], "no name of the form"),
        (&["coracle://east/node/0"], "none of Coracle's"),
        (&["coracle://east/node/1", "coracle://east/node/2"], "two names"),
    ] {
        let files = authority.files("named", names, NOW);
        assert!(load(&files).contains(word), "{names:?}: {}", load(&files));
    }
}

/// D5.2.10: where it is certain who speaks, a copy of a directory is shut out and not only told of.
#[tokio::test]
async fn a_copy_of_a_directory_is_shut_out() {
    let warnings = Warnings::collect();
    let authority = Authority::new();
    let require = TlsMode::Require;
    let started = |boots: &[u64]| {
        let boots: Vec<Boot> = boots.iter().map(|boot| Boot(*boot)).collect();
        let (boot, boot_number) = (*boots.last().unwrap(), boots.len() as u64);
        Local { boot, boot_number, boots, ..local(2, Some(CLUSTER)) }
    };
    let mut one = node(1, authority.node(1, require)).await;
    let original = Node::at(LOOPBACK, started(&[10, 11, 12]), with(Some(authority.node(2, require)))).await;
    assert!(dialed(&original, 1, &one.address()).await);
    original.tcp.close().await;
    let copy = Node::at(LOOPBACK, started(&[10, 11, 22]), with(Some(authority.node(2, require)))).await;
    assert!(!dialed(&copy, 1, &one.address()).await, "as the one that dials");
    let alarm = loop {
        match one.next().await {
            Inbound::Alarm(alarm) => break alarm,
            Inbound::Disconnected(_) | Inbound::Down(_) => {}
            other => panic!("an alarm was expected: {other:?}"),
        }
    };
    assert_eq!((alarm.reason, alarm.other), (AlarmReason::Copy, Boot(12)));
    assert!(warnings.with("cannot talk to node 1: refused: node 2") >= 1, "{:?}", warnings.all());
    assert!(!dialed(&one, 2, &copy.address()).await, "and as the one that is dialed");
}

#[tokio::test]
async fn who_is_asked_has_to_be_who_it_says() {
    let authority = Authority::new();
    let require = TlsMode::Require;
    let two = node(2, authority.node(3, require)).await;
    let one = node(1, authority.node(1, require)).await;
    let found = one.tcp.probe(&two.address(), NodeId(2)).await;
    assert!(
        matches!(&found, Err(ProbeError::Refused { reason: RefusedReason::Certificate, .. })),
        "{found:?}"
    );
}
