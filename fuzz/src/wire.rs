//! What comes over a connection.

use crate::Source;
use bytes::BytesMut;
use coracle::wire::{self, Decoder, HEADER, Incoming, frame_limit};
use coracle_server::commands;
use coracle_server::resp::Parser;

/// The largest frame that is taken in, in bytes: what a member may send is far more, and nothing here depends on it.
const MAX_FRAME: usize = frame_limit(64 << 10);

/// A stranger's bytes on the peer port, in pieces of any size. The first byte says how large.
pub fn stream(data: &[u8]) {
    let mut source = Source(data);
    let piece = usize::from(source.byte()) + 1;
    let (mut decoder, mut stream) = (Decoder::new(MAX_FRAME), BytesMut::new());
    while !source.is_over() {
        stream.extend_from_slice(source.bytes(piece));
        loop {
            match decoder.next(&mut stream) {
                Ok(Some((_, length))) => assert!(length <= MAX_FRAME, "a frame over the limit"),
                Ok(None) => break,
                Err(_) => return,
            }
            assert!(decoder.begun() <= MAX_FRAME, "a frame over the limit has begun");
        }
    }
}

/// One frame of any type with right checksums: a byte for its type, two for the length of its meta, the meta, and the bulk.
/// What is understood is said again in the same way.
pub fn frame(data: &[u8]) {
    let mut source = Source(data);
    let kind = source.byte();
    let length = usize::from(source.u16());
    let meta = source.bytes(length);
    let bulk = source.0;
    // A bulk of entries is summed entry by entry, any other as one piece.
    let entries = entry_sums(bulk);
    let whole = if bulk.is_empty() { Vec::new() } else { vec![crc32c::crc32c(bulk)] };
    for sums in [whole, entries] {
        let bytes = sealed(kind, meta, bulk, &sums);
        let mut stream = BytesMut::from(&bytes[..]);
        let Ok(Some((incoming, length))) = Decoder::new(MAX_FRAME).next(&mut stream) else { continue };
        assert_eq!(length, bytes.len(), "a frame is as long as it is");
        if let Incoming::Message(message) = incoming {
            let again = wire::decode(&wire::encode(&message).to_bytes());
            assert_eq!(again.as_ref(), Ok(&Some(message)), "what was said again is something else");
        }
    }
}

/// A client's bytes. However they are cut, the commands are the same, and each of them has a meaning or a refusal.
pub fn resp(data: &[u8]) {
    let mut source = Source(data);
    let piece = usize::from(source.byte()) + 1;
    let whole = commands_in(source.0, source.0.len().max(1));
    let pieces = commands_in(source.0, piece);
    assert_eq!(whole, pieces, "the pieces that bytes come in change their meaning");
}

fn commands_in(bytes: &[u8], piece: usize) -> (Vec<Vec<Vec<u8>>>, Option<String>) {
    let (mut parser, mut all) = (Parser::new(), Vec::new());
    for mut input in bytes.chunks(piece) {
        loop {
            match parser.next(&mut input) {
                Ok(Some(command)) => {
                    all.push((0..command.len()).map(|at| command.argument(at).to_vec()).collect());
                    drop(commands::parse(command));
                }
                Ok(None) => break,
                Err(error) => return (all, Some(error.to_string())),
            }
        }
    }
    (all, None)
}

/// A frame as it stands in `docs/wire-format.md`.
fn sealed(kind: u8, meta: &[u8], bulk: &[u8], sums: &[u32]) -> Vec<u8> {
    let mut frame = vec![0; HEADER];
    frame[..4].copy_from_slice(b"CRCL");
    frame[4] = 1;
    frame[5] = kind;
    frame[16..20].copy_from_slice(&(meta.len() as u32).to_le_bytes());
    frame[20..24].copy_from_slice(&(bulk.len() as u32).to_le_bytes());
    let add = |sum, part: &u32| crc32c::crc32c_append(sum, &part.to_le_bytes());
    let body = sums.iter().fold(crc32c::crc32c(meta), add);
    frame[24..28].copy_from_slice(&body.to_le_bytes());
    let header = crc32c::crc32c(&frame[..28]);
    frame[28..32].copy_from_slice(&header.to_le_bytes());
    frame.extend_from_slice(meta);
    frame.extend_from_slice(bulk);
    frame
}

/// The checksums that the entries in a bulk carry, as far as it holds some.
fn entry_sums(mut bulk: &[u8]) -> Vec<u32> {
    let mut sums = Vec::new();
    while let Ok(length) = coracle::entry::Entry::encoded_len(bulk)
        && length <= bulk.len()
    {
        sums.push(u32::from_le_bytes([bulk[0], bulk[1], bulk[2], bulk[3]]));
        bulk = &bulk[length..];
    }
    sums
}
