//! Protected mode, and turns, in a server's connections within this process: where a client comes from, and who else has a turn, is then
//! for the test to say.

use crate::support::LONG;
use coracle::raft::NodeId;
use coracle::{Config, Node, Role, Storage};
use coracle_server::access::Rules;
use coracle_server::accounts::{Account, Accounts};
use coracle_server::budget::Budget;
use coracle_server::connection::{self, Limits, Newcomer, Place, Shared};
use coracle_server::kv::Kv;
use coracle_server::passwords::hash;
use coracle_server::roster::Roster;
use coracle_server::secret::Secret;
use coracle_server::session::About;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(3600);

const DENIED: &str = "-DENIED Coracle is running in protected mode because there are no users.";

struct Server {
    node: Node<Kv>,
    roster: Roster,
    _stop: watch::Sender<bool>,
    stopping: watch::Receiver<bool>,
}

impl Server {
    async fn start() -> Server {
        let roster = Roster::default();
        let mut config = Config::new(1, "127.0.0.1:0", Storage::Memory);
        config.forward = true;
        let node = Node::start(config, Kv::new().publishing(roster.clone())).await.unwrap();
        let (stop, stopping) = watch::channel(false);
        Server { node, roster, _stop: stop, stopping }
    }

    /// What a client from there hears until the end.
    async fn ask(
        &self,
        open: bool,
        token: Option<&str>,
        from: &str,
        shown: Option<Role>,
        lines: &str,
    ) -> String {
        let token = token.map(|token| Secret::new(token.as_bytes()));
        let (mut client, serving) = self.connect(Rules { token, open, ..Rules::default() }, from, shown);
        client.write_all(format!("{lines}\r\nQUIT\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(LONG, client.read_to_string(&mut answer)).await.unwrap().unwrap();
        drop(client);
        serving.await.unwrap();
        answer
    }

    /// A client from there, and the task that serves it.
    fn connect(&self, rules: Rules, from: &str, shown: Option<Role>) -> (DuplexStream, JoinHandle<()>) {
        let rules = Rules { roster: self.roster.clone(), ..rules };
        let all = Arc::new(Account::new(10, 1 << 30, 1 << 30));
        let accounts = Accounts::new(all.clone(), 10);
        let own = accounts.of_address(from.parse().unwrap());
        let place = Place::Client(connection::Client::enter(own).unwrap());
        let shared = Arc::new(Shared {
            node: self.node.clone(),
            timeout: LIMIT,
            limits: Limits::default(),
            rules: Arc::new(rules),
            about: Arc::new(About::new(1, false, 1, all)),
            backups: Budget::new(1),
            accounts,
            gate: Default::default(),
            stopping: self.stopping.clone(),
        });
        let (client, stream) = tokio::io::duplex(1 << 16);
        let from = SocketAddr::new(from.parse().unwrap(), 1000);
        let newcomer = Newcomer { id: 1, from, shown, place };
        (client, tokio::spawn(connection::serve(stream, newcomer, shared)))
    }
}

#[tokio::test(flavor = "current_thread")]
async fn without_users_the_door_is_shut_to_other_computers_unless_told_otherwise() {
    let server = Server::start().await;
    let elsewhere = ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "10.0.0.1"];
    let here = ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"];
    // Blank, and then as a cluster of its own.
    for founded in [false, true] {
        if founded {
            let list = [(1, server.node.peer_addr().to_string())];
            server.node.set_configuration(list).await.unwrap();
        }
        for line in
            ["PING", "GET k", "SET k v", "HELLO 3", "AUTH x", "CORACLE STATUS", "CORACLE TOKEN x", "INFO"]
        {
            for from in elsewhere {
                let answer = server.ask(false, None, from, None, line).await;
                assert!(
                    answer.starts_with(DENIED) && answer.ends_with("everything.\r\n"),
                    "{line} from {from}: {answer}"
                );
            }
        }
        for from in here {
            assert_eq!(server.ask(false, None, from, None, "PING").await, "+PONG\r\n+OK\r\n", "{from}");
        }
        let open = server.ask(true, None, elsewhere[0], None, "PING\r\nCORACLE HEALTH").await;
        assert!(open.starts_with("+PONG\r\n$"), "{open}");
        for role in [Role::Node(NodeId(2)), Role::Client("ann".to_owned())] {
            let answer = server.ask(false, None, elsewhere[0], Some(role), "PING").await;
            assert_eq!(answer, "+PONG\r\n+OK\r\n");
        }
        let token = Some("sesame");
        let shows = server.ask(false, token, elsewhere[0], None, "CORACLE TOKEN sesame\r\nPING").await;
        assert_eq!(shows, "+OK\r\n+PONG\r\n+OK\r\n");
        let wrong = server.ask(false, token, elsewhere[0], None, "CORACLE TOKEN other\r\nPING").await;
        assert!(wrong.starts_with("-NOAUTH this is not the join token") && wrong.contains(DENIED), "{wrong}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn the_first_user_is_added_here_or_by_the_token_and_then_the_door_is_open_to_users() {
    let server = Server::start().await;
    server.node.set_configuration([(1, server.node.peer_addr().to_string())]).await.unwrap();
    let hash = hash(&Secret::new(b"root-sesame")).unwrap();
    let hash = String::from_utf8(hash.0.to_vec()).unwrap();
    let add = |name: &str| format!("CORACLE USERS ADD {name} admin {hash}");
    let elsewhere = "192.0.2.1";
    let ann = Some(Role::Client("ann".to_owned()));
    let first = "-NOPERM the first user is added on the computer of a node";
    for (open, token, from, shown) in [
        (true, None, elsewhere, None),
        (false, None, elsewhere, ann.clone()),
        (false, Some("sesame"), "127.0.0.1", None),
    ] {
        let answer = server.ask(open, token, from, shown, &add("root")).await;
        assert!(answer.starts_with(first), "{answer}");
    }
    assert_eq!(server.ask(false, None, "127.0.0.1", None, &add("root")).await, "+OK\r\n+OK\r\n");
    // Whoever may not come in without users may come in with them, and is nobody.
    let lines = "PING\r\nGET k\r\nAUTH root root-sesame\r\nSET k v\r\nGET k";
    let answer = server.ask(false, None, elsewhere, None, lines).await;
    assert_eq!(answer, "+PONG\r\n-NOAUTH Authentication required.\r\n+OK\r\n+OK\r\n$1\r\nv\r\n+OK\r\n");
    for from in ["127.0.0.1", elsewhere] {
        let answer = server.ask(true, None, from, None, &format!("GET k\r\n{}", add("eve"))).await;
        let nobody = "-NOAUTH Authentication required.\r\n";
        assert_eq!(answer, format!("{nobody}{nobody}+OK\r\n"), "open or not");
    }
    // A certificate names the user, if there is one; that of a node is an administrator's.
    let whoami = "ACL WHOAMI\r\nGET k";
    let nobody = server.ask(false, None, elsewhere, ann.clone(), whoami).await;
    assert!(nobody.starts_with("-NOAUTH") && nobody.contains("\r\n-NOAUTH"), "{nobody}");
    let node = Some(Role::Node(NodeId(2)));
    let added = server.ask(false, None, elsewhere, node, &format!("ACL WHOAMI\r\n{}", add("ann"))).await;
    assert_eq!(added, "$8\r\n(node 2)\r\n+OK\r\n+OK\r\n");
    let named = server.ask(false, None, elsewhere, ann, &format!("{whoami}\r\nRESET\r\nACL WHOAMI")).await;
    assert_eq!(named, "$3\r\nann\r\n$1\r\nv\r\n+RESET\r\n$3\r\nann\r\n+OK\r\n");
}

#[tokio::test(flavor = "current_thread")]
async fn others_have_their_turns_while_commands_are_done_that_nothing_waits_for() {
    const MANY: usize = 5_000;
    let server = Server::start().await;
    let (mut client, _serving) = server.connect(Rules::default(), "127.0.0.1", None);
    client.write_all(&b"PING\r\n".repeat(MANY)).await.unwrap();
    let mut turns = 0;
    let mut answers = vec![0; MANY * b"+PONG\r\n".len()];
    tokio::select! {
        biased;
        read = client.read_exact(&mut answers) => drop(read.unwrap()),
        () = async { loop { turns += 1; yield_now().await } } => {}
    }
    assert!(answers.chunks(7).all(|answer| answer == b"+PONG\r\n"));
    assert!(turns > MANY / 512, "{turns} turns");
}
