//! What a disk may do to bytes that it had kept: it changes, loses or misplaces them.

use super::{Contents, MemDisk, State, SyncedWrite};
use std::collections::BTreeMap;

/// What a disk does to bytes that it had kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// One bit is another.
    Flip,
    /// The write never happened, though its sync said so.
    Lost,
    /// The write went to the place of another.
    Misplaced,
}

/// Where a damage hits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aim {
    /// Any write that a later sync followed.
    Anywhere,
    /// The newest of these.
    Newest,
    /// What the last file begins with, after its first 4 KiB, once something else was synced after it.
    TopsFirst,
    /// The whole last file, once something else was synced after its beginning: its name is gone.
    Top,
}

impl MemDisk {
    /// Damages a write that was synced before another one was, in a file that still has a synced name which
    /// ends with `suffix`, as the other's file does. `choose` picks a number below its argument.
    /// The name of the file and the offset, or nothing if there is no such write.
    pub fn damage(
        &self,
        damage: Damage,
        aim: Aim,
        suffix: &str,
        mut choose: impl FnMut(u64) -> u64,
    ) -> Option<(String, usize)> {
        let mut state = self.state();
        let named = state.named(suffix);
        let mut targets = state.followed(&named)?;
        match aim {
            Aim::Anywhere => {}
            Aim::Newest => {
                let last = targets.iter().map(|w| w.sync).max()?;
                targets.retain(|w| w.sync == last);
            }
            Aim::TopsFirst => targets = vec![state.top(suffix)?.1],
            Aim::Top => {
                let (name, _) = state.top(suffix)?;
                state.names.remove(&name);
                state.synced_names.remove(&name);
                return Some((name, 0));
            }
        }
        if targets.is_empty() {
            return None;
        }
        let victim = targets[choose(targets.len() as u64) as usize];
        let other = targets[choose(targets.len() as u64) as usize];
        let bit = choose(victim.len as u64 * 8) as usize;
        let at = match damage {
            Damage::Flip => state.files[victim.file].flip(victim.offset + bit / 8, bit % 8),
            Damage::Lost => state.lose(victim, None),
            Damage::Misplaced => state.lose(victim, Some(other)),
        };
        Some((named.get(&victim.file)?.clone(), at))
    }
}

impl State {
    /// The files that have a synced name with this end, and the name.
    fn named(&self, suffix: &str) -> BTreeMap<usize, String> {
        self.lasting(suffix).map(|name| (self.names[name], name.clone())).collect()
    }

    /// The synced names with this end, ascending.
    fn lasting(&self, suffix: &str) -> impl DoubleEndedIterator<Item = &String> {
        let lasts = move |name: &&String| {
            name.ends_with(suffix) && self.synced_names.get(*name) == self.names.get(*name)
        };
        self.names.keys().filter(lasts)
    }

    /// The writes to these files that are still there and that a later sync followed; none, if nothing was written.
    fn followed(&self, named: &BTreeMap<usize, String>) -> Option<Vec<SyncedWrite>> {
        let is_there = |w: &&SyncedWrite| {
            named.contains_key(&w.file) && w.offset + w.len <= self.files[w.file].now.len()
        };
        let alive: Vec<SyncedWrite> = self.synced_writes.iter().filter(is_there).copied().collect();
        let newest = alive.last()?.sync;
        // What was written over since, in a recycled file, is not there any more; in its place lies perhaps the newest.
        let is_over = |later: &SyncedWrite, w: &SyncedWrite| {
            later.sync > w.sync
                && later.file == w.file
                && later.offset < w.offset + w.len
                && w.offset < later.offset + later.len
        };
        let followed =
            |w: &&SyncedWrite| w.sync < newest && w.len > 0 && !alive.iter().any(|later| is_over(later, w));
        Some(alive.iter().filter(followed).copied().collect())
    }

    /// The last file with such a name, and the write that it begins with after its first 4 KiB, if something else was
    /// synced after that.
    fn top(&self, suffix: &str) -> Option<(String, SyncedWrite)> {
        let name = self.lasting(suffix).next_back()?.clone();
        let top = self.names[&name];
        let begins = |w: &&SyncedWrite| w.file == top && (w.offset..w.offset + w.len).contains(&4096);
        let first = *self.synced_writes.iter().rfind(begins)?;
        let named = |w: &SyncedWrite| self.synced_names.values().any(|file| *file == w.file);
        let followed = self.synced_writes.iter().any(|w| w.sync > first.sync && w.file != top && named(w));
        followed.then_some((name, first))
    }

    /// A write is gone, and lies in the place of another if it went there. Where the write should be.
    fn lose(&mut self, victim: SyncedWrite, other: Option<SyncedWrite>) -> usize {
        let file = &mut self.files[victim.file];
        let bytes = file.now[victim.offset..victim.offset + victim.len].to_vec();
        file.replace(victim.offset, &vec![0; victim.len]);
        let elsewhere = |other: &SyncedWrite| (other.file, other.offset) != (victim.file, victim.offset);
        if let Some(other) = other.filter(elsewhere) {
            self.files[other.file].replace(other.offset, &bytes[..bytes.len().min(other.len)]);
        }
        victim.offset
    }
}

impl Contents {
    /// Changes one bit, also of what was synced. Where.
    fn flip(&mut self, at: usize, bit: usize) -> usize {
        for image in [&mut self.now, &mut self.synced] {
            image[at] ^= 1 << bit;
        }
        at
    }

    /// Puts other bytes in this place, also of what was synced.
    fn replace(&mut self, offset: usize, bytes: &[u8]) {
        for image in [&mut self.now, &mut self.synced] {
            image[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::Disk;

    #[test]
    fn damage_hits_what_a_later_sync_followed() {
        let disk = MemDisk::new();
        let file = disk.create("a.log").unwrap();
        disk.sync_dir().unwrap();
        file.write_at(&[1; 512], 0).unwrap();
        file.sync_data().unwrap();
        assert_eq!(disk.damage(Damage::Flip, Aim::Anywhere, ".log", |_| 0), None, "nothing came later");
        file.write_at(&[2; 512], 512).unwrap();
        file.sync_data().unwrap();
        assert_eq!(
            disk.damage(Damage::Flip, Aim::Anywhere, ".log", |below| below - 1),
            Some(("a.log".to_owned(), 511))
        );
        assert_eq!(disk.damage(Damage::Lost, Aim::Anywhere, ".log", |_| 0), Some(("a.log".to_owned(), 0)));
        let bytes = disk.power_cut(512, || false).contents("a.log").unwrap();
        assert_eq!(bytes, [[0; 512], [2; 512]].concat());
    }
}
