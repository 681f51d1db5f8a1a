//! What clients may cost together, in a server within this process, so that the limits can be small.

#[path = "../../coracle/tests/common/patience.rs"]
mod patience;

use coracle::{Config, Storage};
use coracle_server::connection::Limits;
use coracle_server::figures::Figures;
use coracle_server::kv::Kv;
use coracle_server::passwords::hash;
use coracle_server::roster::Roster;
use coracle_server::secret::Secret;
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
    let (roster, figures) = (Roster::default(), Figures::default());
    let machine = Kv::new().publishing(roster.clone()).counting(figures.clone());
    let options = Options {
        join: Default::default(),
        config: Config::new(1, "127.0.0.1:0", Storage::Memory),
        client_addr: "127.0.0.1:0".into(),
        client_tls: None,
        admin_addr: None,
        roster,
        figures,
        open_without_users: false,
        timeout: NEVER,
        limits,
    };
    let (tell, ready) = oneshot::channel();
    let (end, ended) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(options, machine, async move { drop(ended.await) }, |ready| {
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

/// Adds users, who may do everything; the password of each is its name.
async fn add_users(address: SocketAddr, names: &[&str]) {
    let mut first = TcpStream::connect(address).await.unwrap();
    for (number, name) in names.iter().enumerate() {
        let hash = String::from_utf8(hash(&Secret::new(name.as_bytes())).unwrap().0.to_vec()).unwrap();
        let add = format!("CORACLE USERS ADD {name} admin {hash}\r\n");
        assert_eq!(ask(&mut first, add.as_bytes()).await, "+OK\r\n");
        if number == 0 {
            assert_eq!(log_in(&mut first, name).await, "+OK\r\n");
        }
    }
}

/// Asks again where this computer is too busy to compare a password in time.
async fn log_in(stream: &mut TcpStream, name: &str) -> String {
    loop {
        let answer = ask(stream, format!("AUTH {name} {name}\r\n").as_bytes()).await;
        if !answer.starts_with("-BUSY ") {
            return answer;
        }
    }
}

/// The memory for commands that clients hold.
async fn command_bytes(stream: &mut TcpStream) -> usize {
    let head = ask(stream, b"INFO clients\r\n").await;
    let mut text = vec![0; head[1..].trim().parse::<usize>().unwrap() + 2];
    timeout(PATIENCE, stream.read_exact(&mut text)).await.unwrap().unwrap();
    let text = String::from_utf8(text).unwrap();
    let (_, rest) = text.split_once("\r\ncommand_bytes:").unwrap();
    rest.split("\r\n").next().unwrap().parse().unwrap()
}

/// From however many addresses one user comes, a quarter of the memory is left to others.
#[tokio::test]
async fn one_user_leaves_memory_to_others_from_however_many_addresses_it_comes() {
    const BUSY: &str = "-BUSY the memory for commands is used up; this was not done; retry after 1000 ms\r\n";
    const HELD: usize = 800 << 10;
    let limits = Limits { commands: 8 << 20, half_command: NEVER, ..Limits::default() };
    with_server(limits, |address| async move {
        add_users(address, &["mallory", "alice"]).await;
        let mut watching = from(2, address).await;
        assert_eq!(log_in(&mut watching, "alice").await, "+OK\r\n");
        let half = [BEGIN, &[b'x'; HELD]].concat();
        let mut greedy = Vec::new();
        let told = loop {
            let mut stream = from(2 + greedy.len() as u8, address).await;
            assert_eq!(log_in(&mut stream, "mallory").await, "+OK\r\n");
            let (mut reader, mut writer) = stream.into_split();
            let (half, mut answer) = (half.clone(), vec![0; BUSY.len()]);
            // Who is refused early cannot send all of it.
            let sent = tokio::spawn(async move {
                let _ = writer.write_all(&half).await;
                writer
            });
            let enough = (greedy.len() + 1) * (HELD - (16 << 10));
            let taken = async { while command_bytes(&mut watching).await < enough {} };
            tokio::select! {
                told = reader.read_exact(&mut answer) => {
                    told.unwrap();
                    break String::from_utf8(answer).unwrap();
                }
                () = taken => {}
            }
            greedy.push((reader, sent));
        };
        assert_eq!(told, BUSY);
        assert!((6..=7).contains(&greedy.len()), "{} times 800 KiB are one user's", greedy.len());
        // What is left is somebody else's, wherever that comes from.
        let mut alice = from(2, address).await;
        assert_eq!(log_in(&mut alice, "alice").await, "+OK\r\n");
        assert!(command_bytes(&mut alice).await <= 6 << 20);
        let set = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${HELD}\r\n{}\r\n", "x".repeat(HELD));
        assert_eq!(ask(&mut alice, set.as_bytes()).await, "+OK\r\n");
    })
    .await;
}

/// It has so many places of all, and whoever is refused one is nobody, and may be somebody else.
#[tokio::test]
async fn one_user_leaves_places_to_others_from_however_many_addresses_it_comes() {
    let limits = Limits { clients: 20, clients_per_address: Some(3), ..Limits::default() };
    with_server(limits, |address| async move {
        add_users(address, &["mallory", "alice"]).await;
        let mut inside = Vec::new();
        // Whoever added the users may still be on its way out.
        while inside.len() < 3 {
            let mut stream = from(2 + inside.len() as u8, address).await;
            if log_in(&mut stream, "mallory").await == "+OK\r\n" {
                inside.push(stream);
            }
        }
        let mut more = from(9, address).await;
        assert_eq!(log_in(&mut more, "mallory").await, "-ERR max number of clients reached\r\n");
        assert_eq!(ask(&mut more, b"SET k v\r\n").await, "-NOAUTH Authentication required.\r\n");
        assert_eq!(log_in(&mut more, "alice").await, "+OK\r\n");
        assert_eq!(ask(&mut more, b"SET k v\r\n").await, "+OK\r\n");
        // One that becomes somebody else gives its place back.
        assert_eq!(log_in(&mut inside[0], "alice").await, "+OK\r\n");
        let mut other = from(10, address).await;
        assert_eq!(log_in(&mut other, "mallory").await, "+OK\r\n");
    })
    .await;
}
