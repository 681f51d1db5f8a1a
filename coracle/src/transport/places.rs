//! Where members are, beside what the membership says (D5.3.5).
//!
//! A member that was started at another address tells it in its handshakes, and those who hear it look for the member
//! there. What somebody *says* is only tried; a place is *found* when a dial met that very member, on its disk, at that
//! address. What was found is kept, told to the others, and tried first from then on. The membership's address is always
//! among those that are tried, so nothing that a stranger says keeps anybody from it; and whoever answers there is at
//! home, and no place of it is kept.

use crate::place::Place;
use coracle_core::{Boot, Peer};
use std::collections::{BTreeMap, BTreeSet};

/// How many addresses that others named are tried of one member: of more, the oldest is forgotten.
const HEARD: usize = 4;

/// What is known of where members are. Only of members that are dialed.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Where they were found, away from home.
    found: BTreeMap<Peer, Place>,
    /// Where others say that they are, newest last.
    heard: BTreeMap<Peer, Vec<Place>>,
    /// In which boot they were met at home last.
    home: BTreeMap<Peer, Boot>,
}

impl Places {
    pub(super) fn new(known: &[Place]) -> Places {
        let found = known.iter().map(|place| (place.peer, place.clone())).collect();
        Places { found, ..Places::default() }
    }

    /// Where to look for a member: the first is where it was met last. `home`: what the membership says. `told`: what the
    /// member says itself, on a connection that it made.
    pub(super) fn addresses(&self, peer: Peer, home: &str, told: Option<&str>) -> Vec<String> {
        let found = self.found.get(&peer).map(|place| &*place.address);
        let heard = self.heard.get(&peer).into_iter().flatten().rev().map(|place| &*place.address);
        let mut known = BTreeSet::new();
        let all = found.into_iter().chain([home]).chain(told).chain(heard);
        all.filter(|address| !address.is_empty() && known.insert(*address)).map(str::to_owned).collect()
    }

    /// A dial met this member at this address. The place, if it is news.
    pub(super) fn find(&mut self, place: Place, home: &str) -> Option<Place> {
        let peer = place.peer;
        if place.address == home {
            self.home.insert(peer, place.boot);
            self.found.remove(&peer);
            self.heard.remove(&peer);
            return None;
        }
        let known = self.found.insert(peer, place.clone());
        (known.as_ref() != Some(&place)).then_some(place)
    }

    /// Somebody says that a member is there. Whether it is worth a look.
    pub(super) fn hear(&mut self, place: Place, home: &str) -> bool {
        let known = self.found.get(&place.peer).is_some_and(|found| found.address == place.address);
        if place.address == home || known {
            return false;
        }
        let heard = self.heard.entry(place.peer).or_default();
        heard.retain(|other| other.address != place.address);
        heard.push(place);
        if heard.len() > HEARD {
            heard.remove(0);
        }
        true
    }

    /// The membership now says that a member is at `home`. Whether that is where it was found.
    pub(super) fn settle(&mut self, peer: Peer, home: &str) -> bool {
        self.home.remove(&peer);
        let found = self.found.get(&peer).is_some_and(|place| place.address == home);
        if found && let Some(place) = self.found.remove(&peer) {
            self.home.insert(peer, place.boot);
            self.heard.remove(&peer);
        }
        found
    }

    /// Whether this member was met at home in this boot: then it has not moved, whatever it calls its address.
    pub(super) fn at_home(&self, peer: Peer, boot: Boot) -> bool {
        self.home.get(&peer) == Some(&boot)
    }

    /// Forgets all but these.
    pub(super) fn retain(&mut self, keep: impl Fn(Peer) -> bool) {
        self.found.retain(|peer, _| keep(*peer));
        self.heard.retain(|peer, _| keep(*peer));
        self.home.retain(|peer, _| keep(*peer));
    }

    /// Where members were found, away from home.
    pub(super) fn found(&self) -> impl Iterator<Item = &Place> {
        self.found.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_core::{Incarnation, NodeId};

    const PEER: Peer = Peer { id: NodeId(2), incarnation: Incarnation(7) };

    fn place(address: &str) -> Place {
        Place { peer: PEER, boot: Boot(1), address: address.to_owned() }
    }

    #[test]
    fn what_is_said_is_tried_after_what_is_known_and_is_bounded() {
        let mut places = Places::default();
        for at in 0..20 {
            assert!(places.hear(place(&format!("s:{at}")), "home:1"));
        }
        assert!(!places.hear(place("home:1"), "home:1"));
        let tried = places.addresses(PEER, "home:1", Some("told:1"));
        assert_eq!(tried, ["home:1", "told:1", "s:19", "s:18", "s:17", "s:16"]);
        assert_eq!(places.found().count(), 0, "nothing is found by being said");
    }

    #[test]
    fn what_was_found_comes_first_until_the_member_is_met_at_home() {
        let mut places = Places::new(&[place("known:1")]);
        assert_eq!(places.addresses(PEER, "home:1", None), ["known:1", "home:1"]);
        assert_eq!(places.find(place("known:1"), "home:1"), None, "no news");
        assert_eq!(places.find(place("new:1"), "home:1"), Some(place("new:1")));
        assert_eq!(places.addresses(PEER, "home:1", Some("new:1")), ["new:1", "home:1"]);
        assert!(!places.at_home(PEER, Boot(1)));
        assert_eq!(places.find(place("home:1"), "home:1"), None);
        assert_eq!(places.addresses(PEER, "home:1", None), ["home:1"]);
        assert!(places.at_home(PEER, Boot(1)) && !places.at_home(PEER, Boot(2)));
    }

    #[test]
    fn a_committed_address_is_home() {
        let mut places = Places::new(&[place("new:1")]);
        assert!(!places.settle(PEER, "other:1"));
        assert!(places.settle(PEER, "new:1"));
        assert!(places.at_home(PEER, Boot(1)));
        assert_eq!(places.found().count(), 0);
        places.retain(|_| false);
        assert!(!places.at_home(PEER, Boot(1)));
    }
}
