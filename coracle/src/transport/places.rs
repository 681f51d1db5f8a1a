//! Where members are, beside what the membership says (D5.3.5).
//!
//! A member that was started at another address tells it in its handshakes, and those who hear it look for the member
//! there. What somebody *says* is only tried; a place is *found* when a dial met that very member, on its disk, at that
//! address. What was found is kept, told to the others, and tried first from then on. The membership's address is always
//! among those that are tried, so nothing that a stranger says keeps anybody from it; and whoever answers there is at
//! home, and no place of it is kept.

use crate::place::Place;
use coracle_core::{Boot, Broken, Membership, NodeId, Peer};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How many addresses that others named are tried of one member: of more, the oldest is forgotten.
const HEARD: usize = 4;

/// How many places are remembered of those who are not dialed: of more, the oldest is forgotten.
const OTHERS: usize = 32;

/// What is known of where members are, and what is made of it. It asks nobody: whoever turns it does.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// Where the membership says that they are: of those who are dialed.
    homes: BTreeMap<Peer, String>,
    /// Where it says that this node is.
    own_home: Option<String>,
    /// Where they were found, away from home.
    found: BTreeMap<Peer, Place>,
    /// Where others say that they are, newest last.
    heard: BTreeMap<Peer, Vec<Place>>,
    /// Where those may be who are not dialed, newest last. The entry that adds them, once more or at all, may come after the
    /// news of where they are, which is told once.
    others: VecDeque<Place>,
    /// In which boot they were met at home last.
    met_at_home: BTreeMap<Peer, Boot>,
    /// The rule that does not hold here.
    broken: Broken,
}

impl Places {
    /// What an earlier run of this node knew.
    pub(crate) fn new(known: &[Place], broken: Broken) -> Places {
        let known = if broken.is("places-not-kept") { &[] } else { known };
        let found = known.iter().map(|place| (place.peer, place.clone())).collect();
        Places { found, broken, ..Places::default() }
    }

    /// Whom to dial, and where the membership says that they are: those of this membership but for `me`, and those who
    /// are leaving it. Of a node that is being replaced the new disk is dialed: the last one of a name counts.
    pub(crate) fn wanted(
        me: NodeId,
        membership: &Membership,
        leaving: &[coracle_core::Member],
    ) -> BTreeMap<NodeId, (Peer, String)> {
        let all = leaving.iter().chain(membership.outgoing.values()).chain(membership.members.values());
        let others = all.filter(|member| member.id != me);
        others.map(|member| (member.id, (member.peer(), member.address.clone()))).collect()
    }

    /// The membership says this of where members are, and of this node. Returns those whose connections end: who is
    /// none any more, and who is at an address now at which it was not found.
    pub(crate) fn settle(
        &mut self,
        own_home: Option<String>,
        wanted: &BTreeMap<NodeId, (Peer, String)>,
    ) -> Vec<Peer> {
        self.own_home = own_home;
        let wanted: BTreeMap<Peer, String> = wanted.values().cloned().collect();
        let before = std::mem::replace(&mut self.homes, wanted);
        let mut ended = Vec::new();
        for (peer, home) in before {
            match self.homes.get(&peer) {
                Some(now) if *now == home => {}
                Some(now) => {
                    let met = self.met_at_home.remove(&peer);
                    match self.found.remove(&peer) {
                        Some(place) if place.address == *now => {
                            self.met_at_home.insert(peer, place.boot);
                            self.heard.remove(&peer);
                        }
                        elsewhere => {
                            self.found.extend(elsewhere.map(|place| (peer, place)));
                            // The entry that named its home may have been taken back, and the member is there still.
                            if let Some(boot) = met {
                                self.hear(Place { peer, boot, address: home });
                            }
                            ended.push(peer);
                        }
                    }
                }
                None => ended.push(peer),
            }
        }
        let Places { homes, found, heard, met_at_home, .. } = self;
        met_at_home.retain(|peer, _| homes.contains_key(peer));
        let mut gone = Vec::new();
        heard.retain(|peer, places| {
            let stays = homes.contains_key(peer);
            if !stays {
                gone.append(places);
            }
            stays
        });
        found.retain(|peer, place| {
            let stays = homes.contains_key(peer);
            gone.extend((!stays).then(|| place.clone()));
            stays
        });
        gone.into_iter().for_each(|place| self.remember(place));
        for place in std::mem::take(&mut self.others) {
            self.hear(place);
        }
        ended
    }

