//! Changes of membership as their caller sees them: one call goes through all the steps that lead to what was asked for,
//! and waits for each. New voters learn first; then one joint change makes them vote (§6; thesis, section 4.2.1).
//!
//! Each step names the membership that it changes, so that two callers cannot undo each other unknowingly; each is
//! computed anew from what is in force, so that a call that was cut off can be made again.

use crate::error::{ChangeError, in_full};
use crate::inner::{Boxed, Inner};
use crate::marking::forget_oldest;
use crate::requests::Request;
use crate::transport::tcp::{Introduction, ProbeError};
use crate::wire::{RefusedReason as Refusal, check_membership};
use crate::work::Changed;
use coracle_core::{
    Broken, Incarnation, MAX_VOTERS, Mark, Member, Membership, NodeId, RefusedReason, Status,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

/// The pause before a step is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// How long it may take to find out who is at an address: where a member was, and where nobody is known yet.
const PROBE: Duration = Duration::from_secs(1);
const PROBE_NEW: Duration = Duration::from_secs(5);

/// Certificates may begin to be valid so long before they are made, for the sake of clocks that are behind: those of
/// `coracle certs` do.
const BACKDATED: Duration = Duration::from_secs(3600);

/// A change of the membership. Asked for again, each succeeds again and changes nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum MemberChange {
    /// Adds a blank node, running at this peer address, as a learner: it receives the log, and does not vote.
    Add(NodeId, String),
    /// Adds a node that is still to be created, as a learner, under the lowest id above all that there are. Whoever wants
    /// to come draws the [`incarnation`](crate::Config::incarnation) of its disk at random, and finds its id in the
    /// membership that comes of this: it is told only once it is committed, and is that one's alone.
    Admit {
        /// The disk that it will have.
        incarnation: Incarnation,
        /// Its peer address.
        address: String,
    },
    /// Makes a member vote, once it has caught up.
    Promote(NodeId),
    /// Makes a voter a learner. Nothing makes it vote again by itself.
    Demote(NodeId),
    /// Removes a member. If it leads, it leads until the change is over.
    Remove(NodeId),
    /// Adds a blank node, waits until it has caught up, and lets it vote in the place of another one, in one step. Under
    /// the same name on another disk, the old one is removed first. In the place of a learner it is one.
    Replace {
        /// Who goes.
        old: NodeId,
        /// Who comes.
        new: NodeId,
        /// Its peer address.
        address: String,
    },
    /// A member is at another address, where it was started on the disk that it has. The leader takes such an address over
    /// by itself when it has found the member there; this is for those that it does not find.
    Move(NodeId, String),
    /// Exactly these nodes vote, given by name and peer address, and there are no learners. Those that are no members yet
    /// are blank and running.
    Voters(BTreeMap<NodeId, String>),
}

impl MemberChange {
    /// Whom it brings in.
    fn newcomers(&self) -> BTreeMap<NodeId, String> {
        match self {
            MemberChange::Add(id, address) | MemberChange::Move(id, address) => {
                BTreeMap::from([(*id, address.clone())])
            }
            MemberChange::Replace { new, address, .. } => BTreeMap::from([(*new, address.clone())]),
            MemberChange::Voters(list) => list.clone(),
            MemberChange::Admit { .. }
            | MemberChange::Promote(_)
            | MemberChange::Demote(_)
            | MemberChange::Remove(_) => BTreeMap::new(),
        }
    }

