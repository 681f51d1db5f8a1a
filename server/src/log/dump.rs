//! Prints a log: for people, or as JSON lines (`docs/log-tools.md` has the fields).
//!
//! Entries stream, a stretch of them at a time, however long the log is. In a log that is purged while it is
//! read, a segment may be recycled before its entries are printed: then it is looked at anew, and the printing
//! goes on after what was purged.

use super::Failure;
use super::look::Look;
use super::unused;
use crate::codec;
use coracle::entry::{Entry, Kind};
use coracle::in_full;
use coracle::raft::{Index, LogId};
use coracle::storage::snapshots::{Kept, Meta};
use coracle::storage::{ReadLogError, StoreError};
use coracle::wire::decode_membership;
use coracle::{Numbered, Proposal, Ruling, Verdict};
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

/// How much is read at once, in bytes.
const PIECE: usize = 1 << 20;

/// The most of a payload that is shown to people, in characters.
const SHOWN: usize = 160;

/// Prints all there is; whether the log is intact.
pub(super) fn dump(
    dir: &Path,
    from: u64,
    to: u64,
    json: bool,
    out: &mut impl Write,
) -> Result<bool, Failure> {
    let mut printer = Printer { json, out };
    let mut look = Look::at(dir)?;
    printer.outline(&look)?;
    let mut intact = look.intact();
    let end = Index(to).min(look.last());
    let mut next = Index(from);
    // Where reading failed, and the log looked just as before.
    let mut stuck = None;
    'look: loop {
        for stretch in &look.stretches {
            next = next.max(stretch.first);
            let last = end.min(stretch.last);
            while next <= last {
                let error = match stretch.reader.entries(next, last, PIECE) {
                    Ok(entries) => {
                        for entry in &entries {
                            printer.entry(entry, entry.index() > look.attested.index)?;
                            next = entry.index().next();
                        }
                        continue;
                    }
                    Err(error) => error,
                };
                let anew = Look::at(dir)?;
                if anew.recovered.purged.index >= next {
                    printer.moved(anew.recovered.purged)?;
                } else if stuck == Some(next) && !look.lost(&anew, &error) {
                    printer.unread(&error, next)?;
                    intact = false;
                    break 'look;
                } else {
                    stuck = Some(next);
                }
                intact &= anew.intact();
                look = anew;
                continue 'look;
            }
        }
        break;
    }
    printer.flaws(&look, intact)?;
    Ok(intact)
}

struct Printer<'a, W> {
    json: bool,
    out: &'a mut W,
}

/// A line of JSON for an entry. The order of the fields is that of the line.
#[derive(Serialize)]
struct EntryLine<'a> {
    r#type: &'static str,
    index: u64,
    term: u64,
    kind: &'static str,
    cluster_time: u64,
    wall_time: u64,
    session: u64,
    sequence: u64,
    in_doubt: bool,
    length: usize,
    payload: &'a str,
}

