//! What the transport does about members that are not where the membership says: it looks for them where they or others
//! say that they are, keeps where it found them, and passes that on.

use super::link::Link;
use super::places::Places;
use super::shared::{Shared, State, Target};
use crate::place::Place;
use crate::wire::{self, Frame, encode_places};
use bytes::Bytes;
use coracle_core::{Boot, Peer};
use std::sync::{MutexGuard, PoisonError};

impl Shared {
    /// Where to look for a member; the first is where it was met last.
    pub(super) fn addresses(&self, target: &Target) -> Vec<String> {
        let state = self.state();
        let told = state.told(target.peer);
        state.places.addresses(target.peer, &target.home(), told.as_deref())
    }

    /// A dial met this member there. Others are told, if that is news.
    pub(super) fn found(&self, target: &Target, boot: Boot, address: &str) {
        let mut state = self.state();
        let home = target.home().clone();
        let place = Place { peer: target.peer, boot, address: address.to_owned() };
        if target.unneeded.load(std::sync::atomic::Ordering::Relaxed) {
            return;
        }
        let Some(news) = state.places.find(place, &home) else { return };
        tracing::info!(
            node = %self.me.id,
            "node {} was found at {address}, and the membership says {home}: it is dialed there from now on",
            target.peer.id
        );
        let frame = encode_places([news].iter());
        for link in state.links.values() {
            tell(link, frame.clone());
        }
    }

    /// Somebody says where members are. Only members are heard.
    pub(super) fn hear_places(&self, from: Peer, places: Vec<Place>) {
        if self.is_member(from) {
            for place in places {
                self.look_for(place);
            }
        }
    }

    /// Looks for a member at this place too. Whether it is one that is dialed.
    pub(super) fn look_for(&self, place: Place) -> bool {
        let mut state = self.state();
        let State { targets, places, .. } = &mut *state;
        let Some(target) = targets.get(&place.peer.id).filter(|target| target.peer == place.peer) else {
            return false;
        };
        if places.hear(place, &target.home()) {
            target.wake.notify_one();
        }
        true
    }

    /// Where members were found, away from home.
    pub(super) fn places(&self) -> Vec<Place> {
        self.state().places.found().cloned().collect()
    }

    /// Where connected members say that they are, if that is not their home, and they were not met at home.
    pub(super) fn claims(&self) -> Vec<Place> {
        let state = self.state();
        let claim = |target: &Target| {
            let link = state.best(target.peer)?;
            let address = &link.who.address;
            let moved = !address.is_empty()
                && *address != *target.home()
                && !state.places.at_home(target.peer, link.boot);
            moved.then(|| Place { peer: target.peer, boot: link.boot, address: address.clone() })
        };
        state.targets.values().filter_map(|target| claim(target)).collect()
    }

    /// Where the newest membership says that this node is, if that differs from what it says itself.
    pub(super) fn other_home(&self) -> Option<String> {
        let state = self.state();
        let own = &state.local.address;
        state.home.clone().filter(|home| !own.is_empty() && home != own)
    }
}

impl State {
    /// What a member says of its address, on the connection that it made.
    fn told(&self, peer: Peer) -> Option<String> {
        let link = self.routes.get(&peer)?.accepted.as_ref()?;
        Some(link.who.address.clone())
    }

    /// A link is new: its other end is told where members are, and who made it is looked for where it says.
    pub(super) fn tell_places(&self, link: &Link) {
        let found: Vec<&Place> = self.places.found().filter(|place| place.peer != link.peer).collect();
        for places in found.chunks(wire::MAX_PLACES) {
            tell(link, encode_places(places.iter().copied()));
        }
        if let Some(target) = self.targets.get(&link.peer.id).filter(|target| target.peer == link.peer)
            && !link.dialed
            && link.who.address != *target.home()
        {
            target.wake.notify_one();
        }
    }

    /// Forgets where those were found who are not dialed any more.
    pub(super) fn forget_places(&mut self) {
        let State { targets, places, .. } = self;
        places.retain(|peer| targets.get(&peer.id).is_some_and(|target| target.peer == peer));
    }
}

impl Target {
    /// Where the membership says that it is.
    pub(super) fn home(&self) -> MutexGuard<'_, String> {
        self.home.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The membership says that the member is there: whether its connections stay.
    pub(super) fn stays(&self, places: &mut Places, home: &str) -> bool {
        let mut known = self.home();
        if *known == home {
            return true;
        }
        home.clone_into(&mut known);
        places.settle(self.peer, home)
    }
}

/// Sends a frame about places to one that knows what that is.
fn tell(link: &Link, head: Bytes) {
    if link.who.features & wire::MOVES != 0 {
        link.outbox.push(Frame { head, bulk: Vec::new() });
    }
}