    /// What it makes of a membership. `met`: the newcomers, as they introduced themselves; `votes`: whether whoever takes
    /// another's place votes.
    pub(crate) fn apply(
        &self,
        now: &Membership,
        met: &BTreeMap<NodeId, Member>,
        votes: bool,
    ) -> Result<Membership, ChangeError> {
        let mut to = Membership { outgoing: BTreeMap::new(), ..now.clone() };
        let known = |id: NodeId| {
            let problem = || ChangeError::Invalid(format!("node {id} is no member"));
            now.members.contains_key(&id).then_some(()).ok_or_else(problem)
        };
        match self {
            MemberChange::Add(id, _) => _ = to.members.entry(*id).or_insert_with(|| met[id].clone()),
            MemberChange::Move(id, _) => {
                known(*id)?;
                to.members.insert(*id, met[id].clone());
            }
            MemberChange::Admit { incarnation, address } => {
                to = admit(now, *incarnation, address, Broken::default())?;
            }
            MemberChange::Promote(id) => {
                known(*id)?;
                to.voters.insert(*id);
            }
            MemberChange::Demote(id) => {
                known(*id)?;
                to.voters.remove(id);
            }
            MemberChange::Remove(id) => {
                to.members.remove(id);
                to.voters.remove(id);
            }
            MemberChange::Replace { old, new, .. } => {
                to.members.remove(old);
                to.voters.remove(old);
                to.members.insert(*new, met[new].clone());
                if votes {
                    to.voters.insert(*new);
                } else {
                    to.voters.remove(new);
                }
            }
            MemberChange::Voters(_) => {
                to.members.clone_from(met);
                to.voters = met.keys().copied().collect();
            }
        }
        match to.voters.len() {
            0 => Err(ChangeError::Invalid("nobody would vote".to_owned())),
            many if many > MAX_VOTERS => {
                Err(ChangeError::Invalid(format!("{many} nodes would vote, and at most {MAX_VOTERS} may")))
            }
            _ => Ok(to),
        }
    }
}

impl MemberChange {
    /// Whether whoever takes another's place is to vote, as that one did. By the membership of before: on the way there
    /// nobody votes in that place for a while.
    pub(crate) fn votes(
        &self,
        now: &Membership,
        met: &BTreeMap<NodeId, Member>,
    ) -> Result<bool, ChangeError> {
        let MemberChange::Replace { old, new, .. } = self else { return Ok(true) };
        let there = now.members.get(new).is_some_and(|member| member.peer() == met[new].peer());
        match now.members.get(old) {
            Some(_) if old == new && there => Ok(true),
            Some(_) => Ok(now.voters.contains(old)),
            None if there => Ok(now.voters.contains(new)),
            None if old == new => Ok(true),
            None => Err(ChangeError::Invalid(format!("node {old} is no member"))),
        }
    }
}

/// Lets this disk learn, under the lowest name above all that there are. One that was let in before has its name.
pub(crate) fn admit(
    now: &Membership,
    disk: Incarnation,
    address: &str,
    broken: Broken,
) -> Result<Membership, ChangeError> {
    if !is_address(address) {
        return Err(ChangeError::Invalid(format!("{address} is not host:port, as others can dial it")));
    }
    let mut to = Membership { outgoing: BTreeMap::new(), ..now.clone() };
    let known = now.members.values().any(|member| member.incarnation == disk);
    if !known || broken.is("newcomer-named-twice") {
        let taken = match now.all().map(|member| member.id.0).max().unwrap_or_default() {
            _ if broken.is("newcomers-name-taken") => now.members.len() as u64,
            greatest => greatest,
        };
        let id = NodeId(taken.saturating_add(1));
        to.members.insert(id, Member { id, incarnation: disk, address: address.to_owned() });
    }
    Ok(to)
}

/// Makes the certificates of those who go nobody's: the newest that was seen of each, and those before it. Of one that was
/// never seen it is whatever was issued until this second.
pub(crate) fn revoke(
    now: &Membership,
    to: &mut Membership,
    seen: impl Fn(NodeId) -> Option<Mark>,
    unseen: u64,
    broken: Broken,
) {
    if broken.is("removed-node-keeps-its-certificate") {
        return;
    }
    for id in now.members.keys().filter(|id| !to.members.contains_key(id)) {
        let newest = seen(*id).into_iter().chain(now.marks.get(id).copied()).max();
        to.marks.insert(*id, newest.unwrap_or(Mark { issued: unseen, key: [0; 32] }));
    }
    forget_oldest(to);
}

