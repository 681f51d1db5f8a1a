//! What a machine that keeps its own disk is given beside its state, and gives back at a start: the header that a snapshot of
//! that moment would have, which names no file.

use super::{FIXED, MAGIC, MAX_AFTER, Meta, PLAIN, WITH_RULINGS, u32_at};

/// The bytes of it.
pub(crate) fn encode(meta: &Meta) -> Vec<u8> {
    super::encode(meta, 0)
}

/// What it says, or what is wrong with it.
pub(crate) fn decode(blob: &[u8]) -> Result<Meta, String> {
    if blob.len() < FIXED || blob[4..8] != MAGIC {
        return Err("it does not begin like one".to_owned());
    }
    if u32_at(blob, 12) as usize != blob.len() || blob.len() > FIXED + MAX_AFTER {
        return Err("its length is another than it says".to_owned());
    }
    if u32_at(blob, 0) != crc32c::crc32c(&blob[4..]) {
        return Err("its checksum is wrong".to_owned());
    }
    match u32_at(blob, 8) {
        PLAIN..=WITH_RULINGS => {
            let meta = super::decode(blob).map(|(_, meta)| meta);
            meta.ok_or_else(|| "what it says cannot be true".to_owned())
        }
        other => Err(format!(
            "it is of version {other}, and this program knows none after {WITH_RULINGS}: upgrade the program"
        )),
    }
}
