//! What is wrong with a cluster, what will hurt next, and what to do, from what its nodes say of themselves.
//!
//! It looks and changes nothing. Each finding names the nodes that it is about.

use crate::report::{Report, ReportedMember, ReportedPeer};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A member that has not answered its leader for so long is taken for dead, in milliseconds: several of the longest election
/// timeouts.
const SILENT_MS: u64 = 3000;

/// Entries by which a member may lag without a word: what a moment of full load leaves.
const LAG: u64 = 10_000;

/// Bytes of committed entries that may wait for a machine: a quarter of what makes its leader refuse writes.
const UNAPPLIED: u64 = 4 << 20;

/// How long before its end a certificate is told of, in seconds.
const AHEAD: u64 = 30 * 86_400;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Weight {
    /// It stands in the way now.
    Now,
    /// It will, or would if one more thing failed.
    Next,
    /// Good to know.
    Aside,
}

/// One thing that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How bad it is.
    pub weight: Weight,
    /// What it is, for programs.
    pub name: &'static str,
    /// What it is, and what to do.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = match self.weight {
            Weight::Now => "wrong now",
            Weight::Next => "may hurt",
            Weight::Aside => "aside",
        };
        write!(f, "{weight:<10} {}", self.text)
    }
}

/// What a node said, at which address, or why it said nothing.
pub type Answer = (String, Result<Report, String>);