impl<W: Write> Printer<'_, W> {
    fn line(&mut self, value: &Value) -> io::Result<()> {
        writeln!(self.out, "{value}")
    }

    /// Everything but the entries.
    fn outline(&mut self, look: &Look) -> io::Result<()> {
        if self.json { self.outline_json(look) } else { self.outline_text(look) }
    }

    fn outline_json(&mut self, look: &Look) -> io::Result<()> {
        self.line(&json!({
            "type": "directory",
            "store": look.store,
            "node": look.identity.map(|identity| identity.node.0),
            "incarnation": look.identity.map(|identity| hex16(identity.incarnation.0)),
            "cluster": look.identity.and_then(|identity| identity.cluster).map(|cluster| cluster.to_string()),
        }))?;
        for segment in &look.segments {
            self.line(&json!({
                "type": "segment",
                "file": segment.name,
                "number": segment.number,
                "generation": hex16(segment.generation),
                "bytes": segment.bytes,
                "first_batch": segment.first_batch,
                "batches": segment.batches,
                "end": segment.end,
            }))?;
        }
        for name in &look.others {
            self.line(&json!({ "type": "unused", "file": name }))?;
        }
        let recovered = &look.recovered;
        let vote = recovered.hard_state.vote;
        self.line(&json!({
            "type": "hard_state",
            "term": recovered.hard_state.term.0,
            "vote": vote.map(|vote| json!({ "node": vote.id.0, "incarnation": hex16(vote.incarnation.0) })),
            "promised_lease": recovered.hard_state.promised,
            "in_doubt": look.hard_state_in_doubt,
        }))?;
        self.line(&json!({
            "type": "log",
            "purged": log_id(recovered.purged),
            "last": log_id(recovered.last),
            "attested": log_id(look.attested),
        }))?;
        for run in &recovered.runs {
            self.line(&json!({ "type": "run", "first": run.first.0, "term": run.term.0 }))?;
        }
        for (id, payload) in &recovered.memberships {
            let line = json!({
                "type": "membership",
                "index": id.index.0,
                "term": id.term.0,
                "payload": hex(payload),
            });
            self.line(&line)?;
        }
        for (name, kept) in &look.snapshots {
            self.line(&snapshot(name, kept))?;
        }
        Ok(())
    }

    fn outline_text(&mut self, look: &Look) -> io::Result<()> {
        let out = &mut *self.out;
        match look.identity {
            Some(identity) => {
                let cluster = identity.cluster.map_or("no cluster yet".into(), |id| format!("cluster {id}"));
                let incarnation = hex16(identity.incarnation.0);
                writeln!(out, "node {}, incarnation {incarnation}, {cluster}", identity.node)?;
            }
            None => writeln!(out, "no identity can be read, so whose log it is cannot be told")?,
        }
        writeln!(out, "{} log: {}", look.store, look.range())?;
        for segment in &look.segments {
            writeln!(
                out,
                "  segment {}: {} batches from {} on, ends at {} of {} bytes, generation {}",
                segment.name,
                segment.batches,
                segment.first_batch,
                segment.end,
                segment.bytes,
                hex16(segment.generation)
            )?;
        }
        for name in &look.others {
            writeln!(out, "  {}", unused(name))?;
        }
        let recovered = &look.recovered;
        let vote = match recovered.hard_state.vote {
            Some(vote) => format!("vote for node {}, incarnation {}", vote.id, hex16(vote.incarnation.0)),
            None => "no vote".into(),
        };
        let doubt = if look.hard_state_in_doubt { ", perhaps not durable" } else { "" };
        let lease = match recovered.hard_state.promised {
            0 => String::new(),
            ticks => format!(", leases of up to {} ms promised", ticks * 10),
        };
        writeln!(out, "  term {}, {vote}{lease}{doubt}", recovered.hard_state.term)?;
        for run in &recovered.runs {
            writeln!(out, "  term {} from index {} on", run.term, run.first)?;
        }
        for (id, payload) in &recovered.memberships {
            writeln!(out, "  members from index {} on: {}", id.index, members(payload))?;
        }
        for (name, Kept { meta, bytes, .. }) in &look.snapshots {
            let Meta { id, machine_version, membership: (of, payload), .. } = meta;
            let members = members(payload);
            writeln!(
                out,
                "  {name}: everything up to index {} of term {}, {bytes} bytes, version {machine_version} of the \
                 machine, members from index {} on: {members}",
                id.index, id.term, of.index
            )?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, in_doubt: bool) -> io::Result<()> {
        let (payload, stamp) = (entry.payload(), entry.stamp());
        let kind = match entry.kind() {
            Kind::Command => "command",
            Kind::Noop => "noop",
            Kind::Membership => "membership",
            Kind::Session => "session",
            Kind::Numbered => "numbered",
            Kind::Timer => "timer",
            Kind::Ruling => "ruling",
        };
        if self.json {
            let line = EntryLine {
                r#type: "entry",
                index: entry.index().0,
                term: entry.term().0,
                kind,
                cluster_time: stamp.cluster_time,
                wall_time: stamp.wall_time,
                session: stamp.session,
                sequence: stamp.sequence,
                in_doubt,
                length: payload.len(),
                payload: &hex(&payload),
            };
            serde_json::to_writer(&mut *self.out, &line).map_err(io::Error::from)?;
            return writeln!(self.out);
        }
        let says = match entry.kind() {
            Kind::Command => command(&payload),
            Kind::Membership => members(&payload),
            Kind::Session | Kind::Numbered => in_session(entry),
            Kind::Timer => format!("timers fire that are due at {}", stamp.cluster_time),
            Kind::Ruling => ruling(&payload),
            Kind::Noop => payload.escape_ascii().to_string(),
        };
        let doubt = if in_doubt { " (perhaps not durable)" } else { "" };
        let (index, term, len) = (entry.index(), entry.term(), payload.len());
        writeln!(self.out, "{index} term {term} {kind}{doubt}, {len} bytes: {}", shortened(&says))
    }

    /// The log was purged under the reader's eyes.
    fn moved(&mut self, purged: LogId) -> io::Result<()> {
        if self.json {
            return self.line(&json!({ "type": "moved", "purged": log_id(purged) }));
        }
        writeln!(self.out, "the log was purged meanwhile, up to {}", purged.index)
    }

    /// An entry that was whole a moment ago cannot be read.
    fn unread(&mut self, error: &ReadLogError, index: Index) -> io::Result<()> {
        match error {
            ReadLogError::Store(error) => self.flaw(error, false),
            other => {
                let error = StoreError::Refused(format!("entry {index} cannot be read: {other}"));
                self.flaw(&error, false)
            }
        }
    }

    fn flaws(&mut self, look: &Look, intact: bool) -> io::Result<()> {
        for flaw in &look.flaws {
            self.flaw(&flaw.error, flaw.forgiven)?;
        }
        for error in &look.passed_over {
            self.flaw(error, true)?;
        }
        if self.json {
            return self.line(&json!({ "type": "end", "intact": intact }));
        }
        writeln!(self.out, "{}: {}", look.dir.display(), if intact { "intact" } else { "damaged" })
    }

    fn flaw(&mut self, error: &StoreError, forgiven: bool) -> io::Result<()> {
        if !self.json {
            let verdict = if forgiven { "forgiven, since a start needs none of it" } else { "damaged" };
            return writeln!(self.out, "{verdict}: {}", in_full(error));
        }
        let (path, offset, detail) = match error {
            StoreError::Damaged { path, offset, detail } => (Some(path), Some(*offset), detail.clone()),
            StoreError::Identity { path, detail } => (Some(path), None, detail.clone()),
            other => (None, None, in_full(other)),
        };
        let file = path.map(|path| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy());
        self.line(&json!({
            "type": "damage",
            "file": file,
            "offset": offset,
            "detail": detail,
            "forgiven": forgiven,
        }))
    }
}

