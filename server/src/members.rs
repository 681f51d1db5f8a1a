//! Who takes part: `CORACLE MEMBERS …` as a node answers it, and `coracle members …` as an operator's client.
//!
//! A change is made by the leader. Another node names it, with its client address, and the client goes on there.

use crate::client::{Client, Value, is_not_known, token_words, unasked};
use crate::cluster;
use crate::kv::Machine;
use crate::resp::Command;
use crate::secret::Secret;
use coracle::raft::{Incarnation, Membership, NodeId};
use coracle::{ChangeError, Leader, MemberChange, Node, in_full};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a node may take over a change: a newcomer may have to be sent all there is.
pub(crate) const CHANGE_LIMIT: Duration = Duration::from_secs(600);

/// How long a client waits beyond that.
const GRACE: Duration = Duration::from_secs(10);

/// The pause before a client asks again.
const PAUSE: Duration = Duration::from_millis(200);

/// From how many nodes in a row a client goes on to whom they name, before it asks another one of its own.
const HOPS: u32 = 2;

/// What somebody hears who has another join token.
pub(crate) const WRONG_TOKEN: &str = "NOAUTH this is not the join token of this cluster";

/// The first word of what names the leader.
pub(crate) const NOT_LEADER: &str = "NOTLEADER";

/// How a node begins that does not know a command of this program.
const NOT_KNOWN: &str = "ERR unknown subcommand";

/// Reads `id=host:port`.
pub fn member(word: &str) -> Option<(u64, String)> {
    let (id, address) = word.split_once('=')?;
    let (host, port) = address.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    let id: u64 = id.parse().ok()?;
    (id > 0 && !host.is_empty()).then(|| (id, address.to_owned()))
}

/// Reads the words after `MEMBERS` as a change.
pub fn parse(words: &[&str]) -> Result<MemberChange, String> {
    let id = |word: &str| {
        let id = word.parse::<u64>().ok().filter(|id| *id > 0).map(NodeId);
        id.ok_or_else(|| format!("'{word}' is not a node's id"))
    };
    let named = |word: &str| {
        let named = member(word).map(|(id, address)| (NodeId(id), address));
        named.ok_or_else(|| format!("'{word}' is not a member: write id=host:port"))
    };
    let (change, rest) = words.split_first().map_or(("", words), |(first, rest)| (*first, rest));
    match (change.to_ascii_lowercase().as_str(), rest) {
        ("add", [new]) => named(new).map(|(id, address)| MemberChange::Add(id, address)),
        ("admit", [disk, address]) => {
            let named = u64::from_str_radix(disk, 16).map(Incarnation);
            let incarnation = named.map_err(|_| format!("'{disk}' is not a disk: write 16 hexadecimal digits"))?;
            Ok(MemberChange::Admit { incarnation, address: (*address).to_owned() })
        }
        ("promote", [node]) => id(node).map(MemberChange::Promote),
        ("demote", [node]) => id(node).map(MemberChange::Demote),
        ("remove", [node]) => id(node).map(MemberChange::Remove),
        ("move", [node, address]) => {
            let node = id(node)?;
            named(&format!("{node}={address}")).map(|(id, address)| MemberChange::Move(id, address))
        }
        ("replace", [old, new]) => {
            let (old, (new, address)) = (id(old)?, named(new)?);
            Ok(MemberChange::Replace { old, new, address })
        }
        ("voters", [_, ..]) => {
            let list = rest.iter().map(|word| named(word)).collect::<Result<BTreeMap<_, _>, _>>()?;
            if list.len() < rest.len() {
                return Err("a node is named twice".to_owned());
            }
            Ok(MemberChange::Voters(list))
        }
        _ => Err(
            "write ADD id=host:port, ADMIT disk host:port, PROMOTE id, DEMOTE id, REMOVE id, MOVE id host:port, REPLACE id id=host:port, or VOTERS \
                  id=host:port …"
                .to_owned(),
        ),
    }
}

/// The words of a command after `CORACLE MEMBERS`, and after the token that all nodes of this cluster share, if they do:
/// `TOKEN secret` comes first then.
pub(crate) fn authorised(command: &Command, token: Option<&Secret>) -> Result<Vec<String>, String> {
    let words = (2..command.len()).map(|at| String::from_utf8_lossy(command.argument(at)).into_owned());
    let mut words: Vec<String> = words.collect();
    let given = (command.is(2, "token") && command.len() > 3).then(|| Secret::new(command.argument(3)));
    if given.is_some() {
        words.drain(..2);
    }
    match (token, given) {
        (None, _) => Ok(words),
        (Some(token), Some(given)) if *token == given => Ok(words),
        (Some(_), Some(_)) => Err(WRONG_TOKEN.to_owned()),
        (Some(_), None) => Err(
            "NOAUTH this cluster has a join token: give it, by --join-token-file, --join-token or CORACLE_JOIN_TOKEN"
                .to_owned(),
        ),
    }
}