    /// Who is dialed.
    #[cfg_attr(not(feature = "sim"), allow(dead_code, reason = "the transport has a task for each"))]
    pub(crate) fn dialed(&self) -> impl Iterator<Item = Peer> {
        self.homes.keys().copied()
    }

    /// Where the membership says that this member is, if it is dialed.
    pub(crate) fn home(&self, peer: Peer) -> Option<&str> {
        self.homes.get(&peer).map(String::as_str)
    }

    /// Where the membership says that this node is, if it says something else itself.
    pub(crate) fn other_home(&self, own: &str) -> Option<&str> {
        self.own_home.as_deref().filter(|home| !own.is_empty() && *home != own)
    }

    /// Where to look for a member: the first is where it was met last. `told`: what the member says itself, on a
    /// connection that it made.
    pub(crate) fn addresses(&self, peer: Peer, told: Option<&str>) -> Vec<String> {
        let found = self.found.get(&peer).map(|place| &*place.address);
        let heard = self.heard.get(&peer).into_iter().flatten().rev().map(|place| &*place.address);
        let mut known = BTreeSet::new();
        let all = found.into_iter().chain(self.home(peer)).chain(told).chain(heard);
        all.filter(|address| !address.is_empty() && known.insert(*address)).map(str::to_owned).collect()
    }

    /// A dial for a member met somebody, in some boot, at this address. The place, if that is the member and it is news.
    pub(crate) fn find(&mut self, peer: Peer, who: (Peer, Boot), address: &str) -> Option<Place> {
        let (other, boot) = who;
        if other != peer && !self.broken.is("place-of-anybody") {
            return None;
        }
        if self.home(peer)? == address {
            self.met_at_home.insert(peer, boot);
            self.found.remove(&peer);
            self.heard.remove(&peer);
            return None;
        }
        let place = Place { peer, boot, address: address.to_owned() };
        if self.broken.is("older-place-wins") && self.found.contains_key(&peer) {
            return None;
        }
        let known = self.found.insert(peer, place.clone());
        (known.as_ref() != Some(&place)).then_some(place)
    }

    /// Of somebody who is not dialed: this place is tried if that changes.
    fn remember(&mut self, place: Place) {
        self.others.retain(|other| (other.peer, &other.address) != (place.peer, &place.address));
        self.others.push_back(place);
        if self.others.len() > OTHERS {
            self.others.pop_front();
        }
    }

    /// Somebody says that a member is there. None: it is nobody who is dialed, as yet; otherwise, whether that is worth a
    /// look.
    pub(crate) fn hear(&mut self, place: Place) -> Option<bool> {
        let known = self.found.get(&place.peer).is_some_and(|found| found.address == place.address);
        let Some(home) = self.home(place.peer) else {
            self.remember(place);
            return None;
        };
        if home == place.address || known {
            return Some(false);
        }
        let heard = self.heard.entry(place.peer).or_default();
        heard.retain(|other| other.address != place.address);
        heard.push(place);
        if heard.len() > HEARD {
            heard.remove(0);
        }
        Some(true)
    }

    /// What a connected member says of its address: the place, if that is not its home, and it was not met at home in
    /// this boot. Then it has not moved, whatever it calls its address.
    pub(crate) fn claim(&self, peer: Peer, boot: Boot, address: &str) -> Option<Place> {
        let moved =
            !address.is_empty() && self.home(peer)? != address && self.met_at_home.get(&peer) != Some(&boot);
        moved.then(|| Place { peer, boot, address: address.to_owned() })
    }

