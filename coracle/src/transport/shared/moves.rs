//! What the transport does about members that are not where the membership says: it looks for them where they or others
//! say that they are, keeps where it found them, and passes that on.

use super::super::link::Link;
use super::{Shared, State, Target};
use crate::place::Place;
use crate::wire::{self, Frame, encode_places};
use bytes::Bytes;
use coracle_core::{Boot, Peer};

impl Shared {
    /// Where to look for a member; the first is where it was met last.
    pub(in crate::transport) fn addresses(&self, target: &Target) -> Vec<String> {
        let state = self.state();
        let told = state.told(target.peer);
        state.places.addresses(target.peer, told.as_deref())
    }

    /// A dial met this member there. Others are told, if that is news.
    pub(in crate::transport) fn found(&self, target: &Target, who: (Peer, Boot), address: &str) {
        let mut state = self.state();
        let Some(news) = state.places.find(target.peer, who, address) else { return };
        let home = state.places.home(target.peer).unwrap_or_default();
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
    pub(in crate::transport) fn hear_places(&self, from: Peer, places: Vec<Place>) {
        if self.is_member(from) {
            for place in places {
                self.look_for(place);
            }
        }
    }

    /// Looks for a member at this place too. Whether it is one that is dialed.
    pub(in crate::transport) fn look_for(&self, place: Place) -> bool {
        let mut state = self.state();
        let id = place.peer.id;
        let Some(news) = state.places.hear(place) else { return false };
        if let Some(target) = state.targets.get(&id).filter(|_| news) {
            target.wake.notify_one();
        }
        true
    }

    /// Where members were found, away from home.
    pub(in crate::transport) fn places(&self) -> Vec<Place> {
        self.state().places.found().cloned().collect()
    }

    /// Where connected members say that they are, if that is not their home, and they were not met at home.
    pub(in crate::transport) fn claims(&self) -> Vec<Place> {
        let state = self.state();
        let claim = |target: &Target| {
            let link = state.best(target.peer)?;
            state.places.claim(target.peer, link.boot, &link.who.address)
        };
        state.targets.values().filter_map(|target| claim(target)).collect()
    }

    /// Where the newest membership says that this node is, if that differs from what it says itself.
    pub(in crate::transport) fn other_home(&self) -> Option<String> {
        let state = self.state();
        state.places.other_home(&state.local.address).map(str::to_owned)
    }

    /// Whether the leader may put this place into the membership, where this one answered there.
    pub(in crate::transport) fn is_there(&self, place: &Place, who: Option<(Peer, Boot)>) -> bool {
        self.state().places.is_there(place, who)
    }
}

impl State {
    /// What a member says of its address, on the connection that it made.
    fn told(&self, peer: Peer) -> Option<String> {
        let link = self.routes.get(&peer)?.accepted.as_ref()?;
        Some(link.who.address.clone())
    }

    /// A link is new: its other end is told where members are, and who made it is looked for where it says.
    pub(in crate::transport) fn tell_places(&self, link: &Link) {
        let found: Vec<&Place> = self.places.found().filter(|place| place.peer != link.peer).collect();
        for places in found.chunks(wire::MAX_PLACES) {
            tell(link, encode_places(places.iter().copied()));
        }
        if let Some(target) = self.targets.get(&link.peer.id).filter(|target| target.peer == link.peer)
            && !link.dialed
            && self.places.home(target.peer) != Some(&link.who.address)
        {
            target.wake.notify_one();
        }
    }
}

/// Sends a frame about places to one that knows what that is.
fn tell(link: &Link, head: Bytes) {
    if link.who.features & wire::MOVES != 0 {
        link.outbox.push(Frame { head, bulk: Vec::new() });
    }
}
