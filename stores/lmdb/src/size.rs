//! Whether LMDB's file holds every page that its trees name.
//!
//! LMDB reads through a map, and whoever touches a page after the end of the file gets no error: the system ends
//! the process (SIGBUS). So a file that was cut is looked at before it is mapped, with ordinary reads. Nearly
//! always that is one comparison: the newest meta page says which page is the last. But a file may rightly
//! be shorter, where the last pages were taken and given back by one transaction and never written; then both
//! trees are walked, and each page that they name has to be there.
//!
//! The layout is that of LMDB's `mdb.c`, data version 1, in the order of bytes of the computer.

use coracle::storage::StoreError;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The bytes in front of every page's content, and of every node's key.
const PAGE_HEADER: usize = 16;
const NODE_HEADER: usize = 8;

const MAGIC: u32 = 0xbeef_c0de;
const VERSION: u32 = 1;

/// Kinds of pages, and of values.
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
const BIG: u16 = 1;

/// The root of an empty tree.
const NO_PAGE: u64 = u64::MAX;

/// What is read of a meta page, in bytes.
const META: usize = 152;

/// The page sizes that LMDB knows.
const PAGES: std::ops::RangeInclusive<u64> = 256..=64 << 10;

/// What a meta page says.
struct Meta {
    page_size: u64,
    /// Of the free pages, and of the pairs.
    roots: [u64; 2],
    last: u64,
    transaction: u64,
}

/// Checks the file, if there is one.
pub(crate) fn check(path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Io { action: "read", path: path.to_owned(), source };
    let damaged = |offset: u64, detail: &str| {
        let detail = format!("{detail}; bring the file back");
        StoreError::Damaged { path: path.to_owned(), offset, detail }
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    // First what it should be and then its length: the pages are written before the page that names them.
    let Some(meta) = newest(&file).map_err(failed)? else { return Ok(()) };
    let len = file.metadata().map_err(failed)?.len();
    let whole = meta.last.checked_add(1).and_then(|pages| pages.checked_mul(meta.page_size));
    if whole.is_some_and(|whole| len >= whole) {
        return Ok(());
    }
    let pages = len / meta.page_size;
    let mut left: Vec<u64> = meta.roots.into_iter().filter(|root| *root != NO_PAGE).collect();
    let mut page = vec![0; meta.page_size as usize];
    let mut seen = 0;
    while let Some(number) = left.pop() {
        seen += 1;
        if number >= pages || seen > pages {
            return Err(damaged(len, "it ends before a page that is in use: it was cut"));
        }
        let offset = number * meta.page_size;
        file.read_exact_at(&mut page, offset).map_err(failed)?;
        let named = named(&page).ok_or_else(|| damaged(offset, "a page of a tree is none"))?;
        for (first, big) in named {
            if !big {
                left.push(first);
                continue;
            }
            let mut header = [0; PAGE_HEADER];
            let inside = first < pages && file.read_exact_at(&mut header, first * meta.page_size).is_ok();
            let count = u64::from(u32_at(&header, 12).unwrap_or_default());
            if !inside || first.checked_add(count).is_none_or(|end| end > pages) {
                return Err(damaged(len, "it ends before a page that is in use: it was cut"));
            }
        }
    }
    Ok(())
}

/// The meta page that counts; none where LMDB itself will say that the file is not its own.
fn newest(file: &File) -> io::Result<Option<Meta>> {
    let read = |offset: u64| {
        let mut bytes = [0; META];
        match file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(meta(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    };
    let Some(first) = read(0)? else { return Ok(None) };
    let second = read(first.page_size)?;
    Ok(Some(match second {
        Some(second) if second.transaction > first.transaction => second,
        _ => first,
    }))
}

fn meta(bytes: &[u8]) -> Option<Meta> {
    let page_size = u64::from(u32_at(bytes, 40)?);
    let known = u32_at(bytes, 16)? == MAGIC && u32_at(bytes, 20)? == VERSION && PAGES.contains(&page_size);
    known.then_some(Meta {
        page_size,
        roots: [u64_at(bytes, 80)?, u64_at(bytes, 128)?],
        last: u64_at(bytes, 136)?,
        transaction: u64_at(bytes, 144)?,
    })
}

/// The pages that this one names, and whether each is the first of a large value. None if it is no page of a tree.
fn named(page: &[u8]) -> Option<Vec<(u64, bool)>> {
    let kind = u16_at(page, 10)? & (BRANCH | LEAF);
    if kind != BRANCH && kind != LEAF {
        return None;
    }
    let count = usize::from(u16_at(page, 12)?).checked_sub(PAGE_HEADER)? / 2;
    let mut named = Vec::new();
    for at in 0..count {
        let node = usize::from(u16_at(page, PAGE_HEADER + 2 * at)?);
        let low = u64::from(u32_at(page, node)?);
        let flags = u16_at(page, node + 4)?;
        if kind == BRANCH {
            named.push((low | u64::from(flags) << 32, false));
        } else if flags & BIG != 0 {
            let key = usize::from(u16_at(page, node + 6)?);
            named.push((u64_at(page, node + NODE_HEADER + key)?, true));
        }
    }
    Some(named)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
