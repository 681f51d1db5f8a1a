//! What happened between two looks at a node, in words.

use crate::report::{Report, ReportedMember};

/// What of a node is compared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Look {
    pub(crate) report: Report,
    /// Why it cannot serve.
    pub(crate) unready: Vec<String>,
}

/// What is new, the most important first; of a node that had not been looked at before, how it stands.
pub(crate) fn between(before: Option<&Look>, now: &Look) -> Vec<String> {
    let mut news = Vec::new();
    let (report, own) = (&now.report, now.report.id);
    let Some(before) = before else {
        return vec![format!("node {own} is looked at: it is a {}, in term {}", report.role, report.term)];
    };
    let old = &before.report;
    if report.leader != old.leader || report.term != old.term && report.leader.is_some() {
        news.push(match report.leader {
            Some(leader) if leader == own => format!("this node, {own}, leads, in term {}", report.term),
            Some(leader) => format!("node {leader} leads, in term {}", report.term),
            None => format!("no leader is known: an election is under way, in term {}", report.term),
        });
    } else if report.role != old.role {
        news.push(format!("node {own} is a {} now", report.role));
    }
    news.extend(of_members(old, report));
    for why in now.unready.iter().filter(|_| before.unready.is_empty()) {
        news.push(format!("node {own} cannot serve: {why}"));
    }
    if now.unready.is_empty() && !before.unready.is_empty() {
        news.push(format!("node {own} can serve"));
    }
    news.extend(of_snapshots(old, report));
    news.extend(of_troubles(old, report));
    news
}

fn of_members(old: &Report, now: &Report) -> Vec<String> {
    let mut news = Vec::new();
    let known = |report: &Report, id: u64| report.members.iter().find(|member| member.id == id).cloned();
    for member in &now.members {
        let ReportedMember { id, voter, reachable, incarnation, .. } = member;
        match known(old, *id) {
            None => news.push(format!("node {id} is a member, and {}", votes(*voter))),
            Some(before) => {
                if before.incarnation != *incarnation {
                    news.push(format!("node {id} has another disk"));
                }
                if before.voter != *voter {
                    news.push(format!("node {id} {}", votes(*voter)));
                }
                if before.reachable && !reachable {
                    news.push(format!("the connection to node {id} is lost"));
                }
                if !before.reachable && *reachable {
                    news.push(format!("node {id} is connected"));
                }
                if before.address != member.address {
                    news.push(format!("node {id} is at {}", member.address));
                }
            }
        }
    }
    for member in old.members.iter().filter(|member| known(now, member.id).is_none()) {
        news.push(format!("node {} is no member any more", member.id));
    }
    // As the leader sees it: who lacked more than a moment's worth of the log, and has it now.
    let lag = |report: &Report, id: u64| report.peers.iter().find(|peer| peer.id == id).map(|peer| peer.lag);
    for member in &now.members {
        if let (Some(before), Some(after)) = (lag(old, member.id), lag(now, member.id))
            && before >= FAR
            && after < FAR / 4
        {
            news.push(format!("node {} has caught up", member.id));
        }
    }
    news
}

/// So many entries behind is far.
const FAR: u64 = 1000;

fn votes(voter: bool) -> &'static str {
    if voter { "votes" } else { "learns" }
}

fn of_snapshots(old: &Report, now: &Report) -> Vec<String> {
    let mut news = Vec::new();
    let index = |report: &Report| report.snapshot.as_ref().map(|snapshot| snapshot.index);
    if let Some(at) = index(now).filter(|_| index(now) != index(old)) {
        news.push(format!("there is a snapshot up to entry {at}"));
    }
    let began = |report: &Report, peer: u64| report.sending_snapshots.iter().any(|one| one.peer == peer);
    for one in now.sending_snapshots.iter().filter(|one| !began(old, one.peer)) {
        news.push(format!("a snapshot is sent to node {}", one.peer));
    }
    if let (None, Some(one)) = (&old.receiving_snapshot, &now.receiving_snapshot) {
        news.push(format!("a snapshot comes from node {}", one.peer));
    }
    news
}