/// What a snapshot says.
fn snapshot(name: &str, kept: &Kept) -> Value {
    let Kept { meta, file, bytes } = kept;
    let compared = meta.compared.map(|digest| {
        json!({
            "index": digest.index.0,
            "format": digest.format,
            "version": digest.version,
            "digest": hex(&digest.bytes),
        })
    });
    let (of, payload) = &meta.membership;
    json!({
        "type": "snapshot",
        "file": name,
        "index": meta.id.index.0,
        "term": meta.id.term.0,
        "bits": hex16(*file),
        "bytes": bytes,
        "digest": hex(&meta.digest),
        "cluster_time": meta.cluster_time,
        "machine_version": meta.machine_version,
        "compared": compared,
        "membership": { "index": of.index.0, "term": of.term.0, "payload": hex(payload) },
        "level": meta.level,
        "sessions": hex(&meta.sessions),
        "timers": hex(&meta.timers),
        "entries_version": meta.entries_version,
        "rulings": hex(&meta.rulings),
        "effects": hex(&meta.effects),
    })
}

fn log_id(id: LogId) -> Value {
    json!({ "term": id.term.0, "index": id.index.0 })
}

/// 64 bits that are no number to count with.
fn hex16(bits: u64) -> String {
    format!("{bits:016x}")
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// What becomes of an entry.
fn ruling(payload: &[u8]) -> String {
    match Ruling::decode(payload) {
        Some(Ruling { entry, verdict: Verdict::Skip }) => format!("entry {entry} is skipped"),
        Some(Ruling { entry, verdict: Verdict::Retry }) => format!("entry {entry} is tried again"),
        None => "no ruling that this version understands".to_owned(),
    }
}

/// What an entry of a session says.
fn in_session(entry: &Entry) -> String {
    let (stamp, payload) = (entry.stamp(), entry.payload());
    match Proposal::read(entry.kind(), stamp.session, stamp.sequence, &payload) {
        Some(Proposal::Open(lifetime)) => {
            format!("session {} begins, and ends {lifetime} ms after its last word", entry.index())
        }
        Some(Proposal::Close(session)) => format!("session {session} ends"),
        Some(Proposal::Numbered(Numbered { session, lane, number, .. }, command)) => {
            let says =
                command.map_or("nothing, in the place of a command".to_owned(), |it| self::command(&it));
            format!("session {session}, lane {lane}, number {number}: {says}")
        }
        _ => payload.escape_ascii().to_string(),
    }
}

/// A command of the server's own machine in words, or the bytes of another's.
fn command(payload: &bytes::Bytes) -> String {
    let Ok(operations) = codec::decode_operations(payload) else { return payload.escape_ascii().to_string() };
    let mut text = String::new();
    for operation in operations {
        // Writing to a string does not fail.
        let _ = write!(text, "{}{operation:?}", if text.is_empty() { "" } else { "; " });
        if text.len() > 4 * SHOWN {
            break;
        }
    }
    text
}

fn members(payload: &[u8]) -> String {
    let Ok(membership) = decode_membership(payload) else { return payload.escape_ascii().to_string() };
    let members = membership.members.values().map(|member| format!("{}={}", member.id, member.address));
    members.collect::<Vec<_>>().join(" ")
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        text.to_owned()
    } else {
        text.chars().take(SHOWN).chain(['…']).collect()
    }
}