/// The next step from one membership to another: whoever stands in a newcomer's place goes, then newcomers learn, then
/// what was asked for.
pub(crate) fn next_step(now: &Membership, to: &Membership) -> Membership {
    let in_place = |member: &&Member| {
        now.members.get(&member.id).is_some_and(|known| known.incarnation != member.incarnation)
    };
    let taken: BTreeSet<NodeId> = to.members.values().filter(in_place).map(|member| member.id).collect();
    let mut step = Membership { outgoing: BTreeMap::new(), ..now.clone() };
    if !taken.is_empty() {
        step.members.retain(|id, _| !taken.contains(id));
        step.voters.retain(|id| !taken.contains(id));
        // It comes back, perhaps with the certificate that it has, and with none from before that.
        for (id, mark) in &mut step.marks {
            mark.issued -= u64::from(taken.contains(id) && mark.issued > 0);
        }
        return step;
    }
    let strangers = to.members.values().filter(|member| !now.members.contains_key(&member.id));
    let strangers: Vec<&Member> = strangers.filter(|member| to.voters.contains(&member.id)).collect();
    if strangers.is_empty() {
        return to.clone();
    }
    step.members.extend(strangers.into_iter().map(|member| (member.id, member.clone())));
    step
}

impl Inner {
    /// Goes through the steps of a change, for so long at most.
    pub(crate) fn change_members(
        &self,
        change: MemberChange,
        limit: Duration,
    ) -> Boxed<'_, Result<Membership, ChangeError>> {
        Box::pin(self.go_through(change, Instant::now() + limit))
    }

    async fn go_through(&self, change: MemberChange, deadline: Instant) -> Result<Membership, ChangeError> {
        let mut met = None;
        let mut waits_for = "the leader".to_owned();
        loop {
            let status = self.status().await.map_err(ChangeError::Stopped)?.raft;
            self.check_leads(&status)?;
            let now = &status.membership;
            if !now.is_joint() && status.membership_id.index <= status.commit {
                let (met, votes) = match &met {
                    Some(met) => met,
                    None => {
                        let newcomers = self.meet_newcomers(&change, now, deadline).await?;
                        let votes = change.votes(now, &newcomers)?;
                        met.insert((newcomers, votes))
                    }
                };
                let mut to = change.apply(now, met, *votes)?;
                self.revoke(now, &mut to);
                if to == *now {
                    return Ok(to);
                }
                let step = next_step(now, &to);
                check_membership(&step).map_err(|problem| ChangeError::Invalid(problem.to_string()))?;
                let (answer, answered) = oneshot::channel();
                let request = Request::Change { expected: status.membership_id, to: Box::new(step), answer };
                if self.requests.send_always(request).await.is_err() {
                    return Err(ChangeError::Stopped(self.stop_reason()));
                }
                match timeout_at(deadline, answered).await {
                    Ok(Ok(Changed::Done(_))) => continue,
                    Ok(Ok(Changed::Refused(reason))) => waits_for = self.why(reason, &status)?,
                    Ok(Ok(Changed::Busy(why))) => waits_for = format!("room: {why}"),
                    Ok(Ok(Changed::Unknown)) => return Err(ChangeError::Unknown),
                    Ok(Err(_)) => return Err(ChangeError::Stopped(self.stop_reason())),
                    Err(_) => return Err(ChangeError::Timeout("a quorum to commit the change".to_owned())),
                }
            } else {
                "another change to be over".clone_into(&mut waits_for);
            }
            if Instant::now() + PAUSE >= deadline {
                return Err(ChangeError::Timeout(waits_for));
            }
            sleep(PAUSE).await;
        }
    }

    /// The certificates of those who go are nobody's from then on, where there are certificates.
    fn revoke(&self, now: &Membership, to: &mut Membership) {
        if self.config.tls.is_none() {
            return;
        }
        let made = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let unseen = made.saturating_sub(BACKDATED).as_secs();
        revoke(now, to, |id| self.transport.shown_by(id), unseen, Broken::default());
    }

    fn check_leads(&self, status: &Status) -> Result<(), ChangeError> {
        if status.membership.is_empty() {
            return Err(ChangeError::NotConfigured);
        }
        if status.leader == Some(self.me.id) {
            return Ok(());
        }
        Err(match self.leader.borrow().clone() {
            Some(leader) if leader.id != self.me.id => ChangeError::NotLeader { leader },
            _ => ChangeError::NoLeader,
        })
    }

    /// What to wait for after a refusal; an error if waiting does not help.
    fn why(&self, reason: RefusedReason, status: &Status) -> Result<String, ChangeError> {
        match reason {
            RefusedReason::NotConfigured | RefusedReason::AlreadyConfigured => {
                Err(ChangeError::NotConfigured)
            }
            RefusedReason::BadMembership => Err(ChangeError::Invalid(
                "the leader cannot be replaced under its own name: let another node lead first".to_owned(),
            )),
            RefusedReason::NoQuorum => Err(ChangeError::NoQuorum),
            RefusedReason::HandingOver(to) => Ok(format!("a transfer of leadership to node {to} to be over")),
            RefusedReason::NotYet => {
                Ok("a new leader to commit its first entry, and to be answered".to_owned())
            }
            RefusedReason::ChangeUnderWay | RefusedReason::NotCurrent(_) => {
                Ok("another change to be over".to_owned())
            }
            RefusedReason::NotCaughtUp(id) => {
                let peer = status.peers.iter().find(|peer| peer.id == id);
                Ok(match peer {
                    Some(peer) => format!(
                        "node {id} to catch up: it has the log up to {} of {}",
                        peer.matched, status.last.index
                    ),
                    None => format!("node {id} to catch up"),
                })
            }
            // Not leader; and what only a transfer is refused for.
            _ => Err(ChangeError::NoLeader),
        }
    }

    /// Asks the newcomers who they are: blank nodes, or members already.
    async fn meet_newcomers(
        &self,
        change: &MemberChange,
        now: &Membership,
        deadline: Instant,
    ) -> Result<BTreeMap<NodeId, Member>, ChangeError> {
        let mut met = BTreeMap::new();
        for (id, address) in change.newcomers() {
            if id.0 == 0 || !is_address(&address) {
                return Err(ChangeError::Invalid(format!(
                    "{id}={address} is not id=host:port, as others can dial it"
                )));
            }
            let known = now.members.get(&id);
            let unable = |why: String| ChangeError::NotReady { node: id, address: address.clone(), why };
            let member = |incarnation| Member { id, incarnation, address: address.clone() };
            if let (Some(Member { address: other, .. }), MemberChange::Add(..)) = (known, change)
                && *other != address
            {
                return Err(ChangeError::Invalid(format!("node {id} is a member already, at {other}")));
            }
            if known.is_none() && matches!(change, MemberChange::Move(..)) {
                return Err(ChangeError::Invalid(format!("node {id} is no member")));
            }
            // A member where it was may be down, and stays what it is; unless it answers on another disk.
            let stays = known.filter(|known| known.address == address && !change.renews(id));
            let limit = if stays.is_some() { PROBE } else { PROBE_NEW };
            let asked = timeout_at(deadline.min(Instant::now() + limit), self.transport.probe(&address, id));
            let asked = asked.await;
            if let (Some(known), Ok(Err(_)) | Err(_)) = (stays, &asked) {
                met.insert(id, known.clone());
                continue;
            }
            let found = match asked {
                Ok(Ok(Introduction { peer, cluster, .. })) => {
                    if cluster.is_some_and(|cluster| cluster != now.cluster) {
                        return Err(unable("it belongs to another cluster".to_owned()));
                    }
                    member(peer.incarnation)
                }
                Ok(Err(ProbeError::Refused { reason: Refusal::OwnName, .. })) if id == self.me.id => {
                    member(self.me.incarnation)
                }
                Ok(Err(ProbeError::Refused { reason: Refusal::BadName, .. })) if id == self.me.id => {
                    return Err(ChangeError::Invalid(format!(
                        "another node {id} is at {address}, and node {id} leads: let another node lead first"
                    )));
                }
                Ok(Err(error)) => return Err(unable(in_full(&error))),
                Err(_) => return Err(unable("no answer in time".to_owned())),
            };
            let other = known.filter(|known| known.incarnation != found.incarnation);
            if other.is_some() && (stays.is_some() || matches!(change, MemberChange::Move(..))) {
                return Err(unable("it has another disk there: replace the node instead".to_owned()));
            }
            met.insert(id, found);
        }
        Ok(met)
    }
}