fn of_troubles(old: &Report, now: &Report) -> Vec<String> {
    let mut news = Vec::new();
    match (&old.no_space, &now.no_space) {
        (None, Some(why)) => news.push(format!("the log has no room: {why}")),
        (Some(_), None) => news.push("the log has room again".to_owned()),
        _ => {}
    }
    for node in now.diverged.iter().filter(|node| !old.diverged.contains(node)) {
        news.push(format!("the machine of node {node} differs from that of a majority"));
    }
    if let (None, Some(stop)) = (&old.machine_stopped, &now.machine_stopped) {
        news.push(format!("the machine has stopped before entry {}: {}", stop.entry, stop.why));
    }
    if now.moved && !old.moved {
        news.push("this node is not where the membership says".to_owned());
    }
    news
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(leader: &str, term: u64, members: &str, peers: &str) -> Look {
        let json = format!(
            r#"{{"id":1,"role":"follower","term":{term},"leader":{leader},"commit":5,"applied":5,"last_index":5000,"members":[{members}],
              "peers":[{peers}],"digest":""}}"#
        );
        Look { report: serde_json::from_str(&json).unwrap(), unready: Vec::new() }
    }

    fn member(id: u64, voter: bool, reachable: bool) -> String {
        format!(
            r#"{{"id":{id},"address":"host-{id}:1","voter":{voter},"reachable":{reachable},"incarnation":"a"}}"#
        )
    }

    fn peer(id: u64, matched: u64) -> String {
        format!(
            r#"{{"id":{id},"matched":{matched},"lag":{},"applied":{matched},"state":"replicate","silent_ms":0}}"#,
            5000 - matched
        )
    }

    #[test]
    fn what_is_new_is_said_in_words_and_nothing_else() {
        let three = [member(1, true, true), member(2, true, true), member(3, true, true)].join(",");
        let calm = look("2", 4, &three, "");
        assert_eq!(between(None, &calm), ["node 1 is looked at: it is a follower, in term 4"]);
        assert!(between(Some(&calm), &calm).is_empty());
        let lost = [member(1, true, true), member(2, true, false), member(3, true, true)].join(",");
        let killed = look("null", 5, &lost, "");
        let said =
            ["no leader is known: an election is under way, in term 5", "the connection to node 2 is lost"];
        assert_eq!(between(Some(&calm), &killed), said);
        assert_eq!(between(Some(&killed), &look("1", 5, &lost, "")), ["this node, 1, leads, in term 5"]);
        assert_eq!(between(Some(&killed), &look("3", 5, &lost, "")), ["node 3 leads, in term 5"]);
        let more = format!("{three},{}", member(4, false, true));
        assert_eq!(between(Some(&calm), &look("2", 4, &more, "")), ["node 4 is a member, and learns"]);
        let gone = between(Some(&look("2", 4, &more, "")), &calm);
        assert_eq!(gone, ["node 4 is no member any more"]);
        let behind = look("1", 4, &three, &peer(2, 1000));
        assert_eq!(between(Some(&behind), &look("1", 4, &three, &peer(2, 4990))), ["node 2 has caught up"]);
    }

    #[test]
    fn troubles_are_told_when_they_come_and_when_they_go() {
        let calm = look("2", 4, &member(1, true, true), "");
        let mut full = calm.clone();
        full.report.no_space = Some("the disk is full".to_owned());
        full.unready = vec!["it waits".to_owned()];
        assert_eq!(
            between(Some(&calm), &full),
            ["node 1 cannot serve: it waits", "the log has no room: the disk is full"]
        );
        assert_eq!(between(Some(&full), &calm), ["node 1 can serve", "the log has room again"]);
    }
}
