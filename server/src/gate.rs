//! How much may be under way in the node, and who waits for how long to be among it.
//!
//! Requests pass while there is room. Others wait in line, and how long is the rule of CoDel as servers have it (Maurer,
//! "Fail at scale"): a line that forms and goes away again is a burst, and may wait for a while. A line that has been there
//! for an interval, or in which somebody has just waited in vain, does not go away by waiting, since more comes than
//! is done: then whoever has not passed within a moment is refused, and there is less room, until even the quickest answer of an interval takes no longer than
//! it should. So whatever comes, what passes has not waited for long, and is answered soon. What it should take is learned: where answers take
//! longer with the least room as well, it is not for want of less, and twice as long is what they may take from then on.
//!
//! Clients are equal: whoever is a user is one client, from however many addresses it comes, and everybody else is that of an
//! address. Each passes at once while it has less under way than its equal share, and those that wait pass by
//! turns: so whoever asks for a little does not notice those who ask for all that they can.
//!
//! One that is refused is told when to ask again, later each time, and is not heard before. Where there is no leader nobody
//! is refused: the line is not there for want of room.

use crate::accounts::Holder;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

/// At how many clients one answer looks for somebody who has room: it is a matter of a moment, however many wait.
const LOOKS: usize = 16;

/// What a request counts at least, in bytes: so what bounds small ones is their number.
const LEAST: usize = 32 << 10;

/// What may be under way at most, in bytes: 1,024 small requests. A disk and a network are kept busy by less, and three nodes
/// that send so much to one leader stay below what it refuses itself.
const MOST_ROOM: usize = 1_024 * LEAST;

/// What may be under way at least, in bytes: 64 small requests share a sync as well as a thousand do.
const LEAST_ROOM: usize = 64 * LEAST;

/// How long the quickest answer of an interval should take, where more comes than is done; longer where the least room makes it no
/// quicker: on a slow disk, or over a slow network, nobody would ever leave the least room again.
const SHOULD: Duration = Duration::from_millis(3);

/// By what part of itself less an answer should take after each interval than was learned: half of it after 4 s. What made answers slow may
/// be over.
const FORGOTTEN: u32 = 64;

/// For how long a line is a burst; and how often it is looked at whether there should be less room, or more.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long a request waits in a burst.
const PATIENCE: Duration = Duration::from_millis(20);

/// How long a request waits where more comes than is done.
const MOMENT: Duration = Duration::from_millis(5);

/// After what time one that was refused is to ask again: at first, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(640));

/// What of one client is under way, and what of it waits.
#[derive(Debug, Default)]
struct Flow {
    under_way: usize,
    waiting: VecDeque<Waiting>,
    /// Its place among the turns, if it has one.
    turn: Option<u64>,
}

impl Flow {
    fn is_idle(&self) -> bool {
        self.under_way == 0 && self.waiting.is_empty()
    }
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    bytes: usize,
    go: oneshot::Sender<()>,
}

/// The rule. It knows no clock.
#[derive(Debug)]
struct Line {
    /// How much may be under way.
    room: usize,
    under_way: usize,
    /// Of those that have anything under way, or wait.
    flows: BTreeMap<Holder, Flow>,
    /// Those of whom somebody waits, or did when they were put here, each once, in the order of their turns.
    turns: BTreeMap<u64, Holder>,
    /// How many wait.
    waiting: usize,
    /// Since when somebody does.
    since: Option<Instant>,
    /// When somebody was refused last.
    refused: Option<Instant>,
    /// When this interval began, and the shortest time that an answer took in it.
    interval: Option<Instant>,
    quickest: Duration,
    /// How long that should be.
    should: Duration,
    next: u64,
    last_turn: u64,
}

impl Default for Line {
    fn default() -> Line {
        Line {
            room: MOST_ROOM,
            under_way: 0,
            flows: BTreeMap::new(),
            turns: BTreeMap::new(),
            waiting: 0,
            since: None,
            refused: None,
            interval: None,
            quickest: Duration::MAX,
            should: SHOULD,
            next: 0,
            last_turn: 0,
        }
    }
}

