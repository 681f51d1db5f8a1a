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
use tokio::net::{TcpSocket, TcpStream};
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
        admin_addr: None,
        roster: Default::default(),
        figures: Default::default(),
        open_without_users: false,
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
    const ERROR: &str =
        "-BUSY the memory for commands is used up; this was not done; retry after 1000 ms\r\n";
    // One address has 3 MiB of it.
    let limits = Limits { commands: 4 << 20, half_command: NEVER, ..Limits::default() };
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
            // Seven and not more may hold 400 KiB each; these wait for ever.
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
    const ERROR: &str = "-BUSY the memory for replies is used up";
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

/// The beginning of a command that sets a value of a megabyte, and how it goes on.
const BEGIN: &[u8] = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1048576\r\n";

/// A connection from another address of this computer.
async fn from(last: u8, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap();
    socket.connect(address).await.unwrap()
}

/// Sends something and takes the first line of what comes back.
async fn ask(stream: &mut TcpStream, send: &[u8]) -> String {
    stream.write_all(send).await.unwrap();
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
    }
    String::from_utf8(line).unwrap()
}

#[tokio::test]
async fn an_idle_client_holds_no_memory_for_the_commands_that_it_had_done() {
    let limits = Limits { commands: 4 << 20, ..Limits::default() };
    with_server(limits, |address| async move {
        let set = [BEGIN, &[b'x'; 1 << 20], b"\r\n"].concat();
        let mut idle = Vec::new();
        for number in 0..10 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            assert_eq!(ask(&mut stream, &set).await, "+OK\r\n", "client {number}");
            // The next one may come before this one's turn has ended.
            assert_eq!(ask(&mut stream, b"PING\r\n").await, "+PONG\r\n");
            idle.push(stream);
        }
    })
    .await;
}

#[tokio::test]
async fn half_a_command_has_one_deadline_however_often_a_byte_comes() {
    let limits = Limits { half_command: Duration::from_millis(300), ..Limits::default() };
    with_server(limits, |address| async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(BEGIN).await.unwrap();
        let trickle = async {
            for _ in 0..400 {
                if stream.write_all(b"x").await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            panic!("it is waited for as long as a byte comes now and then");
        };
        trickle.await;
    })
    .await;
}

/// However much memory others hold, from however many addresses: what is small is carried out, and what is large is told to
/// come again, until those who were waited for the longest have given way.
#[tokio::test]
async fn small_commands_always_have_memory_and_large_ones_get_that_of_the_slow() {
    const BUSY: &str = "-BUSY the memory for commands is used up; this was not done; retry after 1000 ms\r\n";
    let limits = Limits { commands: 8 << 20, half_command: NEVER, ..Limits::default() };
    with_server(limits, |address| async move {
        let half = [BEGIN, &[b'x'; 1 << 19]].concat();
        let mut slow = Vec::new();
        for last in 2..34 {
            let mut stream = from(last, address).await;
            stream.write_all(&half).await.unwrap();
            slow.push(stream);
        }
        let mut small = TcpStream::connect(address).await.unwrap();
        assert_eq!(ask(&mut small, b"SET small v\r\n").await, "+OK\r\n");
        assert!(ask(&mut small, b"CORACLE STATUS\r\n").await.starts_with('$'));
        let mut large = TcpStream::connect(address).await.unwrap();
        let set = [BEGIN, &[b'x'; 1 << 20], b"\r\n"].concat();
        let served = async {
            loop {
                match &ask(&mut large, &set).await[..] {
                    "+OK\r\n" => break,
                    BUSY => tokio::time::sleep(Duration::from_millis(50)).await,
                    other => panic!("{other}"),
                }
            }
        };
        timeout(PATIENCE, served).await.expect("nobody gives way");
    })
    .await;
}

#[tokio::test]
async fn one_address_leaves_places_to_others() {
    let limits = Limits { clients: 8, ..Limits::default() };
    with_server(limits, |address| async move {
        let mut greedy = Vec::new();
        // The one that formed the cluster may still be on its way out.
        while greedy.len() < 6 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if ask(&mut stream, b"SET k v\r\n").await == "+OK\r\n" {
                greedy.push(stream);
            }
        }
        let told = exchange(address, b"SET k v\r\n", usize::MAX).await;
        assert_eq!(told, "-ERR max number of clients reached\r\n");
        let (mut one, mut two) = (from(2, address).await, from(3, address).await);
        assert_eq!(ask(&mut one, b"SET k v\r\n").await, "+OK\r\n");
        assert_eq!(ask(&mut two, b"SET k v\r\n").await, "+OK\r\n");
        assert_eq!(ask(&mut greedy[0], b"GET k\r\n").await, "$1\r\n");
    })
    .await;
}

/// What a connection has by itself is enough for what is small: nobody else can take that.
#[tokio::test]
async fn small_commands_need_no_memory_that_others_could_hold() {
    let limits = Limits { commands: 0, replies: 0, ..Limits::default() };
    with_server(limits, |address| async move {
        let mut client = TcpStream::connect(address).await.unwrap();
        assert_eq!(ask(&mut client, b"SET k v\r\n").await, "+OK\r\n");
        assert_eq!(ask(&mut client, b"EXISTS k\r\n").await, ":1\r\n");
        let set = [BEGIN, &[b'x'; 1 << 20], b"\r\n"].concat();
        assert!(ask(&mut client, &set).await.starts_with("-BUSY the memory for commands is used up; "));
        assert_eq!(ask(&mut client, b"EXISTS k\r\n").await, ":1\r\n", "it was stepped over");
        assert!(ask(&mut client, b"CORACLE STATUS\r\n").await.starts_with('$'));
    })
    .await;
}