    /// Whether a leader may put this place into the membership: that very boot of the member answered there.
    pub(crate) fn is_there(&self, place: &Place, who: Option<(Peer, Boot)>) -> bool {
        who == Some((place.peer, place.boot)) || self.broken.is("move-not-found")
    }

    /// Where members were found, away from home.
    pub(crate) fn found(&self) -> impl Iterator<Item = &Place> {
        self.found.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_core::{ClusterId, Incarnation, Member};

    const PEER: Peer = Peer { id: NodeId(2), incarnation: Incarnation(7) };

    fn place(address: &str) -> Place {
        Place { peer: PEER, boot: Boot(1), address: address.to_owned() }
    }

    fn at(address: &str) -> BTreeMap<NodeId, (Peer, String)> {
        BTreeMap::from([(PEER.id, (PEER, address.to_owned()))])
    }

    /// One that is dialed at `home`, with what was known of it.
    fn places(known: &[Place], home: &str) -> Places {
        let mut places = Places::new(known, Broken::default());
        assert_eq!(places.settle(None, &at(home)), []);
        places
    }

    fn met(places: &mut Places, address: &str) -> Option<Place> {
        places.find(PEER, (PEER, Boot(1)), address)
    }

    /// The entry with its new address may be truncated: then the membership names the old one again, where nobody is.
    #[test]
    fn where_a_member_was_met_is_tried_when_its_address_is_taken_back() {
        let mut places = places(&[], "old:1");
        met(&mut places, "new:1");
        assert_eq!(places.settle(None, &at("new:1")), [], "it was found there");
        assert_eq!(places.settle(None, &at("old:1")), [PEER]);
        assert_eq!(places.addresses(PEER, None), ["old:1", "new:1"]);
        met(&mut places, "old:1");
        assert_eq!(places.addresses(PEER, None), ["old:1"], "it is at home");
    }

    #[test]
    fn what_is_said_is_tried_after_what_is_known_and_is_bounded() {
        let mut places = places(&[], "home:1");
        for at in 0..20 {
            assert_eq!(places.hear(place(&format!("s:{at}"))), Some(true));
        }
        assert_eq!(places.hear(place("home:1")), Some(false));
        let tried = places.addresses(PEER, Some("told:1"));
        assert_eq!(tried, ["home:1", "told:1", "s:19", "s:18", "s:17", "s:16"]);
        assert_eq!(places.found().count(), 0, "nothing is found by being said");
        let stranger = Peer { incarnation: Incarnation(8), ..PEER };
        assert_eq!(places.hear(Place { peer: stranger, ..place("s:1") }), None, "another disk is nobody");
    }

    #[test]
    fn what_was_found_comes_first_until_the_member_is_met_at_home() {
        let mut places = places(&[place("known:1")], "home:1");
        assert_eq!(places.addresses(PEER, None), ["known:1", "home:1"]);
        assert_eq!(met(&mut places, "known:1"), None, "no news");
        assert_eq!(met(&mut places, "new:1"), Some(place("new:1")));
        assert_eq!(places.addresses(PEER, Some("new:1")), ["new:1", "home:1"]);
        assert_eq!(places.claim(PEER, Boot(1), "new:1"), Some(place("new:1")));
        assert_eq!(met(&mut places, "home:1"), None);
        assert_eq!(places.addresses(PEER, None), ["home:1"]);
        assert_eq!(places.claim(PEER, Boot(1), "new:1"), None, "another name of its home");
        assert!(places.claim(PEER, Boot(2), "new:1").is_some(), "that was another boot");
        assert_eq!(places.claim(PEER, Boot(2), ""), None);
        assert_eq!(places.claim(PEER, Boot(2), "home:1"), None);
    }

    #[test]
    fn only_the_very_disk_that_is_looked_for_is_found() {
        let mut places = places(&[], "home:1");
        let other = Peer { incarnation: Incarnation(8), ..PEER };
        assert_eq!(places.find(PEER, (other, Boot(1)), "new:1"), None);
        assert_eq!(places.find(other, (other, Boot(1)), "new:1"), None);
        assert_eq!(places.addresses(PEER, None), ["home:1"]);
        let place = place("new:1");
        assert!(places.is_there(&place, Some((PEER, Boot(1)))));
        for who in [None, Some((PEER, Boot(2))), Some((other, Boot(1)))] {
            assert!(!places.is_there(&place, who), "{who:?}");
        }
    }

    #[test]
    fn a_committed_address_is_home() {
        let mut places = places(&[place("new:1")], "home:1");
        assert_eq!(places.settle(None, &at("other:1")), [PEER], "it was not met there");
        assert_eq!(places.addresses(PEER, None), ["new:1", "other:1"]);
        assert_eq!(places.settle(None, &at("new:1")), [], "its connections stay");
        assert_eq!(places.claim(PEER, Boot(1), "name:1"), None);
        assert_eq!(places.found().count(), 0);
        // Met where it was is not met where it is.
        assert_eq!(places.settle(None, &at("last:1")), [PEER]);
        assert!(places.claim(PEER, Boot(1), "name:1").is_some());
    }

    /// A member may be heard of before the entry that adds it, and be taken out by one that is taken back.
    #[test]
    fn where_one_is_who_is_not_dialed_is_tried_once_that_changes() {
        let mut places = places(&[place("new:1")], "home:1");
        assert_eq!(places.hear(place("s:1")), Some(true));
        assert_eq!(places.settle(None, &BTreeMap::new()), [PEER]);
        assert_eq!(met(&mut places, "new:1"), None);
        assert_eq!((places.found().count(), places.addresses(PEER, None).len()), (0, 0), "it is not dialed");
        assert_eq!(places.hear(place("s:2")), None, "nor is that worth a look");
        assert_eq!(places.settle(None, &at("home:1")), []);
        assert_eq!(places.addresses(PEER, None), ["home:1", "s:2", "new:1", "s:1"]);
        assert_eq!(places.found().count(), 0, "it was not found in this membership");
        for at in 0..100 {
            places.hear(Place { peer: Peer { id: NodeId(9), ..PEER }, ..place(&format!("x:{at}")) });
        }
        assert_eq!(places.others.len(), OTHERS);
    }

    #[test]
    fn a_node_is_away_where_it_says_something_else_than_the_membership() {
        let mut places = places(&[], "home:1");
        assert_eq!(places.other_home("own:1"), None, "it is no member");
        places.settle(Some("own:1".to_owned()), &at("home:1"));
        assert_eq!((places.other_home("own:1"), places.other_home("")), (None, None));
        assert_eq!(places.other_home("new:1"), Some("own:1"));
    }

    #[test]
    fn the_new_disk_of_a_node_is_dialed_and_this_node_is_not() {
        let member = |id: u64, incarnation, address: &str| Member {
            id: NodeId(id),
            incarnation: Incarnation(incarnation),
            address: address.to_owned(),
        };
        let mut membership = Membership::of_voters(
            ClusterId(1),
            [member(1, 1, "a:1"), member(2, 7, "b:1"), member(3, 1, "c:1")],
        );
        membership.outgoing.insert(NodeId(2), member(2, 6, "old:1"));
        let wanted = Places::wanted(NodeId(1), &membership, &[member(4, 1, "d:1")]);
        let list: Vec<_> = wanted.values().map(|(peer, at)| (peer.id.0, peer.incarnation.0, &**at)).collect();
        assert_eq!(list, [(2, 7, "b:1"), (3, 1, "c:1"), (4, 1, "d:1")]);
    }
}