/// Changes the membership as a command asks for it: what there is then, or the text of an error reply.
pub async fn change<M: Machine>(node: &Node<M>, words: &[String]) -> Result<String, String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let change = parse(&words).map_err(|problem| format!("ERR {problem}"))?;
    let admitted = match &change {
        MemberChange::Admit { incarnation, .. } => Some(*incarnation),
        _ => None,
    };
    let membership = node.change_members(change, CHANGE_LIMIT).await.map_err(|error| refusal(&error))?;
    let member = admitted.and_then(|disk| membership.members.values().find(|it| it.incarnation == disk));
    Ok(member.map_or_else(|| list(&membership), |member| member.id.to_string()))
}

/// A membership in words.
fn list(membership: &Membership) -> String {
    let voters = membership.members.keys().filter(|id| membership.voters.contains(id));
    let learners: Vec<_> = membership.members.keys().filter(|id| !membership.voters.contains(id)).collect();
    let words = |ids: Vec<&NodeId>| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let voters = words(voters.collect());
    if learners.is_empty() {
        format!("voters {voters}")
    } else {
        format!("voters {voters}, learners {}", words(learners))
    }
}

fn refusal(error: &ChangeError) -> String {
    match error {
        ChangeError::NotLeader { leader } => not_leader(leader, error),
        ChangeError::NoLeader => format!("{NOT_LEADER} ? {error}"),
        ChangeError::NotConfigured | ChangeError::NoQuorum | ChangeError::Stopped(_) => {
            format!("CLUSTERDOWN {}", in_full(error))
        }
        ChangeError::Unknown | ChangeError::Timeout(_) => format!("UNKNOWN {error}"),
        _ => format!("ERR {}", in_full(error)),
    }
}

/// Another node leads: where its clients reach it, if that is known.
pub(crate) fn not_leader(leader: &Leader, error: &impl Display) -> String {
    match clients_of(&leader.metadata, &leader.address) {
        Some(address) => format!("{NOT_LEADER} {address} node {} leads: ask it", leader.id),
        None => format!("{NOT_LEADER} ? {error}: ask it"),
    }
}

/// Where the leader's clients reach it: what it wants known of itself, on its host where it listens everywhere.
fn clients_of(metadata: &[u8], peer_address: &str) -> Option<String> {
    let known = std::str::from_utf8(metadata).ok()?;
    let address: SocketAddr = known.parse().ok()?;
    let everywhere = match address.ip() {
        IpAddr::V4(ip) => ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_unspecified(),
    };
    if !everywhere {
        return Some(known.to_owned());
    }
    let (host, _) = peer_address.rsplit_once(':')?;
    Some(format!("{host}:{}", address.port()))
}

/// Asks a cluster for a change through whichever of these client addresses answers, and goes on to its leader.
pub fn ask(to: &[String], words: &[String], limit: Duration) -> Result<String, String> {
    ask_about("MEMBERS", to, words, limit)
}

/// The same, for what the leader does besides.
pub(crate) fn ask_about(
    what: &str,
    to: &[String],
    words: &[String],
    limit: Duration,
) -> Result<String, String> {
    let mut command: Vec<&[u8]> = vec![b"CORACLE", what.as_bytes()];
    command.extend(token_words());
    command.extend(words.iter().map(String::as_bytes));
    let until = Instant::now() + limit;
    let mut next = 0;
    let mut named: Option<String> = None;
    let (mut hops, mut older) = (0, 0);
    loop {
        let address = named.take().unwrap_or_else(|| to[next % to.len()].clone());
        let left = until.saturating_duration_since(Instant::now()) + GRACE;
        let answer = Client::connect(&address, left).and_then(|mut client| client.ask(&command));
        let problem = match answer {
            Ok(Value::Simple(done)) => return Ok(done),
            Ok(Value::Error(error)) => match error.strip_prefix(NOT_LEADER) {
                Some(rest) => {
                    let (leader, why) = rest.trim_start().split_once(' ').unwrap_or(("?", rest));
                    // Some say so of each other for a moment, or name where only they reach it.
                    named = (leader != "?" && hops < HOPS).then(|| leader.to_owned());
                    hops += 1;
                    format!("{address}: {why}")
                }
                None if error.starts_with("UNKNOWN leadership was lost") => error,
                // It is of a version that does not know that: another may be newer.
                None if error.starts_with(NOT_KNOWN) && older + 1 < to.len() => {
                    older += 1;
                    format!("{address}: {error}")
                }
                None => return Err(error),
            },
            Ok(_) => {
                return Err(format!(
                    "{address} gave an answer that is none to this command: is it a node of Coracle?"
                ));
            }
            Err(error) if is_not_known(&error) => return Err(unasked(&address, &error)),
            Err(error) => unasked(&address, &error),
        };
        if Instant::now() >= until {
            return Err(problem);
        }
        if named.is_none() {
            (next, hops) = (next + 1, 0);
            sleep(PAUSE);
        }
    }
}