/// What becomes of a request.
enum Arrival {
    Passes,
    /// It waits, under this number, until it is told to go; for so long.
    Waits(u64, oneshot::Receiver<()>, Duration),
}

impl Line {
    /// The equal share of each client.
    fn share(&self) -> usize {
        (self.room / self.flows.len().max(1)).max(LEAST)
    }

    /// Whether so much more of this client may be under way. What clients have by their shares may come to as much
    /// again as there is room, if others have taken it before they came.
    fn fits(&self, from: &Holder, bytes: usize) -> bool {
        let own = self.flows.get(from).map_or(0, |flow| flow.under_way);
        self.is_roomy(bytes)
            || (own + bytes <= self.share() && self.under_way + bytes <= self.room + MOST_ROOM)
    }

    /// Whether so much more may be under way, whoever it comes from.
    fn is_roomy(&self, bytes: usize) -> bool {
        self.under_way + bytes <= self.room.max(bytes)
    }

    fn take(&mut self, from: &Holder, bytes: usize) {
        self.under_way += bytes;
        self.flows.entry(from.clone()).or_default().under_way += bytes;
    }

    fn arrive(&mut self, now: Instant, from: &Holder, bytes: usize) -> Arrival {
        let is_roomy = self.is_roomy(bytes);
        let flow = self.flows.entry(from.clone()).or_default();
        if flow.waiting.is_empty() {
            // As a rule there is room, and one look is enough.
            if is_roomy {
                self.under_way += bytes;
                flow.under_way += bytes;
                return Arrival::Passes;
            }
            if self.fits(from, bytes) {
                self.take(from, bytes);
                return Arrival::Passes;
            }
        }
        let (go, told) = oneshot::channel();
        self.next += 1;
        let number = self.next;
        let flow = self.flows.entry(from.clone()).or_default();
        flow.waiting.push_back(Waiting { number, bytes, go });
        if flow.turn.is_none() {
            self.line_up(from);
        }
        self.waiting += 1;
        let since = *self.since.get_or_insert(now);
        let stands = now.duration_since(since) >= INTERVAL || self.has_refused(now);
        Arrival::Waits(number, told, if stands { MOMENT } else { PATIENCE })
    }

    /// It has the last turn of all.
    fn line_up(&mut self, from: &Holder) {
        if let Some(flow) = self.flows.get_mut(from) {
            self.last_turn += 1;
            flow.turn = Some(self.last_turn);
            self.turns.insert(self.last_turn, from.clone());
        }
    }

    /// Whether somebody was refused within an interval.
    fn has_refused(&self, now: Instant) -> bool {
        self.refused.is_some_and(|at| now.duration_since(at) < INTERVAL)
    }

    /// Lets in whoever has room now, client by client.
    fn let_in(&mut self) {
        let mut looked = 0;
        while looked < self.turns.len().min(LOOKS)
            && let Some((_, from)) = self.turns.pop_first()
        {
            let Some(flow) = self.flows.get_mut(&from) else { continue };
            flow.turn = None;
            let Some(&Waiting { bytes, number, .. }) = flow.waiting.front() else { continue };
            if !self.fits(&from, bytes) {
                self.line_up(&from);
                looked += 1;
                continue;
            }
            if let Some(waiting) = self.remove(&from, number) {
                // One who has just given up says so by itself, and gives this back.
                self.take(&from, bytes);
                if waiting.go.send(()).is_err() {
                    self.give_back(&from, bytes);
                }
            }
            if self.flows.get(&from).is_some_and(|flow| !flow.waiting.is_empty()) {
                self.line_up(&from);
            }
            looked = 0;
        }
    }

    /// One waits no longer.
    fn remove(&mut self, from: &Holder, number: u64) -> Option<Waiting> {
        let flow = self.flows.get_mut(from)?;
        let at = flow.waiting.iter().position(|one| one.number == number)?;
        let (one, is_idle) = (flow.waiting.remove(at), flow.is_idle());
        self.waiting -= 1;
        if self.waiting == 0 {
            self.since = None;
        }
        if is_idle {
            self.forget(from);
        }
        one
    }