/// Whether this is a `host:port` that can be dialed.
fn is_address(word: &str) -> bool {
    let Some((host, port)) = word.rsplit_once(':') else { return false };
    let everywhere = word.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified());
    !host.is_empty() && !everywhere && port.parse::<u16>().is_ok_and(|port| port > 0)
}

impl MemberChange {
    /// Whether this node may come back on another disk.
    fn renews(&self, id: NodeId) -> bool {
        matches!(self, MemberChange::Replace { new, .. } if *new == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::MAX_MARKS;
    use coracle_core::ClusterId;

    fn member(id: u64, incarnation: u64) -> Member {
        Member { id: NodeId(id), incarnation: Incarnation(incarnation), address: format!("node-{id}:1") }
    }

    fn met(of: &[(u64, u64)]) -> BTreeMap<NodeId, Member> {
        of.iter().map(|(id, incarnation)| (NodeId(*id), member(*id, *incarnation))).collect()
    }

    fn three() -> Membership {
        Membership::of_voters(ClusterId(7), (1..=3).map(|id| member(id, 1)))
    }

    /// What comes of a change, step by step: the members of each, voters with a star.
    fn steps(change: &MemberChange, mut now: Membership, newcomers: &[(u64, u64)]) -> Vec<String> {
        let mut steps = Vec::new();
        let votes = change.votes(&now, &met(newcomers)).unwrap();
        loop {
            let to = change.apply(&now, &met(newcomers), votes).unwrap();
            if to == now {
                return steps;
            }
            now = next_step(&now, &to);
            let said = now.members.values().map(|member| {
                let star = if now.voters.contains(&member.id) { "*" } else { "" };
                format!("{}.{}{star}", member.id, member.incarnation.0)
            });
            steps.push(said.collect::<Vec<_>>().join(" "));
            assert!(steps.len() < 5, "{steps:?}");
        }
    }

    #[test]
    fn every_change_goes_by_its_steps_and_then_there_is_nothing_left_to_do() {
        let id = NodeId;
        let address = || "node-4:1".to_owned();
        let add = MemberChange::Add(id(4), address());
        assert_eq!(steps(&add, three(), &[(4, 1)]), ["1.1* 2.1* 3.1* 4.1"]);
        let admit = MemberChange::Admit { incarnation: Incarnation(8), address: address() };
        assert_eq!(steps(&admit, three(), &[]), ["1.1* 2.1* 3.1* 4.8"]);
        assert_eq!(steps(&MemberChange::Demote(id(3)), three(), &[]), ["1.1* 2.1* 3.1"]);
        assert_eq!(steps(&MemberChange::Remove(id(3)), three(), &[]), ["1.1* 2.1*"]);
        assert_eq!(steps(&MemberChange::Remove(id(9)), three(), &[]), [""; 0], "it is gone already");
        let replace = MemberChange::Replace { old: id(3), new: id(4), address: address() };
        assert_eq!(steps(&replace, three(), &[(4, 1)]), ["1.1* 2.1* 3.1* 4.1", "1.1* 2.1* 4.1*"]);
        // The same name on another disk never stands beside itself.
        let renewed = MemberChange::Replace { old: id(3), new: id(3), address: "node-3:1".to_owned() };
        let by = ["1.1* 2.1*", "1.1* 2.1* 3.2", "1.1* 2.1* 3.2*"];
        assert_eq!(steps(&renewed, three(), &[(3, 2)]), by);
        // In the place of a learner nobody begins to vote.
        let learns = Membership { voters: [id(1), id(2)].into(), ..three() };
        assert_eq!(steps(&renewed, learns.clone(), &[(3, 2)]), ["1.1* 2.1*", "1.1* 2.1* 3.2"]);
        assert_eq!(steps(&replace, learns, &[(4, 1)]), ["1.1* 2.1* 4.1"]);
        let voters = MemberChange::Voters((1..=5).map(|n| (id(n), format!("node-{n}:1"))).collect());
        let all = [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)];
        let by = ["1.1* 2.1* 3.1* 4.1 5.1", "1.1* 2.1* 3.1* 4.1* 5.1*"];
        assert_eq!(steps(&voters, three(), &all), by);
    }

    /// The certificate that a member has may be that of its new disk too; those before it stay refused.
    #[test]
    fn whoever_comes_back_on_another_disk_keeps_its_newest_certificate_alone() {
        let mark = |issued| Mark { issued, key: [7; 32] };
        let now = Membership { marks: [(NodeId(3), mark(200)), (NodeId(9), mark(5))].into(), ..three() };
        let change = MemberChange::Replace { old: NodeId(3), new: NodeId(3), address: "node-3:1".to_owned() };
        let to = change.apply(&now, &met(&[(3, 2)]), true).unwrap();
        let step = next_step(&now, &to);
        assert!(!step.members.contains_key(&NodeId(3)));
        let marks: Vec<_> = step.marks.iter().map(|(id, mark)| (id.0, mark.issued)).collect();
        assert_eq!(marks, [(3, 199), (9, 5)]);
    }

    /// Whoever goes leaves the newest of its certificates, also one that was not written down yet, or that nobody has seen.
    #[test]
    fn the_certificates_of_whoever_goes_are_nobodys_and_there_is_room_for_them() {
        let mark = |issued| Mark { issued, key: [7; 32] };
        let mut now =
            Membership { marks: [(NodeId(2), mark(100)), (NodeId(3), mark(100))].into(), ..three() };
        let gone = |now: &Membership, id, seen: Option<u64>| {
            let mut to = MemberChange::Remove(NodeId(id)).apply(now, &met(&[]), true).unwrap();
            revoke(now, &mut to, |_| seen.map(mark), 50, Broken::default());
            assert!(to.marks.len() <= MAX_MARKS);
            to.marks[&NodeId(id)].issued
        };
        assert_eq!((gone(&now, 3, None), gone(&now, 3, Some(200)), gone(&now, 3, Some(90))), (100, 200, 100));
        assert_eq!((gone(&now, 1, None), gone(&now, 1, Some(7))), (50, 7));
        now.marks.extend((10..8 + MAX_MARKS as u64).map(|id| (NodeId(id), mark(1))));
        assert_eq!((now.marks.len(), gone(&now, 1, None)), (MAX_MARKS, 50));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let says = |change: MemberChange, newcomers: &[(u64, u64)]| {
            let newcomers = met(newcomers);
            let to = change
                .votes(&three(), &newcomers)
                .and_then(|votes| change.apply(&three(), &newcomers, votes));
            to.unwrap_err().to_string()
        };
        assert!(says(MemberChange::Promote(NodeId(9)), &[]).contains("node 9 is no member"));
        for nowhere in ["a", ":1", "a:0", "a:x", "0.0.0.0:1", "[::]:1"] {
            let admit = MemberChange::Admit { incarnation: Incarnation(8), address: nowhere.to_owned() };
            assert!(says(admit, &[]).contains("as others can dial it"), "{nowhere}");
        }
        let mistyped = MemberChange::Replace { old: NodeId(9), new: NodeId(4), address: "a:1".to_owned() };
        assert!(says(mistyped, &[(4, 1)]).contains("node 9 is no member"));
        let many: Vec<(u64, u64)> = (1..=10).map(|id| (id, 1)).collect();
        let list = many.iter().map(|(id, _)| (NodeId(*id), "a:1".to_owned())).collect();
        assert!(says(MemberChange::Voters(list), &many).contains("at most 9"));
        assert!(says(MemberChange::Voters(BTreeMap::new()), &[]).contains("nobody would vote"));
    }
}