/// Looks at all answers, at this time in seconds since 1970. The worst findings come first.
pub fn examine(answers: &[Answer], now: u64) -> Vec<Finding> {
    let reports: Vec<&Report> = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()).collect();
    let mut findings = Findings(Vec::new());
    findings.silence(answers);
    findings.leader(&reports);
    findings.reach(&reports);
    findings.members(&reports);
    for report in &reports {
        findings.machine(report);
        findings.node(report, now);
        report.peers.iter().for_each(|peer| findings.peer(report, peer));
    }
    findings.alike(&reports);
    findings.0.sort_by_key(|finding| finding.weight);
    findings.0
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, weight: Weight, name: &'static str, text: String) {
        let finding = Finding { weight, name, text };
        if !self.0.contains(&finding) {
            self.0.push(finding);
        }
    }

    /// Who did not answer, and why.
    fn silence(&mut self, answers: &[Answer]) {
        for (address, answer) in answers {
            let Err(why) = answer else { continue };
            let name = ["NOAUTH", "NOPERM", "WRONGPASS", "DENIED"].iter().find(|kind| why.contains(**kind));
            match name {
                Some(_) => self.add(
                    Weight::Aside,
                    "not-permitted",
                    format!("{address} does not say how it is: {why}; ask as an administrator (--user)"),
                ),
                None => self.add(
                    Weight::Now,
                    "no-answer",
                    format!(
                        "{address} says nothing: {why}; is the server running, and is this its --client-addr?"
                    ),
                ),
            }
        }
    }

    fn leader(&mut self, reports: &[&Report]) {
        for report in reports.iter().filter(|report| report.role == "unconfigured") {
            self.add(
                Weight::Now,
                "no-cluster",
                format!("node {} has no cluster: coracle members init, or start it with --join", report.id),
            );
        }
        let configured: Vec<_> = reports.iter().filter(|report| report.role != "unconfigured").collect();
        let leaders: BTreeSet<u64> = configured.iter().filter_map(|report| report.leader).collect();
        let terms: BTreeMap<u64, u64> = configured.iter().map(|report| (report.id, report.term)).collect();
        if leaders.len() > 1 {
            let newest = terms.values().max().copied().unwrap_or(0);
            let old = terms.iter().filter(|(_, term)| **term < newest).map(|(id, _)| *id);
            self.add(
                Weight::Now,
                "two-leaders-named",
                format!(
                    "the nodes name different leaders ({}); {} not heard of the newest term: are they cut \
                    off?",
                    list(leaders.iter().copied()),
                    nodes(old, "has", "have")
                ),
            );
        }
        if !configured.is_empty() && leaders.is_empty() {
            self.no_leader(&configured);
        }
    }

    /// Why there is none.
    fn no_leader(&mut self, reports: &[&&Report]) {
        let voters = voters(reports);
        let answering: BTreeSet<u64> =
            reports.iter().map(|report| report.id).filter(|id| voters.contains(id)).collect();
        let needed = voters.len() / 2 + 1;
        let missing = voters.difference(&answering).copied();
        if answering.len() < needed {
            self.add(
                Weight::Now,
                "no-majority",
                format!(
                    "there is no leader: {} of {} voters answer here, and {needed} are needed; start {}; if they are lost for good: \
                     coracle recover",
                    answering.len(),
                    voters.len(),
                    nodes(missing, "", "")
                ),
            );
            return;
        }
        let cut_off = reports.iter().any(|report| {
            report
                .members
                .iter()
                .filter(|member| member.voter && (member.reachable || member.id == report.id))
                .count()
                < needed
        });
        let (name, why) = match cut_off {
            true => (
                "voters-cut-off",
                "though a majority of the voters runs, they do not reach each other: see below",
            ),
            false => (
                "election",
                "a majority of the voters runs and is connected: an election is under way, or fails again \
                    and again; look again in a second",
            ),
        };
        self.add(Weight::Now, name, format!("there is no leader: {why}"));
    }

    /// Who cannot reach whom.
    fn reach(&mut self, reports: &[&Report]) {
        let running: BTreeSet<u64> = reports.iter().map(|report| report.id).collect();
        for report in reports {
            for member in report.members.iter().filter(|member| member.id != report.id && !member.reachable) {
                let ReportedMember { id, address, .. } = member;
                let there = reports.iter().find(|other| other.id == *id);
                let back = there.and_then(|other| other.members.iter().find(|member| member.id == report.id));
                match (running.contains(id), back.is_some_and(|back| back.reachable)) {
                    (true, true) => self.add(
                        Weight::Now,
                        "one-way",
                        format!(
                            "node {} cannot reach node {id} at {address}, though node {id} reaches it: a \
                            firewall, or a wrong --advertise of node {id}?",
                            report.id
                        ),
                    ),
                    (true, false) => self.add(
                        Weight::Now,
                        "unreachable",
                        format!(
                            "node {} cannot reach node {id} at {address}, which runs: the network, \
                            certificates, or a wrong address?",
                            report.id
                        ),
                    ),
                    (false, _) => self.add(
                        Weight::Next,
                        "member-away",
                        format!(
                            "node {id} at {address} is not connected to node {}, and was not asked here, or \
                            does not answer",
                            report.id
                        ),
                    ),
                }
            }
            if report.members.iter().any(|member| member.encrypted) {
                for member in report
                    .members
                    .iter()
                    .filter(|member| member.reachable && !member.encrypted && member.id != report.id)
                {
                    self.add(
                        Weight::Next,
                        "plain-link",
                        format!(
                            "the connection of nodes {} and {} is not encrypted, though others are: --tls \
                            require once all have certificates",
                            report.id, member.id
                        ),
                    );
                }
            }
        }
    }

    /// How many take part, and what is left if one fails.
    fn members(&mut self, reports: &[&Report]) {
        let Some(leader) = reports.iter().find(|report| report.role == "leader") else { return };
        let voters: Vec<_> = leader.members.iter().filter(|member| member.voter).collect();
        let alive = |member: &&&ReportedMember| {
            member.id == leader.id
                || leader.peers.iter().any(|peer| peer.id == member.id && peer.silent_ms < SILENT_MS)
        };
        let alive = voters.iter().filter(alive).count();
        let needed = voters.len() / 2 + 1;
        match voters.len() {
            1 => self.add(
                Weight::Next,
                "alone",
                format!(
                    "node {} is the only voter: if it stops, all stops, and its disk holds the only copy",
                    leader.id
                ),
            ),
            many if many.is_multiple_of(2) => self.add(
                Weight::Aside,
                "even",
                format!("{many} voters bear no more failures than {}: add one, or demote one", many - 1),
            ),
            _ => {}
        }
        if voters.len() > 1 && alive == needed {
            self.add(
                Weight::Next,
                "no-spare",
                format!(
                    "{alive} of {} voters answer, and {needed} are needed: one more failure stops the cluster", voters.len()),
            );
        }
        for id in &leader.snapshots_unknown_to {
            self.add(
                Weight::Next,
                "old-version",
                format!("node {id} runs an older version, and the log is kept for it: upgrade it"),
            );
        }
    }

    /// Machines that are not as they should be.
    fn machine(&mut self, report: &Report) {
        let id = report.id;
        if let Some(stop) = &report.machine_stopped {
            self.add(
                Weight::Now,
                "machine-stopped",
                format!(
                    "the machine of node {id} cannot apply entry {}: {}; coracle entry retry or skip",
                    stop.entry, stop.why
                ),
            );
        }
        if let Some(index) = report.fenced {
            self.add(Weight::Now, "fenced", format!(
                "the machine of node {id} differs from that of a majority since entry {index}, and answers \
                nothing: coracle rebuild"));
        }
        for other in &report.diverged {
            self.add(
                Weight::Now,
                "diverged",
                format!("the machine of node {other} differs from that of a majority: coracle rebuild"),
            );
        }
        if let Some(what) = &report.rebuilding {
            self.add(
                Weight::Aside,
                "rebuilding",
                format!("the machine of node {id} is being rebuilt: it {what}"),
            );
        }
        if !report.ready && report.role != "unconfigured" {
            self.add(
                Weight::Now,
                "loading",
                format!(
                    "node {id} still applies what its log held at its start: {} bytes wait",
                    report.unapplied_bytes
                ),
            );
        } else if report.unapplied_bytes > UNAPPLIED {
            self.add(Weight::Next, "slow-machine", format!(
                "{} bytes of committed entries wait for the machine of node {id}: its processor is too slow \
                for what is written", report.unapplied_bytes));
        }
    }

    /// A node's disk, address and certificate.
    fn node(&mut self, report: &Report, now: u64) {
        let id = report.id;
        if let Some(why) = &report.no_space {
            self.add(
                Weight::Now,
                "no-space",
                format!("node {id} has no room for its log, and refuses writes: {why}"),
            );
        }
        if report.moved {
            self.add(Weight::Next, "moved", format!(
                "node {id} says that it is at {}, and the membership says another address: the leader takes it \
                over once it reaches it there", report.address));
        }
        if let Some(transfer) = &report.receiving_snapshot {
            self.add(
                Weight::Aside,
                "catching-up",
                format!("node {id} is sent a snapshot by node {}: {transfer}", transfer.peer),
            );
        }
        match report.certificate_expires {
            Some(end) if end <= now => self.add(Weight::Now, "certificate-over", format!(
                "the certificate of node {id}, or its authority's, is not valid any more: renew it (coracle \
                certs)")),
            Some(end) if end - now < AHEAD => self.add(Weight::Next, "certificate-ends", format!(
                "the certificate of node {id}, or its authority's, is valid for {} days more: renew it \
                (coracle certs)", (end - now) / 86_400)),
            _ => {}
        }
    }

    /// How a member stands with its leader.
    fn peer(&mut self, leader: &Report, peer: &ReportedPeer) {
        let ReportedPeer { id, lag, silent_ms, state, .. } = peer;
        if state == "distrusted" {
            self.add(Weight::Now, "lost-entries", format!(
                "node {id} lost entries that it had acknowledged, and does not count: check its disk, then \
                coracle members replace"));
        } else if *silent_ms >= SILENT_MS {
            self.add(
                Weight::Next,
                "silent",
                format!(
                    "node {id} has not answered its leader, node {}, for {} s",
                    leader.id,
                    silent_ms / 1000
                ),
            );
        } else if state == "snapshot" {
            self.add(
                Weight::Aside,
                "sent-a-snapshot",
                format!("node {id} is sent a snapshot, since the log does not reach back to where it is"),
            );
        } else if *lag > LAG {
            self.add(
                Weight::Next,
                "lags",
                format!(
                    "node {id} lags by {lag} entries: its disk or the way to it is slower than the others'"
                ),
            );
        }
    }

    /// Machines that say of themselves that they are alike, and are not.
    fn alike(&mut self, reports: &[&Report]) {
        for (at, one) in reports.iter().enumerate() {
            for other in &reports[at + 1..] {
                if one.applied == other.applied && one.applied > 0 && one.digest != other.digest {
                    self.add(Weight::Now, "unlike", format!(
                        "nodes {} and {} have applied the same {} entries and differ: do they belong to one \
                        cluster?", one.id, other.id, one.applied));
                }
            }
        }
        let mut seen = BTreeSet::new();
        for report in reports.iter().filter(|report| !seen.insert(report.id)) {
            self.add(
                Weight::Aside,
                "asked-twice",
                format!("node {} answered at two of the addresses", report.id),
            );
        }
    }
}

fn voters(reports: &[&&Report]) -> BTreeSet<u64> {
    // Of whom the newest is known: all that anybody holds for one.
    let members = reports.iter().flat_map(|report| &report.members);
    members.filter(|member| member.voter).map(|member| member.id).collect()
}

fn list(ids: impl IntoIterator<Item = u64>) -> String {
    ids.into_iter().map(|id| id.to_string()).collect::<Vec<_>>().join(", ")
}

fn nodes(ids: impl IntoIterator<Item = u64>, one: &str, many: &str) -> String {
    let ids: Vec<u64> = ids.into_iter().collect();
    let text = match ids.len() {
        1 => format!("node {} {one}", ids[0]),
        _ => format!("nodes {} {many}", list(ids)),
    };
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests;