/// `coracle members list`.
pub fn print_list(to: &str, limit: Duration, json: bool) -> Result<(), String> {
    let report = cluster::report(to, limit).map_err(|error| format!("{to}: {error}"))?;
    if json {
        println!("{}", serde_json::to_string(&report.members).map_err(|error| error.to_string())?);
        return Ok(());
    }
    for member in &report.members {
        let role = if member.voter { "voter" } else { "learner" };
        let reach = match member.reachable {
            true if member.encrypted => "connected, encrypted",
            true => "connected",
            false => "not connected",
        };
        println!("{}={} {role}, {reach}", member.id, member.address);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn members_are_named_by_id_and_address() {
        assert_eq!(member("1=127.0.0.1:7101"), Some((1, "127.0.0.1:7101".into())));
        assert_eq!(member("20=[::1]:80"), Some((20, "[::1]:80".into())));
        for wrong in
            ["", "1", "1=", "1=host", "1=:80", "0=host:80", "x=host:80", "1=host:port", "1=host:65536"]
        {
            assert_eq!(member(wrong), None, "{wrong}");
        }
    }

    /// Answers every command with this line.
    fn answering(line: &'static str) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut command = [0; 1024];
                assert!(stream.read(&mut command).unwrap() > 0);
                stream.write_all(line.as_bytes()).unwrap();
            }
        });
        address
    }

    #[test]
    fn a_node_that_is_too_old_is_passed_over_and_where_all_are_that_is_said() {
        let (old, new) = (answering("-ERR unknown subcommand 'members'\r\n"), answering("+voters 1\r\n"));
        let other = answering("-ERR unknown subcommand 'members'\r\n");
        let limit = Duration::from_secs(600);
        let words = ["LIST".to_owned()];
        assert_eq!(ask(&[old.clone(), new], &words, limit), Ok("voters 1".to_owned()));
        assert_eq!(ask(&[old, other], &words, limit), Err("ERR unknown subcommand 'members'".to_owned()));
    }

    #[test]
    fn changes_are_read_as_they_are_written() {
        let a = || "a:1".to_owned();
        assert_eq!(parse(&["add", "4=a:1"]), Ok(MemberChange::Add(NodeId(4), a())));
        assert_eq!(parse(&["PROMOTE", "4"]), Ok(MemberChange::Promote(NodeId(4))));
        let admit = MemberChange::Admit { incarnation: Incarnation(0xab), address: a() };
        assert_eq!(parse(&["admit", "00000000000000ab", "a:1"]), Ok(admit));
        assert_eq!(parse(&["move", "4", "a:1"]), Ok(MemberChange::Move(NodeId(4), a())));
        let replace = MemberChange::Replace { old: NodeId(3), new: NodeId(4), address: a() };
        assert_eq!(parse(&["replace", "3", "4=a:1"]), Ok(replace));
        for wrong in [
            &[][..],
            &["add"],
            &["add", "4"],
            &["promote", "0"],
            &["promote", "x"],
            &["voters"],
            &["voters", "1=a:1", "1=b:2"],
            &["drop", "3"],
            &["move", "3"],
            &["move", "3", "nowhere"],
            &["admit", "a:1"],
            &["admit", "disk", "a:1"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_leader_is_named_by_where_its_clients_reach_it() {
        let leader = |metadata: &str| clients_of(metadata.as_bytes(), "host-2:7000");
        assert_eq!(leader("10.0.0.2:6000").as_deref(), Some("10.0.0.2:6000"));
        assert_eq!(leader("0.0.0.0:6000").as_deref(), Some("host-2:6000"));
        assert_eq!((leader(""), leader("nonsense")), (None, None));
    }
}