    fn give_back(&mut self, from: &Holder, bytes: usize) {
        self.under_way -= bytes;
        let Some(flow) = self.flows.get_mut(from) else { return };
        flow.under_way -= bytes;
        if flow.is_idle() {
            self.forget(from);
        }
    }

    /// Nothing of this client is under way, or waits.
    fn forget(&mut self, from: &Holder) {
        if let Some(Flow { turn: Some(turn), .. }) = self.flows.remove(from) {
            self.turns.remove(&turn);
        }
    }

    /// A request was answered after so long.
    fn answered(&mut self, now: Instant, from: &Holder, bytes: usize, took: Duration) {
        self.give_back(from, bytes);
        self.quickest = self.quickest.min(took);
        let began = *self.interval.get_or_insert(now);
        if now.duration_since(began) >= INTERVAL {
            let stands = self.since.is_some_and(|since| since <= began) || self.has_refused(now);
            self.adjust(stands);
            (self.interval, self.quickest) = (Some(now), Duration::MAX);
        }
        self.let_in();
    }
}

impl Line {
    /// At the end of an interval: there should be less room, or more.
    fn adjust(&mut self, stands: bool) {
        self.should = (self.should - self.should / FORGOTTEN).max(SHOULD);
        if !stands || self.quickest <= self.should {
            self.room = (self.room + self.room / 8).min(MOST_ROOM);
        } else if self.room > LEAST_ROOM {
            self.room = (self.room - self.room / 4).max(LEAST_ROOM);
        } else {
            self.should = self.quickest.saturating_mul(2);
        }
    }
}

/// Where requests pass. See the [module](self).
#[derive(Debug, Default)]
pub struct Gate(Mutex<Line>);

/// A request that has passed, for as long as it is under way.
#[derive(Debug)]
pub struct Passed<'a> {
    gate: &'a Gate,
    from: Holder,
    bytes: usize,
    since: Instant,
    /// After what time it was answered, if that was asked.
    took: Option<Duration>,
}

impl Passed<'_> {
    /// It was answered. After what time.
    pub fn end(mut self) -> Duration {
        *self.took.insert(self.since.elapsed())
    }
}

impl Drop for Passed<'_> {
    fn drop(&mut self) {
        let took = self.took.unwrap_or_else(|| self.since.elapsed());
        self.gate.line().answered(self.since + took, &self.from, self.bytes, took);
    }
}

/// A request in line. Dropped, it waits no longer.
struct InLine<'a> {
    gate: &'a Gate,
    from: Holder,
    number: u64,
    bytes: usize,
    told: oneshot::Receiver<()>,
}

impl InLine<'_> {
    /// Whether it was let in.
    fn is_in(&mut self) -> bool {
        self.told.try_recv().is_ok()
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        let mut line = self.gate.line();
        if line.remove(&self.from, self.number).is_none() && self.is_in() {
            line.give_back(&self.from, self.bytes);
        }
        line.let_in();
    }
}

impl Gate {
    /// Waits until there is room for a request of so many bytes, as long as that makes sense; `at_rest`: or for so long, as
    /// there is no leader who could make room. None: it is to be refused.
    pub async fn pass(
        &self,
        from: &Holder,
        bytes: usize,
        at_rest: impl FnOnce() -> Option<Duration>,
    ) -> Option<Passed<'_>> {
        let (bytes, now) = (bytes.clamp(LEAST, MOST_ROOM), Instant::now());
        let arrival = self.line().arrive(now, from, bytes);
        let passed = |since| Passed { gate: self, from: from.clone(), bytes, since, took: None };
        let (number, told, limit) = match arrival {
            Arrival::Passes => return Some(passed(now)),
            Arrival::Waits(number, told, limit) => (number, told, at_rest().unwrap_or(limit)),
        };
        let mut place = InLine { gate: self, from: from.clone(), number, bytes, told };
        // What it was told counts also at the last moment.
        let told = timeout(limit, &mut place.told).await;
        if !matches!(told, Ok(Ok(()))) {
            self.line().refused = Some(Instant::now());
            return None;
        }
        // It has passed: its place is none any more, and nothing of it is left to give back.
        Some(passed(Instant::now()))
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often a connection was refused in a row.
#[derive(Debug, Default)]
pub struct Refusals {
    in_a_row: u32,
    /// Until when it is not heard.
    until: Option<Instant>,
}

impl Refusals {
    /// It was not refused.
    pub fn end(&mut self) {
        self.in_a_row = 0;
    }

