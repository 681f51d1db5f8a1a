//! Where members were found, as nodes pass it on over a connection that they have (D5.3.5).

use super::convert::{from_peer, to_peer};
use super::frame::{Type, seal};
use super::membership::MAX_ADDRESS;
use super::{WireError, proto};
use crate::place::Place;
use bytes::Bytes;
use coracle_core::Boot;

/// The most places of one frame: with the longest addresses they fit into the longest meta.
pub const MAX_PLACES: usize = 12;

/// Encodes the first [`MAX_PLACES`] of these as a frame.
pub(crate) fn encode_places<'a>(places: impl Iterator<Item = &'a Place>) -> Bytes {
    let place = |place: &Place| proto::Place {
        peer: Some(from_peer(place.peer)),
        boot: place.boot.0,
        address: place.address.clone(),
    };
    let meta = proto::Places { places: places.take(MAX_PLACES).map(place).collect() };
    seal(Type::Places, &meta, Vec::new(), []).head
}

pub(super) fn to_places(meta: proto::Places) -> Result<Vec<Place>, WireError> {
    if meta.places.len() > MAX_PLACES {
        return Err(WireError::Invalid("too many places in one frame"));
    }
    let place = |place: proto::Place| {
        if place.address.is_empty() || place.address.len() > MAX_ADDRESS {
            return Err(WireError::Invalid("a place without an address, or with too long a one"));
        }
        let peer = to_peer(place.peer.ok_or(WireError::Invalid("a place of nobody"))?);
        Ok(Place { peer, boot: Boot(place.boot), address: place.address })
    };
    meta.places.into_iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Decoder, Incoming};
    use super::*;
    use bytes::BytesMut;
    use coracle_core::{Incarnation, NodeId, Peer};

    fn place(id: u64, address: &str) -> Place {
        let peer = Peer { id: NodeId(id), incarnation: Incarnation(70 + id) };
        Place { peer, boot: Boot(90 + id), address: address.to_owned() }
    }

    fn read(frame: &[u8]) -> Result<Option<(Incoming, usize)>, WireError> {
        Decoder::new(1 << 20).next(&mut BytesMut::from(frame))
    }

    #[test]
    fn places_survive_the_way_and_are_as_many_as_a_frame_may_have() {
        let longest = "x".repeat(MAX_ADDRESS);
        let all: Vec<Place> = (0..100).map(|id| place(id, &longest)).collect();
        let frame = encode_places(all.iter());
        let Ok(Some((Incoming::Places(read), length))) = read(&frame) else { panic!("{frame:?}") };
        assert_eq!((length, &read[..]), (frame.len(), &all[..MAX_PLACES]));
    }

    #[test]
    fn places_that_cannot_be_meant_are_refused() {
        for wrong in [String::new(), "x".repeat(MAX_ADDRESS + 1)] {
            let frame = encode_places([place(1, &wrong)].iter());
            assert!(matches!(read(&frame), Err(WireError::Invalid(_))), "{wrong}");
        }
        let many = proto::Places { places: vec![proto::Place::default(); MAX_PLACES + 1] };
        assert!(matches!(to_places(many), Err(WireError::Invalid(_))));
        let nobody = proto::Place { peer: None, boot: 1, address: "a:1".to_owned() };
        assert!(matches!(to_places(proto::Places { places: vec![nobody] }), Err(WireError::Invalid(_))));
    }
}
