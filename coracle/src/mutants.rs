//! The rules that can be broken, and where each comes from.
//!
//! A mutant is the production code with one condition taken out; the condition's name stands in the code,
//! where the rule does. A simulator that cannot find a mutant could not find the mistake either, so every
//! one of these must be found, by an invariant or by the judge of histories.

/// One rule that can be broken.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// What to call it.
    pub name: &'static str,
    /// The rule: a known bug of other systems (EL-1, `docs/hazards.md`), a rule of the design (D5.1.3,
    /// `docs/design-rules.md`), or a section of the paper (§5.1).
    pub rule: &'static str,
    /// What the broken code does.
    pub says: &'static str,
}

const fn mutant(name: &'static str, rule: &'static str, says: &'static str) -> Mutant {
    Mutant { name, rule, says }
}

/// All of them.
pub const MUTANTS: &[Mutant] = &[
    // Elections.
    mutant("votes-not-voters", "EL-2", "counts each reply as another voter's"),
    mutant("refusal-counts-as-vote", "EL-2", "counts a refusal as a vote"),
    mutant("vote-of-any-campaign", "EL-1", "counts the votes for an earlier campaign of its own"),
    mutant("pre-vote-counts-as-vote", "EL-6", "counts the answers to a pre-vote as votes"),
    mutant("log-compared-by-index", "EL-3", "votes for the longer log, whatever its last term"),
    mutant("log-compared-by-term", "EL-3", "votes for a log of an equal last term that is shorter"),
    mutant("log-compared-index-first", "EL-3", "compares logs by index, and only then by term"),
    mutant("election-quorum-too-small", "CM-7", "is elected by one vote less than a majority"),
    mutant("no-pre-vote", "EL-5", "campaigns without asking whether it would be elected"),
    mutant("no-stickiness", "EL-4", "helps to depose a leader that it hears"),
    mutant("no-check-quorum", "EL-12", "leads on although no quorum answers"),
    mutant("leader-ignores-newer-terms", "§5.1", "a leader does not step down for a newer term"),
    mutant("refusal-buys-time", "§5.2", "waits anew whenever it refuses a vote"),
    mutant("stalled-disk-leads", "OV-4", "leads on although its disk hangs"),
    mutant("old-leader-not-told", "§5.1", "does not answer a leader of an older term"),
    mutant("heartbeat-shed", "OV-4", "a follower with a slow disk drops heartbeats with the entries"),
    mutant("promise-not-durable", "D5.3.1", "keeps its promise to a list in memory only"),
    mutant("two-promises", "D5.3.1", "promises itself to a second list"),
    mutant("founds-without-all-promises", "D5.3.1", "founds when a majority of the list has promised itself"),
    mutant("gives-up-and-founds", "D5.3.1", "says that it gave up, and founds all the same"),
    // Changes of membership.
    mutant(
        "change-before-own-commit",
        "MC-1",
        "changes the membership before an entry of its own term is committed",
    ),
    mutant(
        "silence-taken-for-answer",
        "§6",
        "takes a change for possible though those whom it needs have not answered this leader",
    ),
    mutant("two-changes-at-once", "§6", "begins a change while another is not over"),
    mutant("change-without-joint", "§6", "goes to other voters in one step"),
    mutant("joint-left-uncommitted", "§6", "ends a change before its joint membership is committed"),
    mutant("joint-never-left", "§6", "never ends a change"),
    mutant(
        "joint-commits-by-new-voters",
        "§6",
        "commits by the new voters alone while the membership is joint",
    ),
    mutant(
        "joint-elects-by-new-voters",
        "§6",
        "is elected by the new voters alone while the membership is joint",
    ),
    mutant("truncation-keeps-membership", "MC-3", "goes by a membership that was truncated"),
    mutant("newcomers-not-met", "D5.1.15", "makes progress at its election only"),
    mutant("learner-campaigns", "EL-13", "campaigns without a vote"),
    mutant("removed-leader-stays", "§6", "leads on though it has left"),
    mutant(
        "leaving-voter-never-campaigns",
        "D5.1.16",
        "does not campaign once it has the entry with which it leaves",
    ),
    // Disks that are wiped, and nodes that move.
    mutant("wiped-disk-counts", "D5.3.2", "lets an empty disk answer for the one that its node had before"),
    mutant(
        "place-of-anybody",
        "D5.3.5",
        "takes whoever answers at an address for the member that it looks for",
    ),
    mutant(
        "move-not-found",
        "D5.3.5",
        "puts an address into the membership without having found the member there",
    ),
    mutant("places-not-kept", "D5.3.5", "forgets with its process where it found members"),
    mutant("older-place-wins", "D5.3.5", "looks for a member where it found it first, not last"),
    // Transfers of leadership.
    mutant("transfer-to-lagging", "LT-1", "hands over to a node that lacks some of its log"),
    mutant("takes-over-unflushed", "LT-1", "takes over without what it must hold on its disk"),
    mutant("transfer-never-ends", "LT-2", "takes no commands until its target leads, and be it dead"),
    mutant("timeout-now-of-older-term", "§5.1", "takes over on the word of a leader of an older term"),
    mutant("learner-takes-over", "EL-13", "takes over without a vote"),
    mutant(
        "transfer-of-any-leader",
        "D5.4.4",
        "helps to depose the leader that it hears when another one gave way",
    ),
    mutant("held-forgotten", "LT-2", "forgets the commands that it held while it handed over"),
    mutant("sent-back-in-doubt", "CS-1", "sends a forwarded write again whose fate is unknown"),
    // Terms and votes.
    mutant("second-vote", "VT-1", "grants a second vote in one term"),
    mutant("vote-not-written", "VT-1", "keeps its vote in memory only"),
    mutant("vote-cleared-with-role", "VT-2", "forgets its vote when it steps down or asks anew"),
    mutant("new-term-not-written", "VT-4", "keeps a term that it learned in memory only"),
    mutant("term-not-awaited", "D5.1.3", "speaks in a term that is not durable yet"),
    mutant("vote-not-held", "D5.1.3", "sends a vote before it is durable"),
    mutant("vote-request-not-held", "D5.1.3", "asks for votes before its own is durable"),
    mutant("own-vote-not-awaited", "D5.1.3", "counts its own vote before that is durable"),
    mutant(
        "held-for-next-write-only",
        "D5.1.3",
        "what is held waits for the next write only, not for the newest",
    ),
    // Replication.
    mutant("every-append-truncates", "LG-1", "drops what lies after an append, conflict or not"),
    mutant("conflict-not-truncated", "LG-1", "keeps entries that contradict the leader's"),
    mutant("append-of-older-term", "TR-1", "takes entries of a leader that was deposed"),
    mutant("any-receiver", "TR-2", "takes messages that are for another node"),
    mutant("window-unbounded", "OV-1", "sends ahead without a bound"),
    mutant("leader-takes-all", "OV-1", "a leader takes every command, whatever waits already"),
    mutant("follower-takes-all", "OV-1", "a follower takes every entry, however slow its disk is"),
    mutant("reply-of-older-term", "TR-1", "counts acknowledgements of an older term"),
    mutant("match-goes-back", "LG-5", "an older acknowledgement replaces a newer one"),
    mutant("next-goes-below-match", "LG-5", "goes back below what is acknowledged"),
    mutant(
        "conflict-ignored",
        "§5.3",
        "sends on from where it was when a follower says that it lacks entries",
    ),
    mutant("report-of-sending-lost", "LT-2", "waits for ever to hear that a message has left"),
    mutant("ack-before-durable", "ST-12", "acknowledges entries before they are durable"),
    mutant("ack-unverified", "D5.1.2", "acknowledges entries that no append of this term has verified"),
    mutant(
        "truncation-spares-writes-under-way",
        "D5.1.1",
        "a late completion acknowledges overwritten entries",
    ),
    mutant("completion-of-one-is-of-all", "D5.1.1", "takes one write's completion for that of all"),
    // Commit.
    mutant("older-term-committed-by-count", "CM-1", "commits an entry of an older term by counting"),
    mutant("commit-stops-at-older-term", "CM-2", "never commits what lies after an entry of an older term"),
    mutant("commit-unverified", "CM-3", "a follower commits entries that this append has not verified"),
    mutant("leader-counts-unsynced", "CM-4", "the leader counts itself before its disk is done"),
    mutant("commit-goes-back", "CM-5", "follows the leader's commit index down"),
    mutant("commit-quorum-too-small", "CM-7", "commits what one voter less than a majority holds"),
    // Reads.
    mutant("read-without-round", "RD-2", "reads at the leader without asking whether it still leads"),
    mutant("read-joins-round-under-way", "D5.4.1", "lets a read join a round that has left"),
    mutant("read-before-own-commit", "RD-1", "serves reads before an entry of its own term is committed"),
    mutant("read-quorum-too-small", "CM-7", "confirms a round by one voter less than a majority"),
    mutant("bound-ignored", "RD-1", "answers a read within a bound from what was known at any time"),
    mutant(
        "confirmed-when-answered",
        "RD-1",
        "holds what a read has shown for known when it was answered, and not when it began",
    ),
    mutant("at-least-at-once", "RD-1", "answers a read of at least an entry before it has applied that"),
    mutant("read-granted-at-zero", "D5.4.1", "grants a read at index 0"),
    mutant("read-does-not-wait", "RD-2", "answers a read before the machine has come so far"),
    mutant("answer-to-any-question", "D5.4.1", "takes an old answer for that to its newest question"),
    mutant("answer-to-another-run", "D5.4.1", "takes the answer to a question that its earlier boot asked"),
    // Machine and clients.
    mutant("machine-ahead-of-disk", "D5.1.8", "applies what is committed but not durable here"),
    mutant("loaded-fed-twice", "RS-3", "hands the machine the same entries again after loading them"),
    mutant("command-applied-twice", "CS-1", "applies every command twice"),
    mutant("reply-of-next-entry", "CS-2", "gives a writer the reply to the next entry"),
    mutant(
        "answer-before-apply",
        "CS-2",
        "answers a writer before its entry is applied, with the reply before it",
    ),
    mutant(
        "reply-to-another-leaders-entry",
        "CS-2",
        "keeps a deposed leader's writers, who get the replies to what stands in their entries' places",
    ),
    mutant(
        "forward-numbers-repeat",
        "CS-1",
        "numbers forwarded writes anew in each boot, so that an old answer fits",
    ),
    mutant("forward-retried", "CS-1", "tries a forwarded write again when its answer is lost"),
    mutant("forward-loss-told-no", "CS-2", "says that a forwarded write failed when its answer is lost"),
    mutant("retry-applied", "CS-1", "applies a command of a session again when it comes again"),
    mutant("resent-under-new-numbers", "CS-1", "gives writes new numbers when they go to the next leader"),
    mutant("sent-again-after-expiry", "CS-1", "sends what is in doubt again in another session"),
    mutant("client-told-no", "CS-2", "says that a client's write failed when its time is over"),
    mutant("sessions-not-in-snapshots", "CS-1", "forgets the sessions when it takes the state of a snapshot"),
    mutant(
        "jump-not-told",
        "S31",
        "goes on publishing after a jump of the state as if it had published all before",
    ),
    mutant(
        "compacted-untold",
        "S31",
        "forgets the oldest events without a word to those who have not seen them",
    ),
    mutant("gaps-taken", "S29", "takes a command of a lane before those that come first"),
    mutant("answers-forgotten-early", "S28", "forgets answers that nobody has acknowledged"),
    mutant("acknowledged-unanswered", "S28", "acknowledges answers that have not come"),
    mutant("timer-fires-early", "D5.5.2", "has timers fire a second before they are due"),
    mutant("timer-fires-twice", "D5.5.2", "keeps a timer that has fired"),
    mutant("cancelled-timer-fires", "D5.5.2", "forgets that a timer was cancelled"),
    mutant("timers-not-in-snapshots", "D5.5.2", "forgets the timers when it takes the state of a snapshot"),
    mutant(
        "earlier-timers-forgotten",
        "D5.5.2",
        "a new leader has no timer fire that was set before its office",
    ),
    mutant("timers-wait-for-room", "D5.6.1", "a leader has no timer fire while it is busy"),
    mutant("machine-bound-ignored", "OV-1", "hands its machine everything, however far that lags"),
    mutant("stop-forgets-writers", "CS-6", "tells nobody whose write is undecided that it stops"),
    mutant("refused-read-counted", "OV-1", "goes on counting a refused read among those who wait"),
    mutant("answers-counted-with-entries", "OV-1", "takes note of answers only when entries are applied"),
    mutant("ready-unapplied", "ready", "says that it has caught up before its machine has"),
    mutant("writers-told-no", "CS-2", "says that a write failed when leadership is lost"),
    mutant("writers-forgotten", "CS-6", "never answers who waits for a write when leadership is lost"),
    mutant("leader-forgets-reads", "CS-6", "never answers reads when leadership is lost"),
    mutant("follower-forgets-reads", "RD-7", "never answers reads when it stops following"),
    mutant("candidate-forgets-reads", "RD-7", "never answers a read that came while it campaigned"),
    mutant("deposed-not-told", "CS-6", "tells nobody that leadership was lost"),
    mutant(
        "clock-stands-still",
        "D5.5.2",
        "a follower's clock waits for entries, and does not go on by itself",
    ),
    // Machines that are not alike.
    mutant("diverged-not-fenced", "D5.1.14", "goes on with a machine that differs from a majority's"),
    mutant("fence-not-durable", "D5.1.14", "uses such a machine again after a start"),
    mutant("fenced-node-leads", "D5.1.14", "leads with such a machine"),
    mutant("fenced-machine-applies", "D5.1.14", "goes on applying to such a machine, and answers from it"),
    mutant("leader-holds-itself-right", "D5.1.14", "a leader takes its own machine for a majority's"),
    // Snapshots.
    mutant(
        "snapshot-keeps-any-log",
        "SN-1",
        "keeps a log whose entry at the snapshot's place is another one",
    ),
    mutant("snapshots-term-forgotten", "D5.1.9", "a start takes a snapshot of a term later than its own"),
    // Machines that keep their own disk.
    mutant("own-place-forgotten", "SN-15", "a start applies again what such a machine holds already"),
    mutant("own-digest-lost", "SN-15", "a start of such a machine goes on from another digest"),
    // The log.
    mutant("batch-not-synced", "ST-12", "does not sync a batch"),
    mutant("checkpoint-not-synced", "ST-3", "gives a segment its name before its contents are synced"),
    mutant("directory-not-synced", "ST-1", "does not sync the directory when a segment joins"),
    mutant("failed-sync-ignored", "ST-4", "goes on after a sync that failed"),
    mutant("batch-attests-itself", "D5.2.1", "a batch says that it is synced before it is"),
    mutant("attestation-ignored", "D5.2.2", "drops a damaged batch though a later one attests it"),
    mutant("unattested-tail-dropped", "D5.2.2", "forgets whole batches that nothing attests"),
    mutant("unattested-tail-not-rewritten", "D5.2.3", "does not write again what was in doubt"),
    mutant("old-files-freed-early", "D5.2.4", "frees old files before the new segment is synced"),
    mutant("truncation-not-recorded", "ST-7", "writes new entries without the truncation before them"),
    mutant("checkpoint-forgets-vote", "D5.2.5", "a checkpoint restates the term without the vote"),
    mutant("reader-keeps-truncated", "LG-10", "a truncation leaves the reader's index as it was"),
    mutant("earlier-life-accepted", "ST-3", "takes a batch that an earlier life of the file left"),
    mutant("old-name-refused", "D5.2.5", "takes a recycled file whose old name came back for damage"),
    mutant("merge-keeps-older-vote", "VT-1", "of two hard states in one sync, the older one is written"),
    mutant("copy-accepted", "D5.2.10", "talks to a disk that has gone back to an earlier state"),
    mutant("missing-segment-accepted", "D5.2.8", "starts though the newest segment is gone"),
    mutant(
        "merge-drops-truncation",
        "D5.1.1",
        "of two writes in one sync, the truncation of the later is lost",
    ),
];
