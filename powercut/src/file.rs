//! One file: what a process reads from it, and what a loss of power leaves of it.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Contents are kept in pages of so many bytes; one that is not there is all zeros.
const PAGE: usize = 4096;

/// What a disk writes whole or not at all, in bytes.
const SECTOR: usize = 512;

type Page = [u8; PAGE];

/// A file. Two versions share the pages in which they do not differ.
#[derive(Default)]
pub(crate) struct File {
    now: Contents,
    synced: Contents,
    /// The sectors of each page that were changed since the last sync, a bit for each.
    unsynced: BTreeMap<u64, u8>,
}

#[derive(Clone, Default)]
struct Contents {
    len: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

impl File {
    /// The length in bytes, as processes see it.
    pub(crate) fn len(&self) -> u64 {
        self.now.len
    }

    /// Up to `len` bytes from `offset` on.
    pub(crate) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let end = self.now.len.min(offset.saturating_add(len as u64));
        let mut bytes = Vec::with_capacity(end.saturating_sub(offset) as usize);
        for (page, within) in pieces(offset, end) {
            match self.now.pages.get(&page) {
                Some(page) => bytes.extend_from_slice(&page[within]),
                None => bytes.resize(bytes.len() + within.len(), 0),
            }
        }
        bytes
    }

    /// Writes bytes, unsynced.
    pub(crate) fn write(&mut self, offset: u64, mut bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        for (page, within) in pieces(offset, end) {
            let (piece, rest) = bytes.split_at(within.len());
            self.put(page, within, Some(piece));
            bytes = rest;
        }
        self.now.len = self.now.len.max(end);
    }

    /// Cuts the file, or extends it with zeros; unsynced.
    pub(crate) fn set_len(&mut self, len: u64) {
        let gone: Vec<_> = self.now.pages.range(len / PAGE as u64..).map(|(page, _)| *page).collect();
        for page in gone {
            let start = len.saturating_sub(page * PAGE as u64) as usize;
            self.put(page, start..PAGE, None);
        }
        self.now.len = len;
    }

    /// Changes a part of a page, to zeros without bytes.
    fn put(&mut self, number: u64, within: std::ops::Range<usize>, bytes: Option<&[u8]>) {
        let sectors = within.start / SECTOR..within.end.div_ceil(SECTOR);
        *self.unsynced.entry(number).or_default() |= sectors.fold(0, |mask, sector| mask | 1 << sector);
        let zeros = bytes.is_none_or(|bytes| bytes.iter().all(|byte| *byte == 0));
        if zeros && (within.len() == PAGE || !self.now.pages.contains_key(&number)) {
            self.now.pages.remove(&number);
            return;
        }
        let page = Arc::make_mut(self.now.pages.entry(number).or_insert_with(|| Arc::new([0; PAGE])));
        match bytes {
            Some(bytes) => page[within].copy_from_slice(bytes),
            None => page[within].fill(0),
        }
    }

    /// Makes contents and length durable.
    pub(crate) fn sync(&mut self) {
        for page in std::mem::take(&mut self.unsynced).into_keys() {
            match self.now.pages.get(&page) {
                Some(contents) => self.synced.pages.insert(page, contents.clone()),
                None => self.synced.pages.remove(&page),
            };
        }
        self.synced.len = self.now.len;
    }

    /// The power is lost. Of what was not synced, the length and each sector are asked for whether they survive.
    pub(crate) fn cut(&mut self, survives: &mut dyn FnMut() -> bool) {
        for (page, mask) in std::mem::take(&mut self.unsynced) {
            for sector in (0..PAGE / SECTOR).filter(|sector| mask & (1 << sector) != 0) {
                if survives() {
                    let within = sector * SECTOR..(sector + 1) * SECTOR;
                    let kept = self.now.pages.get(&page).map(|page| page[within.clone()].to_owned());
                    let old = self.synced.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE]));
                    match kept {
                        Some(kept) => Arc::make_mut(old)[within].copy_from_slice(&kept),
                        None => Arc::make_mut(old)[within].fill(0),
                    }
                }
            }
        }
        let len = if self.now.len != self.synced.len && survives() { self.now.len } else { self.synced.len };
        // What lies after the end reads as zeros, should the file grow again.
        self.now = std::mem::take(&mut self.synced);
        self.set_len(len);
        self.unsynced.clear();
        self.synced = self.now.clone();
    }
}

/// The pages from `offset` to `end`, and which of their bytes.
fn pieces(offset: u64, end: u64) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let size = PAGE as u64;
    (offset / size..end.max(offset).div_ceil(size))
        .map(move |page| {
            let start = page * size;
            let from = offset.max(start) - start;
            let to = end.min(start + size) - start;
            (page, from as usize..to as usize)
        })
        .filter(|(_, within)| !within.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_synced_is_lost_or_kept_by_sectors() {
        let mut file = File::default();
        file.write(100, &[1; 9000]);
        file.sync();
        file.write(0, &[2; 1024]);
        file.write(9000, &[3; 1000]);
        assert_eq!(file.len(), 10_000);
        file.cut(&mut || false);
        assert_eq!(file.len(), 9100);
        assert_eq!(file.read(0, 101), [&[0; 100][..], &[1]].concat());
        assert_eq!(file.read(8990, 500), [1; 110]);

        file.write(0, &[2; 1024]);
        let mut first = true;
        file.cut(&mut || std::mem::take(&mut first));
        assert_eq!(file.read(0, 1024), [[2; 512], [1; 512]].concat(), "one sector survived");
        file.write(9000, &[3; 1000]);
        file.cut(&mut || true);
        assert_eq!((file.len(), file.read(9000, 2000)), (10_000, vec![3; 1000]));
    }

    #[test]
    fn a_file_that_is_cut_and_grows_again_has_zeros_there() {
        let mut file = File::default();
        file.write(0, &[7; 5000]);
        file.set_len(4500);
        file.set_len(5000);
        assert_eq!(file.read(4499, 2), [7, 0]);
        file.set_len(0);
        file.set_len(20_000);
        assert_eq!(file.read(0, 30_000), vec![0; 20_000]);
        file.sync();
        file.cut(&mut || false);
        assert_eq!(file.len(), 20_000);
        file.set_len(10);
        file.cut(&mut || false);
        assert_eq!(file.len(), 20_000, "a cut that was not synced");
    }
}
