//! The rare situations that a campaign must have met, each with a name and a meaning: the one list.
//!
//! A simulator that never reaches a state proves nothing about it. So each state that a bug was ever found
//! in is counted when it comes up, here as in [`Report::counts`](super::Report::counts); a campaign of
//! some size in which one of them never did is [too weak](super::Campaign::verdict).

macro_rules! situations {
    ($($name:ident $text:literal $meaning:literal,)*) => {
        /// Something rare.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub(super) enum Rare {
            $($name,)*
        }

        /// The name and the meaning of every situation that is counted.
        pub const SITUATIONS: &[(&str, &str)] = &[$(($text, $meaning),)*];
    };
}

situations! {
    // What was done to the cluster.
    Dropped "message dropped" "the network lost a message",
    Unsent "entries refused by the transport" "a leader heard that entries that it had sent did not leave",
    Duplicated "message duplicated" "a message arrived twice or three times",
    Held "message held" "a message took up to ten election timeouts",
    Cut "message cut off" "a message met a partition",
    Reset "connection reset" "messages under way on a link were lost at once, both ends alive",
    EarlierRun "message of an earlier boot" "a message arrived after its sender or receiver had restarted",
    Isolated "node cut off" "a partition with one node on one side",
    OneWay "one-way cut" "a node was heard by nobody, but heard all",
    Halves "two halves" "a partition in the middle",
    Partial "partial cut" "links cut at random",
    Flapped "link flapped" "a link went and came in quick succession",
    Frozen "node frozen" "a node handled nothing for a while",
    Cornered "leader cornered" "a leader was cut off while it would answer reads by its lease",
    CornerChange "change in a corner" "a leader with a lease lost sight of most voters as it began to change them",
    CornerRead "read in a corner" "a leader that was cut off answered a read",
    CornerVote "vote in a corner" "a vote was asked for before, and came after, its receiver heard a leader again",
    Leased "lease held" "a leader could answer reads by its lease",
    LeaseOver "lease over" "another led, and a leader whose lease was over did not know it",
    Clocked "clock set" "a clock got another rate, or jumped",
    Rumoured "rumour" "a node was told, rightly or not, that a peer's process is gone",
    ProcessCrash "process crash" "a process ended; the page cache stayed",
    PowerLoss "power loss" "a node lost some of what was not synced",
    AllDown "whole cluster down" "no node was up",
    QuorumDown "quorum down" "no quorum of nodes was up",
    CrashWriting "crash in a write" "a process ended while its disk worked on a batch",
    CrashTurning "crash between segments" "a process ended while its log opened the next segment",
    CrashSealing "crash in a seal" "a process ended while a seal was written",
    CrashFiling "crash beside files" "a process ended while a snapshot came, of which some more was written",
    CrashInstalling "crash before an install" "a process ended when a snapshot had come, before anybody knew",
    SnapshotBeforeTerm "snapshot before its term" "a snapshot was durable before the term in which it came",
    CrashStarting "crash in recovery" "a process ended while it started",
    CrashCheckpoint "crash in a checkpoint" "a process ended while recovery wrote its first batch",
    WriteFailed "write failed" "the disk refused a write, and the node stopped",
    SyncFailed "sync failed" "the disk refused a sync, and the node stopped",
    NameFailed "rename failed" "the disk refused to create or rename a file, or to sync the directory",
    ReadFailed "read failed" "the disk refused a read",
    DiskFull "disk full" "there was no room for the next segment",
    Flipped "bit flipped" "a bit of an attested write changed",
    LostWrite "write lost" "an attested write turned out not to be there",
    Misplaced "write misplaced" "an attested write turned up in another's place",
    PutBack "disk put back" "a disk went back to what it was in an earlier boot",
    Copied "directory copied" "a process started on an old copy of a node's directory, and the node's own went on",
    OriginalBack "original back" "a node's own process was in front again, after its copy",
    CopyRefused "old disk refused" "a message did not leave, since a disk that had gone back is not talked to",
    Rotten "machine rotten" "what a machine holds changed by itself",
    Fenced "machine fenced" "a node found its machine to differ from that of a majority, and uses it no more",
    FencedLeader "leader fenced" "a leader found that of its own machine, and stepped down",
    FencedStart "fenced at a start" "a node whose machine had been fenced started again, and stayed so",
    MachineStopped "machine stopped" "a machine stopped before an entry that it cannot apply",
    LeaderMachineStopped "leader's machine stopped" "the machine of a leader did",
    StoppedStart "stopped at a start" "a node whose machine had stopped started again, and its machine stayed so",
    EntrySkipped "entry skipped" "a machine that had stopped before an entry went on since that is skipped",
    EntryRetried "entry tried again" "a machine that had stopped before an entry went on to try it again",
    RulingRefused "ruling refused" "a leader, or another node, did not rule what it was asked to",
    DamagedAnywhere "damage anywhere" "the damage hit any write that was attested",
    DamagedNewest "newest batch damaged" "the damage hit the newest write that was attested",
    DamagedTop "checkpoint damaged" "the damage hit what the newest segment begins with",
    TopGone "newest segment gone" "the file of the newest segment was gone",
    RefusedTwice "refused again" "a start that was refused for its damage was tried again, and refused again",
    StartedTwice "stopped twice" "a node that had stopped for its disk was ended again soon after its start",
    Refused "damaged node refused" "a node noticed the damage of its disk, and stayed down",
    Stalled "write stalled" "a write took up to five election timeouts",
    Stray "stray message" "a message with a wrong receiver or sender arrived, and changed nothing",
    Besieged "lasting partition" "a partition that leaves a quorum lasted until a leader committed in it",
    FollowersHung "followers' disks hang" "all disks but the leader's hung, and the leader stayed",
    TurnedOver "leader turned over" "a leader was deposed, came back, and was left to lead again",
    Returned "isolated node returned" "a node came back from isolation, and the leader stayed",
    // Elections.
    LeaderCrash "leader crash between append and commit" "a leader went with entries that were not committed",
    VoteLost "own vote lost" "a candidate lost its own vote, not yet durable, in a crash",
    GrantLost "granted vote lost" "a voter lost its vote for another, not yet durable, in a crash",
    Split "split vote" "two candidates got votes in one term",
    Sticky "pre-vote refused by stickiness" "a voter heard a leader",
    StickyVote "vote refused by stickiness" "a voter heard a leader and did not even take the term",
    Rivals "rival pre-candidates" "of two that asked, one went on",
    ShorterLog "vote refused for the log" "the candidate lacked entries",
    Voted "vote refused for another" "the voter had voted for another",
    TwoLeaders "two leaders" "two nodes led at once, in different terms",
    NoQuorum "leader lost its quorum" "a leader stepped down because it heard nobody",
    DiskStepDown "leader with a stalled disk" "a leader stepped down because its disk hung",
    Deposed "leader deposed" "a leader met a newer term",
    Behind "election in an older log" "a leader was elected whose log is shorter than another's",
    OldTold "old leader told" "a leader of an older term got an answer in a newer one",
    // Logs.
    Truncated "log truncated" "a follower dropped entries",
    TruncatedInFlight "truncation with a write in flight" "it dropped entries that the disk was still writing",
    OwnDropped "own entries dropped" "a deposed leader dropped entries that it had made",
    StaleDone "stale completion" "a completion was reported after that of a later write",
    GoneDone "completion of what is gone" "a write was done whose entries had been truncated meanwhile",
    TwoDone "two completions at once" "two writes were reported done in one moment",
    AckHeld "acknowledgement held across a term" "the term changed between an append and its sync",
    TailRewritten "unattested tail rewritten" "a start found entries that it had not known to be durable",
    TornDropped "torn tail dropped" "a start found nothing of the batch that the crash had cut",
    OldMajority "old term on a majority" "a leader took office with an uncommitted older entry on a majority",
    Jumped "commit over old terms" "a commit of the own term took older entries along",
    Skipped "conflict over several entries" "a follower's answer ruled out more than one entry at once",
    SkippedTerms "conflict over several terms" "a leader went back over more than one term at once",
    LongerLog "follower with the longer log" "an append reached a follower whose log was longer than its leader's",
    ProbeLost "probe lost" "the network lost the one message by which a leader matched logs",
    OldAck "old acknowledgement" "an acknowledgement arrived after a newer one",
    EntriesOfOldTerm "entries of an old term" "entries of an earlier leader came once more",
    AckOfOldTerm "acknowledgement of an old term" "a leader got what it had been told when it led before",
    VoteOfOldTerm "vote of an old term" "a candidate got what it had been granted when it campaigned before",
    WindowFull "window full" "a leader had as much under way to a follower as it may",
    Busy "busy" "a leader refused a command because too much waited",
    Shed "entries shed" "a follower with a slow disk took an append as a heartbeat",
    Loaded "entries loaded" "entries were read back from disk",
    LoadedLate "loaded across a step-down" "entries for a follower came from disk after leadership or term had gone",
    LoadedApply "loaded for the machine" "the machine's entries came from disk",
    LoadedStale "read after a change" "entries were read that had been purged or truncated since the read was planned",
    LoadedSplit "read in two" "the log changed between two parts of one read",
    SlowApply "slow apply" "a machine lagged behind its log",
    SessionOpened "session opened" "a machine was given a session's beginning",
    SessionExpired "session expired" "a node could not learn what became of a write before its session had expired",
    Watched "event seen" "somebody who watched a machine got an event",
    Compacted "events compacted" "somebody who watched was told that what comes next is remembered no more",
    CarriedAgain "command came again" "a machine was given a command that had taken effect, or may not any more",
    TimerFired "timer fired" "a machine was called since the time of a timer had come",
    TimersFired "several timers fired" "more than one timer fired by one entry",
    VisitCut "visit cut" "the connection of a client that is no member was cut, with all that it carried",
    TimerVoid "nothing fired" "an entry by which timers were to fire found none that was due",
    Changed "membership changed" "a change of the membership came to its end",
    ChangeRefused "change refused" "a change of the membership was refused",
    ChangeUnknown "change cut off" "a leader lost office before a change that it had begun was over",
    Transferred "leadership transferred" "a leader handed over, and saw another lead",
    TransferRefused "transfer refused" "a leader, or another node, did not even begin to hand over",
    TransferGivenUp "transfer given up" "a transfer came to nothing, and the leader led on",
    TookOver "took over" "a node campaigned in its leader's place, as it was told",
    NotTakenOver "order not obeyed" "a node was told to campaign in a leader's place, and did not",
    HelpedOver "helped over" "a voter that heard a leader helped another, to which that had given way",
    OrderAgain "order repeated" "a node was told once more to campaign",
    OrderForged "order forged" "a node was told to campaign by nobody",
    CampaignForged "campaign forged" "a vote was asked for in the place of a leader that had not given way",
    Wiped "disk wiped" "a node came back on an empty disk",
    WipedVoter "voter wiped" "a voter's disk was wiped",
    WipedChanging "wiped within a change" "a disk was wiped while a change of the membership was under way",
    DamagedChanging "damaged within a change" "a disk was spoilt while a change of the membership was under way",
    OldNameAsked "old disk asked" "a message came for the disk that a node had before it was wiped",
    BlankJoined "blank node joined" "a node whose disk was wiped took its first entries",
    BlankVotes "blank node votes" "a node whose disk was wiped became a voter again",
    BlankInstalled "blank node installed" "a node whose disk was wiped took its first state from a snapshot",
    Moved "moved" "a node came back at another address",
    MovedWrong "moved, and says it wrong" "a node came back at another address and says that it is at a third one",
    FoundElsewhere "found elsewhere" "a node met another where the membership does not say that it is",
    FoundAnother "another one there" "whoever answered where a node was looked for was somebody else",
    FoundByOthers "found on hearsay" "a node met another where only a third one said that it is",
    ClaimRefused "claim refused" "a leader did not find a member where that says that it is",
    AddressCommitted "address committed" "a leader put the new address of a member into the membership",
    PlacesKept "places kept" "a node started with what it knew of where others are",
    Named "named by hand" "nodes that could not know of each other were told where one is",
    ThirdDies "the third dies" "those that had moved went on when all others died",
    Purged "log purged" "a node purged entries for which its snapshot stands",
    SnapshotSaved "snapshot written" "a snapshot of a machine was written",
    SnapshotPiece "snapshot sent" "a piece of a snapshot reached a follower",
    SnapshotInstalled "snapshot installed" "a node took the state of a snapshot from its leader",
    SnapshotLost "snapshot piece lost" "the network lost a piece of a snapshot",
    Recycled "segment recycled" "a purge found a segment that was purged before and waits to be used again",
    BeginsLate "start after a purge" "a node started on a log whose first entries are purged",
    Gathered "several in one turn" "a node took in several things before it carried anything out",
    EmptyTurn "empty turn" "a node was turned though nothing had come",
    Tied "tie turned round" "of two things at one moment, the later one came first",
    Sealed "seal" "a quiet log attested its newest batch",
    // Clients.
    AskedAsleep "asked while frozen" "a request waited for a node that was frozen",
    ReadAtOnce "read starts a round" "a read left with a round at once",
    ReadWaits "read waits for a round" "a read waited for the round under way",
    ReadYoung "read at a young leader" "a read came before the leader had committed in its term",
    Forwarded "write forwarded" "a follower handed a write on to its leader",
    ForwardLost "forwarded write lost" "a forwarded write, or its answer, was lost with its connection",
    // Before there is a cluster.
    SecondFounder "second founder" "two nodes asked a list's lowest at once to found its cluster",
    PromiseRefused "promise refused" "a node had promised itself to another list",
    PromiseReleased "promise released" "a founder said that it gave up, and a node was free again",
    PromiseKept "promise kept" "a node started with the promise of an earlier boot",
    PromiseCut "crash in a promise" "a process ended while its identity was replaced",
    FounderCrash "founder crash" "a founder's process ended before its first entry was durable",
    ReadAlone "read without a round" "a node answered a read that need not be linearizable, and asked no other",
    ReadFollower "follower read" "a follower answered a read from its own machine",
    OtherRun "answer to an earlier boot" "an answer met a question of the same number, of the asker's next boot",
    ReadChange "follower read across a change" "a follower's leader changed while it asked for an index",
    Forgotten "unknown, and lost" "a command whose outcome was unknown never took effect",
    Survived "unknown, and done" "a command whose outcome was unknown took effect",
    Abandoned "abandoned" "a client gave up before the answer",
    Pipelined "pipelined" "a client asked before it had its last answer",
    WrongNode "wrong node" "a command reached a node that did not lead",
}

/// How often each was met.
#[derive(Clone, Debug)]
pub(super) struct Met(pub(super) Vec<u64>);

impl Met {
    pub(super) fn new() -> Met {
        Met(vec![0; SITUATIONS.len()])
    }

    pub(super) fn count(&mut self, rare: Rare) {
        self.0[rare as usize] += 1;
    }

    pub(super) fn count_if(&mut self, holds: bool, rare: Rare) {
        self.0[rare as usize] += u64::from(holds);
    }
}