    /// It is refused once more. After what time it is to ask again.
    pub fn one_more(&mut self) -> Duration {
        let (first, most) = AGAIN;
        let after = (first * 2u32.saturating_pow(self.in_a_row)).min(most);
        self.in_a_row = (self.in_a_row + 1).min(16);
        self.until = Some(Instant::now() + after);
        after
    }

    /// Until when it is not heard, if it was refused since this was asked last.
    pub fn deaf_until(&mut self) -> Option<Instant> {
        self.until.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::task::JoinSet;
    use tokio::time::sleep;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn address(number: u8) -> Holder {
        Holder::Address([192, 0, 2, number].into())
    }

    fn patience(line: &mut Line, now: Instant) -> Duration {
        match line.arrive(now, &address(1), MOST_ROOM) {
            Arrival::Waits(_, _, limit) => limit,
            Arrival::Passes => panic!("there is no room"),
        }
    }

    #[test]
    fn a_line_that_goes_away_is_a_burst_and_one_that_stays_is_not() {
        let (mut line, start) = (Line::default(), Instant::now());
        assert!(matches!(line.arrive(start, &address(1), MOST_ROOM), Arrival::Passes));
        assert_eq!(patience(&mut line, start), PATIENCE);
        assert_eq!(patience(&mut line, start + INTERVAL - ms(1)), PATIENCE);
        assert!(line.remove(&address(1), 1).is_some());
        assert_eq!(patience(&mut line, start + INTERVAL), MOMENT, "somebody has waited all the time");
        assert!(line.remove(&address(1), 2).is_some() && line.remove(&address(1), 3).is_some());
        assert_eq!(patience(&mut line, start + INTERVAL), PATIENCE, "there was nobody for a moment");
    }

    /// What is let in by one answer, in order.
    fn let_in(line: &mut Line, told: &mut [(u8, oneshot::Receiver<()>)]) -> Vec<u8> {
        line.let_in();
        told.iter_mut().filter_map(|(name, told)| told.try_recv().is_ok().then_some(*name)).collect()
    }

    #[test]
    fn addresses_have_equal_shares_and_those_that_wait_pass_by_turns() {
        let (mut line, now) = (Line::default(), Instant::now());
        assert!(matches!(line.arrive(now, &address(1), MOST_ROOM), Arrival::Passes));
        // Another one has its half, though the first has taken everything.
        for _ in 0..512 {
            assert!(matches!(line.arrive(now, &address(2), LEAST), Arrival::Passes));
        }
        let mut told = Vec::new();
        for name in [1, 1, 1, 2, 2] {
            match line.arrive(now, &address(name), LEAST) {
                Arrival::Waits(_, receiver, _) => told.push((name, receiver)),
                Arrival::Passes => panic!("node {name} has more than its share"),
            }
        }
        line.give_back(&address(1), MOST_ROOM);
        line.under_way = MOST_ROOM - 2 * LEAST;
        // The first has nothing under way now, so its share lets it in as well.
        assert_eq!(let_in(&mut line, &mut told), [1, 1, 1, 2]);
        assert_eq!(line.waiting, 1);
    }

    #[test]
    fn there_is_less_room_while_more_comes_than_is_done_and_more_again_after() {
        let (mut line, mut now) = (Line::default(), Instant::now());
        let mut turn = |line: &mut Line, took: Duration| {
            now += INTERVAL;
            line.take(&address(1), LEAST);
            line.answered(now, &address(1), LEAST, took);
            line.room
        };
        for _ in 0..3 {
            assert_eq!(turn(&mut line, ms(50)), MOST_ROOM, "nobody waits");
        }
        line.since = Some(Instant::now());
        let shrunk: Vec<usize> = (0..10).map(|_| turn(&mut line, ms(50))).collect();
        assert!(shrunk.is_sorted_by(|one, next| one >= next));
        assert_eq!(shrunk.last(), Some(&LEAST_ROOM));
        assert!(turn(&mut line, ms(1)) > LEAST_ROOM, "it is quick enough");
        assert_eq!(turn(&mut line, ms(50)), LEAST_ROOM);
        // The least room does not make it quicker: so long is what it takes.
        assert_eq!(turn(&mut line, ms(50)), LEAST_ROOM);
        let grown: Vec<usize> = (0..10).map(|_| turn(&mut line, ms(80))).collect();
        assert!(grown.is_sorted() && grown[9] > 3 * LEAST_ROOM, "twice as long is well");
        assert!(turn(&mut line, ms(200)) < grown[9], "four times is not");
        // After a while it is not what it was.
        line.since = None;
        for _ in 0..400 {
            turn(&mut line, ms(1));
        }
        line.since = Some(Instant::now());
        assert!(turn(&mut line, ms(50)) < MOST_ROOM);
        line.since = None;
        let grown = (0..40).map(|_| turn(&mut line, ms(50))).last();
        assert_eq!(grown, Some(MOST_ROOM));
    }

    #[test]
    fn whoever_is_refused_again_and_again_is_to_come_later_and_later() {
        let mut refusals = Refusals::default();
        let told: Vec<u128> = (0..9).map(|_| refusals.one_more().as_millis()).collect();
        assert_eq!(told, [10, 20, 40, 80, 160, 320, 640, 640, 640]);
        assert!(refusals.deaf_until().is_some() && refusals.deaf_until().is_none());
        refusals.end();
        assert_eq!(refusals.one_more(), ms(10));
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_room_passes_at_once_and_the_room_is_given_back() {
        let (gate, one) = (Gate::default(), address(1));
        let passed = gate.pass(&one, MOST_ROOM, || None).await.expect("alone");
        assert!(gate.pass(&one, 1, || None).await.is_none());
        drop(passed);
        assert!(gate.pass(&one, usize::MAX, || None).await.is_some(), "what is too large passes alone");
        let line = gate.line();
        assert!(
            line.flows.is_empty() && line.turns.is_empty() && line.since.is_none() && line.under_way == 0,
            "{line:?}"
        );
    }

    #[test]
    fn whoever_waits_and_gives_up_again_and_again_has_one_turn() {
        let (mut line, now) = (Line::default(), Instant::now());
        assert!(matches!(line.arrive(now, &address(1), MOST_ROOM), Arrival::Passes));
        for _ in 0..100 {
            let Arrival::Waits(number, ..) = line.arrive(now, &address(2), MOST_ROOM) else { panic!() };
            let Arrival::Waits(next, ..) = line.arrive(now, &address(2), LEAST) else { panic!() };
            assert_eq!(line.turns.len(), 1);
            assert!(line.remove(&address(2), number).is_some() && line.remove(&address(2), next).is_some());
        }
        assert!(line.turns.is_empty() && line.flows.len() == 1);
    }

    #[test]
    fn a_user_is_one_client_from_however_many_addresses_it_comes() {
        let (mut line, now) = (Line::default(), Instant::now());
        let user = |name: &'static str| Holder::User(bytes::Bytes::from_static(name.as_bytes()));
        assert!(matches!(line.arrive(now, &user("mallory"), MOST_ROOM), Arrival::Passes));
        for _ in 0..512 {
            assert!(matches!(line.arrive(now, &user("alice"), LEAST), Arrival::Passes), "she has her half");
        }
        assert!(matches!(line.arrive(now, &user("mallory"), LEAST), Arrival::Waits(..)));
        assert!(
            matches!(line.arrive(now, &user("alice"), LEAST), Arrival::Waits(..)),
            "it is no more than that"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_leader_a_request_waits_as_long_as_it_may() {
        let (gate, start) = (Gate::default(), Instant::now());
        let _all = gate.pass(&address(1), MOST_ROOM, || None).await;
        assert!(gate.pass(&address(1), 1, || Some(ms(2000))).await.is_none());
        assert_eq!(start.elapsed(), ms(2000));
    }

    /// What a node was asked for and has not answered.
    type Asked = Arc<Mutex<VecDeque<oneshot::Sender<()>>>>;

    /// A node that answers ten requests in a millisecond, in the order in which they come; once in so many.
    async fn answer(asked: Asked, every: u64) {
        loop {
            sleep(ms(every)).await;
            let mut asked = asked.lock().unwrap();
            let now = asked.len().min(10 * every as usize);
            asked.drain(..now).for_each(|one| one.send(()).unwrap());
        }
    }

    /// Ten times what can be done comes from ten addresses. What passes is answered soon, nearly as much is done as can be, and
    /// one of another address who asks now and then is never refused.
    #[tokio::test(start_paused = true)]
    async fn at_ten_times_the_load_what_passes_is_answered_soon() {
        let (gate, asked) = (Arc::new(Gate::default()), Arc::default());
        let node = tokio::spawn(answer(Arc::clone(&asked), 1));
        let (mut all, start) = (JoinSet::new(), Instant::now());
        let ask = |from: Holder| {
            let (gate, asked) = (gate.clone(), asked.clone());
            async move {
                let came = Instant::now();
                let passed = gate.pass(&from, LEAST, || None).await?;
                let (tell, told) = oneshot::channel();
                asked.lock().unwrap().push_back(tell);
                told.await.unwrap();
                drop(passed);
                Some((from, came, came.elapsed()))
            }
        };
        for turn in 0..1_700u32 {
            for number in 0..100 {
                all.spawn(ask(address(number % 10)));
            }
            if turn % 20 == 0 {
                all.spawn(ask(address(99)));
            }
            sleep(ms(1)).await;
        }
        let answered: Vec<_> = all.join_all().await.into_iter().flatten().collect();
        node.abort();
        let late: Vec<_> = answered.iter().filter(|(_, came, _)| *came > start + ms(1_300)).collect();
        let longest = late.iter().map(|(.., took)| *took).max().unwrap();
        assert!(longest < ms(25), "{longest:?}");
        assert!(late.len() > 400 * 10 * 9 / 10, "{} of 4,000 were answered", late.len());
        let sparse = answered.iter().filter(|(from, ..)| *from == address(99)).count();
        assert_eq!(sparse, 85, "none was refused");
        let line = gate.line();
        assert!(line.flows.is_empty() && line.turns.is_empty() && line.under_way == 0, "{line:?}");
    }

    /// 30 clients that ask again and again, where each answer takes 10 ms, however few there are. A storm comes and goes: five
    /// seconds later nobody is refused any more.
    #[tokio::test(start_paused = true)]
    async fn after_a_storm_there_is_room_again_where_the_quickest_answer_takes_long() {
        let (gate, asked, refused) = (Arc::new(Gate::default()), Asked::default(), Arc::default());
        let node = tokio::spawn(answer(asked.clone(), 10));
        let (mut all, start) = (JoinSet::new(), Instant::now());
        for number in 0..400u32 {
            let (gate, asked, refused): (_, _, Arc<Mutex<Vec<Duration>>>) =
                (gate.clone(), asked.clone(), Arc::clone(&refused));
            let (from, stays) =
                (address((number % 20) as u8), if number < 30 { ms(9_000) } else { ms(3_000) });
            all.spawn(async move {
                while start.elapsed() < stays {
                    let Some(passed) = gate.pass(&from, 4 * LEAST, || None).await else {
                        refused.lock().unwrap().push(start.elapsed());
                        sleep(ms(20 + u64::from(number % 50))).await;
                        continue;
                    };
                    let (tell, told) = oneshot::channel();
                    asked.lock().unwrap().push_back(tell);
                    told.await.unwrap();
                    drop(passed);
                }
            });
        }
        all.join_all().await;
        node.abort();
        let refused = refused.lock().unwrap();
        let late = refused.iter().filter(|at| **at >= ms(8_000)).count();
        assert!(refused.len() > 1_000, "{} in the storm", refused.len());
        assert_eq!(late, 0, "of {} refusals", refused.len());
        let line = gate.line();
        assert!(line.flows.is_empty() && line.turns.is_empty() && line.under_way == 0, "{line:?}");
    }
}
