//! What is said and done in the box, written down as a conversation: one line for each input, and below it what
//! came of it. Ticks and reports that change nothing are left out.

use super::*;
use std::fmt::Write as _;
use std::path::PathBuf;

impl Cluster {
    /// From now on everything is written down, under this heading.
    pub(crate) fn write_down(&mut self, heading: &str) {
        self.transcript = Some(String::new());
        self.write_line(&format!("{heading}\n"));
        for id in self.ids() {
            self.write_start(id);
        }
    }

    /// A remark between the lines.
    pub(crate) fn remark(&mut self, words: &str) {
        self.write_line(&format!("\n{words}"));
    }

    pub(super) fn write_line(&mut self, line: &str) {
        if let Some(transcript) = &mut self.transcript {
            let _ = writeln!(transcript, "{line}");
        }
    }

    pub(super) fn write_start(&mut self, id: u64) {
        let (term, vote, log) = (self.term(id), self.vote(id), self.log(id));
        let vote = vote.map_or(String::new(), |id| format!(", voted for {id}"));
        let log = if log.is_empty() { "-".into() } else { log };
        self.write_line(&format!("{id} starts in term {term}{vote}; the terms of its log: {log}"));
    }

    pub(super) fn write_lost(&mut self, envelope: &Envelope) {
        self.write_line(&format!("lost {envelope}"));
    }

    pub(super) fn write_step(
        &mut self,
        id: u64,
        input: &Input,
        out: &Output,
        becomes: Option<(RoleName, Term)>,
    ) {
        let quiet = *out == Output::default() && becomes.is_none();
        if self.transcript.is_none() || (quiet && matches!(input, Input::Tick | Input::Sent { .. })) {
            return;
        }
        self.write_line(&match input {
            Input::Receive(envelope, _) => format!("{envelope}"),
            input => format!("{id}: {input}"),
        });
        if let Some((role, term)) = becomes {
            let role = if role == RoleName::PreCandidate { "pre-candidate" } else { role.as_str() };
            self.write_line(&format!("    {id} is now {role} of term {term}"));
        }
        for line in out.to_string().lines() {
            self.write_line(&format!("    {line}"));
        }
    }

    /// Compares what was written down with `conversations/NAME.txt`; with `BLESS=1` in the environment, writes
    /// that file instead.
    pub(crate) fn compare(&mut self, name: &str) {
        for id in self.ids() {
            let end = match &self.nodes[&id].raft {
                Some(raft) => {
                    format!("{} of term {}, commit {}", raft.role_name(), raft.term(), raft.commit())
                }
                None => "down".into(),
            };
            let log = self.log(id);
            let gap = if id == 1 { "\n" } else { "" };
            self.write_line(&format!("{gap}{id} ends as {end}; the terms of its log: {log}"));
        }
        let said = self.transcript.take().expect("it was written down");
        let file = format!("{}/tests/conversations/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        let file = PathBuf::from(file);
        if std::env::var_os("BLESS").is_some() {
            return std::fs::write(&file, said).expect("the conversation is written");
        }
        let known = std::fs::read_to_string(&file).unwrap_or_default();
        let differs = known.lines().zip(said.lines()).position(|(known, said)| known != said);
        let at = differs.unwrap_or_else(|| known.lines().count().min(said.lines().count()));
        assert!(
            known == said,
            "{} reads otherwise from line {} on:\n  file {:?}\n  now  {:?}\nIf that is meant, run again with BLESS=1 and review the difference.",
            file.display(),
            at + 1,
            known.lines().nth(at),
            said.lines().nth(at),
        );
    }
}
