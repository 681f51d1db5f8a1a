//! What clients may cost together, in a server within this process, so that the limits can be small.

#[path = "../../coracle/tests/common/patience.rs"]
mod patience;

use coracle::{Config, Storage};
use coracle_server::connection::Limits;
use coracle_server::kv::Kv;
use coracle_server::serve::{Options, serve};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use patience::{NEVER, PATIENCE};

/// Runs a conversation with a server that has these limits.
async fn with_server<F: Future<Output = ()>>(limits: Limits, conversation: impl FnOnce(SocketAddr) -> F) {
    let options = Options {
        join: Default::default(),
        config: Config::new(1, "127.0.0.1:0", Storage::Memory),
        client_addr: "127.0.0.1:0".into(),
        client_tls: None,
        timeout: NEVER,
        limits,
    };
    let (tell, ready) = oneshot::channel();
    let (end, ended) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(options, Kv::new(), async move { drop(ended.await) }, |ready| {
        tell.send(ready).unwrap();
    }));
    let ready = ready.await.unwrap();
    let init = format!("CORACLE MEMBERS INIT 1={}\r\n", ready.peers);
    assert_eq!(exchange(ready.clients, init.as_bytes(), 5).await, "+OK\r\n");
    timeout(PATIENCE, conversation(ready.clients)).await.expect("the conversation hangs");
    end.send(()).unwrap();
    server.await.unwrap().unwrap();
}

/// Sends something on a new connection and takes so many bytes of the answer, or all to its end.
async fn exchange(address: SocketAddr, send: &[u8], take: usize) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(send).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.take(take as u64).read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn the_memory_for_commands_is_shared_and_given_back() {
    const ERROR: &str = "-ERR the memory for commands of all clients is used up\r\n";
    let limits = Limits { commands: 4 << 20, ..Limits::default() };
    with_server(limits, |address| async move {
        let half = [&b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1048576\r\n"[..], &[b'x'; 400 << 10]].concat();
        for _ in 0..10 {
            let mut holding = JoinSet::new();
            for _ in 0..30 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let half = half.clone();
                holding.spawn(async move {
                    // Who is refused early cannot send all of it.
                    let _ = stream.write_all(&half).await;
                    let mut answer = vec![0; ERROR.len()];
                    stream.read_exact(&mut answer).await.unwrap();
                    assert_eq!(String::from_utf8(answer).unwrap(), ERROR);
                });
            }
            // Ten and not more may hold 400 KiB each; these wait for ever.
            for refused in 0..20 {
                let next = timeout(PATIENCE, holding.join_next()).await;
                next.unwrap_or_else(|_| panic!("only {refused} were refused")).unwrap().unwrap();
            }
            assert!(!holding.is_empty());
            // All of them leave; the next round finds the memory free again.
            holding.shutdown().await;
            let whole = [&half[..], &[b'x'; 624 << 10], b"\r\n"].concat();
            let given_back = async { while exchange(address, &whole, 5).await != "+OK\r\n" {} };
            timeout(PATIENCE, given_back).await.expect("the memory is given back");
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_takes_no_replies_is_let_go() {
    let limits = Limits { stalled: Duration::from_millis(200), ..Limits::default() };
    with_server(limits, |address| async move {
        let set = [&b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1048576\r\n"[..], &[b'x'; 1 << 20], b"\r\n"].concat();
        assert_eq!(exchange(address, &set, 5).await, "+OK\r\n");
        let mut stream = TcpStream::connect(address).await.unwrap();
        // Far more than the system buffers on the way.
        let many = 200;
        stream.write_all(&b"GET k\r\n".repeat(many)).await.unwrap();
        let gone = async {
            // A socket with a reader that sleeps; the server's end shows in that writing fails.
            while stream.write_all(b"PING\r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, gone).await.expect("the server waits for ever");
        let mut taken = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut taken)).await.expect("the end of the stream");
        assert!(taken.len() < many << 20, "not everything was sent");
    })
    .await;
}

/// However many clients leave however large answers untaken, the memory for them is bounded; whoever does not fit
/// hears so, or is let go, and when they are gone there is room again.
#[tokio::test]
async fn the_memory_for_replies_is_shared_and_given_back() {
    const ERROR: &str = "-ERR the memory for replies of all clients is used up";
    let limits = Limits { replies: 20 << 20, ..Limits::default() };
    with_server(limits, |address| async move {
        let set = [&b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1048576\r\n"[..], &[b'x'; 1 << 20], b"\r\n"].concat();
        assert_eq!(exchange(address, &set, 5).await, "+OK\r\n");
        for _ in 0..3 {
            let mut stuck = Vec::new();
            let told = loop {
                let mut stream = TcpStream::connect(address).await.unwrap();
                // More than the system buffers on the way.
                stream.write_all(&b"GET k\r\n".repeat(20)).await.unwrap();
                stuck.push(stream);
                assert!(stuck.len() < 30, "they cannot all fit");
                let info = exchange(address, b"INFO\r\nQUIT\r\n", usize::MAX).await;
                let field = |name: &str| {
                    let (_, rest) = info.split_once(name).unwrap();
                    rest.split("\r\n").next().unwrap().parse::<usize>().unwrap()
                };
                assert!(field("\r\nreply_bytes:") <= field("\r\nmax_reply_bytes:"));
                let mut probe = TcpStream::connect(address).await.unwrap();
                probe.write_all(b"GET k\r\n").await.unwrap();
                let mut head = vec![0; ERROR.len()];
                if timeout(PATIENCE, probe.read_exact(&mut head)).await.unwrap().is_ok()
                    && head.starts_with(b"-")
                {
                    break String::from_utf8(head).unwrap();
                }
            };
            assert_eq!(told, ERROR);
            drop(stuck);
            let gone = async {
                while exchange(address, b"GET k\r\n", ERROR.len()).await.starts_with('-') {
                    tokio::task::yield_now().await;
                }
            };
            timeout(PATIENCE, gone).await.expect("the memory was not given back");
        }
    })
    .await;
}
