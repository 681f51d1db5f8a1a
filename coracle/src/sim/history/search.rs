//! The search for an order: Wing and Gong's, with Lowe's memory.
//!
//! Walk through time, placing one operation after the other. Let the *front* be the answered operation that
//! returned first among those not yet placed. The next operation must be one that was invoked before the
//! front returned, for otherwise the front would have to come earlier. Try each of them that the model
//! accepts; where none leads to the end, go back (Wing and Gong, "Testing and verifying concurrent objects",
//! 1993). [`Seen`] cuts off what was tried before. When no answered operation is left, the order is found:
//! operations with an unknown outcome need not be placed.
//!
//! Five more cuts. For each, let a completion be a list of operations still to be placed that ends the
//! search; a cut is right if it never removes the *shortest* one without leaving another as short.
//! 1. *Pure*: an operation that fits here and never changes any state ([`Model::is_pure`]) can be moved to
//!    the front of any completion. So it is placed, and nothing else is tried.
//! 2. *Twins*: of two operations with equal input and equal answer, the one that must come first is tried;
//!    swapping the two changes nothing else. That is the one answered earlier, or, of two unknown ones, the
//!    one invoked earlier.
//! 3. *Idle*: an unknown operation that would change nothing is not placed.
//! 4. *In vain*: an unknown operation is placed only for the sake of the next one. If that one would lead to
//!    the same state without it, the shorter completion is found elsewhere.
//! 5. *Superset*: see [`seen`](super::seen).
//!
//! The order of trying is the order of answers, and unknown operations last: whoever has to be done first
//! goes first, and what nobody ever confirmed is used only where nothing else fits.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use super::budget::Budget;
use super::model::Model;
use super::operation::{History, Outcome};
use super::seen::{Mixer, Seen};

/// How a search ended. Operations are named by their position in the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// An order that explains every answer.
    Order(Vec<usize>),
    /// There is none.
    Stuck(Stuck),
    /// The budget was spent.
    Exhausted,
}

/// The longest that any order goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stuck {
    /// The operations placed, in order.
    pub(super) placed: Vec<usize>,
    /// The operation that should have been placed by then, and cannot be.
    pub(super) stuck: usize,
    /// The other operations that might have been placed instead.
    pub(super) concurrent: Vec<usize>,
}

/// Looks for an order that explains `history`.
pub(super) fn search<M: Model>(
    model: &M,
    history: &History<M::Input, M::Output>,
    budget: &mut Budget,
) -> Found {
    match Plan::new(model, history, budget) {
        Some(plan) => Search::new(model, &plan).run(budget),
        None => Found::Exhausted,
    }
}

/// An operation with an answer.
struct Answered<'h, M: Model> {
    /// Its position in the history.
    operation: usize,
    input: &'h M::Input,
    output: &'h M::Output,
    pure: bool,
    /// Equal for operations with equal input and output.
    class: u32,
    /// Its bit while it is placed and lies beyond the front. Operations that are open at the same time have
    /// different ones.
    slot: usize,
}

/// An operation without an answer.
struct Unknown<'h, M: Model> {
    /// Its position in the history.
    operation: usize,
    input: &'h M::Input,
    /// The operation of the same input that was invoked last before it.
    twin: Option<usize>,
}

/// A history, laid out for the search.
struct Plan<'h, M: Model> {
    /// In the order of the answers.
    answered: Vec<Answered<'h, M>>,
    /// In the order of the invocations.
    unknown: Vec<Unknown<'h, M>>,
    /// For each front `f`, `open[starts[f]..starts[f + 1]]`: the answered operations, `f` first, that were
    /// invoked before `f` returned and returned no earlier, in the order of their answers.
    open: Vec<u32>,
    starts: Vec<usize>,
    /// For each front, how many of the unknown operations were invoked before it returned.
    unknown_before: Vec<usize>,
    /// The number of slots in use.
    slots: usize,
}

impl<'h, M: Model> Plan<'h, M> {
    /// `None` where the budget does not even suffice to lay the history out.
    fn new(model: &M, history: &'h History<M::Input, M::Output>, budget: &mut Budget) -> Option<Self> {
        type Fixed = BuildHasherDefault<Mixer>;
        let mut classes: HashMap<(&M::Input, &M::Output), u32, Fixed> = HashMap::default();
        let mut newest: HashMap<&M::Input, usize, Fixed> = HashMap::default();
        // An event is its number and the operation's place in `answered` or `unknown`.
        let (mut returns, mut answered, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        let (mut invocations, mut doubts) = (Vec::new(), Vec::new());
        for (at, operation) in history.operations().iter().enumerate() {
            match &operation.outcome {
                Outcome::Returned { at: returned, .. } => returns.push((*returned, at)),
                Outcome::Unknown => {
                    let twin = newest.insert(&operation.input, unknown.len());
                    unknown.push(Unknown { operation: at, input: &operation.input, twin });
                    doubts.push(operation.invoked);
                }
                Outcome::Refused => {}
            }
        }
        returns.sort_unstable();
        for &(_, at) in &returns {
            let operation = &history.operations()[at];
            let Some(output) = operation.output() else { continue };
            invocations.push((operation.invoked, answered.len()));
            let class = classes.len() as u32;
            let class = *classes.entry((&operation.input, output)).or_insert(class);
            let pure = model.is_pure(&operation.input, output);
            answered.push(Answered { operation: at, input: &operation.input, output, pure, class, slot: 0 });
        }
        invocations.sort_unstable();

        let mut plan = Plan {
            answered,
            unknown,
            open: Vec::new(),
            starts: vec![0],
            unknown_before: Vec::with_capacity(returns.len()),
            slots: 0,
        };
        // Sweep over the answers, keeping the operations that are open, in the order of their answers.
        let mut invocations = invocations.into_iter().peekable();
        let (mut open, mut free, mut doubtful) = (Vec::<u32>::new(), Vec::new(), 0);
        for (front, &(returned, _)) in returns.iter().enumerate() {
            while let Some((_, at)) = invocations.next_if(|&(invoked, _)| invoked < returned) {
                let place = open.partition_point(|&other| (other as usize) < at);
                open.insert(place, at as u32);
                plan.answered[at].slot = free.pop().unwrap_or_else(|| {
                    plan.slots += 1;
                    plan.slots - 1
                });
            }
            budget.charge(open.len() as u64)?;
            plan.open.extend_from_slice(&open);
            plan.starts.push(plan.open.len());
            open.remove(0);
            free.push(plan.answered[front].slot);
            while doubts.get(doubtful).is_some_and(|&invoked| invoked < returned) {
                doubtful += 1;
            }
            plan.unknown_before.push(doubtful);
        }
        Some(plan)
    }

    fn open(&self, front: usize) -> &[u32] {
        &self.open[self.starts[front]..self.starts[front + 1]]
    }
}

/// An operation by its place in [`Plan::answered`] or [`Plan::unknown`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Answered(usize),
    Unknown(usize),
}

/// A configuration from which not everything has been tried yet.
struct Frame<S> {
    state: S,
    /// The length of the trail there.
    trail: usize,
    /// The next candidate: first the open answered operations, then the unknown ones.
    cursor: usize,
    /// If the last operation placed is an unknown one: the state before it.
    without: Option<S>,
}

struct Search<'p, 'h, M: Model> {
    model: &'p M,
    plan: &'p Plan<'h, M>,
    /// The first answered operation, in the order of answers, that is not placed.
    front: usize,
    /// By slot: the operations beyond the front that are placed.
    placed: Vec<u64>,
    /// The unknown operations that are placed.
    used: Vec<u64>,
    state: M::State,
    /// What was placed, in order, each with the front before it.
    trail: Vec<(Place, usize)>,
    frames: Vec<Frame<M::State>>,
    seen: Seen<M::State>,
    /// The furthest front of any dead end, and the trail to it.
    furthest: (usize, Vec<Place>),
}

impl<'p, 'h, M: Model> Search<'p, 'h, M> {
    fn new(model: &'p M, plan: &'p Plan<'h, M>) -> Self {
        let (placed, used) = (plan.slots.div_ceil(64), plan.unknown.len().div_ceil(64));
        Search {
            model,
            plan,
            front: 0,
            placed: vec![0; placed],
            used: vec![0; used],
            state: model.start(),
            trail: Vec::with_capacity(plan.answered.len()),
            frames: Vec::new(),
            seen: Seen::new(placed, used),
            furthest: (0, Vec::new()),
        }
    }

    fn run(mut self, budget: &mut Budget) -> Found {
        // If the configuration was reached by an unknown operation: the state before it.
        let mut without = None;
        loop {
            let length = self.trail.len();
            if self.settle(budget).is_none() {
                return Found::Exhausted;
            }
            if self.front == self.plan.answered.len() {
                return Found::Order(self.trail.iter().map(|&(place, _)| self.operation(place)).collect());
            }
            let visit = self.seen.insert(self.front, &self.placed, &self.state, &self.used);
            if budget.charge(visit.compared).is_none() || self.seen.len() > budget.configurations as usize {
                return Found::Exhausted;
            }
            if visit.new {
                let without = without.take().filter(|_| self.trail.len() == length);
                let (state, trail) = (self.state.clone(), self.trail.len());
                self.frames.push(Frame { state, trail, cursor: 0, without });
            }
            // From the newest configuration that has something left to try, try it.
            loop {
                let Some(frame) = self.frames.last_mut() else { return Found::Stuck(self.stuck()) };
                let (trail, mut cursor) = (frame.trail, frame.cursor);
                self.undo_to(trail);
                let Some(next) = self.next(&mut cursor, budget) else { return Found::Exhausted };
                let Some(frame) = self.frames.last_mut() else { return Found::Stuck(self.stuck()) };
                frame.cursor = cursor;
                if let Some((place, state)) = next {
                    without = matches!(place, Place::Unknown(_)).then(|| frame.state.clone());
                    self.place(place);
                    self.state = state;
                    break;
                }
                self.remember_furthest();
                self.frames.pop();
            }
        }
    }

    /// Places every pure operation that fits. `None` if the budget is spent.
    fn settle(&mut self, budget: &mut Budget) -> Option<()> {
        'front: while self.front < self.plan.answered.len() {
            let front = self.front;
            for &at in self.plan.open(front) {
                let operation = &self.plan.answered[at as usize];
                if !operation.pure || self.is_placed(operation.slot) {
                    continue;
                }
                budget.charge(1)?;
                if self.model.step(&self.state, operation.input, Some(operation.output)).is_some() {
                    self.place(Place::Answered(at as usize));
                    if self.front != front {
                        continue 'front;
                    }
                }
            }
            break;
        }
        Some(())
    }

    /// The next candidate of the newest frame that fits, and the state that it leaves. The outer `None` says
    /// that the budget is spent.
    #[allow(clippy::type_complexity)]
    fn next(&self, cursor: &mut usize, budget: &mut Budget) -> Option<Option<(Place, M::State)>> {
        let Some(frame) = self.frames.last() else { return Some(None) };
        let open = self.plan.open(self.front);
        let doubtful = self.plan.unknown_before[self.front];
        while *cursor < open.len() + doubtful {
            let at = *cursor;
            *cursor += 1;
            let (place, input, output) = if let Some(&candidate) = open.get(at) {
                let operation = &self.plan.answered[candidate as usize];
                if operation.pure
                    || self.is_placed(operation.slot)
                    || self.has_open_twin(&open[..at], operation)
                {
                    continue;
                }
                (Place::Answered(candidate as usize), operation.input, Some(operation.output))
            } else {
                // The newest first: most take effect soon or never.
                let candidate = doubtful - 1 - (at - open.len());
                let operation = &self.plan.unknown[candidate];
                if self.is_used(candidate) || operation.twin.is_some_and(|twin| !self.is_used(twin)) {
                    continue;
                }
                (Place::Unknown(candidate), operation.input, None)
            };
            budget.charge(1)?;
            let Some(state) = self.model.step(&frame.state, input, output) else { continue };
            if output.is_none() && state == frame.state {
                continue;
            }
            if let Some(without) = &frame.without {
                budget.charge(1)?;
                if self.model.step(without, input, output).as_ref() == Some(&state) {
                    continue;
                }
            }
            return Some(Some((place, state)));
        }
        Some(None)
    }

    /// Whether one of `earlier` is like `operation` and could be placed in its stead.
    fn has_open_twin(&self, earlier: &[u32], operation: &Answered<'h, M>) -> bool {
        earlier.iter().any(|&other| {
            let other = &self.plan.answered[other as usize];
            other.class == operation.class && !self.is_placed(other.slot)
        })
    }

    fn place(&mut self, place: Place) {
        self.trail.push((place, self.front));
        match place {
            Place::Answered(at) => {
                flip(&mut self.placed, self.plan.answered[at].slot);
                while let Some(front) = self.plan.answered.get(self.front)
                    && self.is_placed(front.slot)
                {
                    flip(&mut self.placed, front.slot);
                    self.front += 1;
                }
            }
            Place::Unknown(at) => flip(&mut self.used, at),
        }
    }

    /// Takes back what was placed after the trail had this length. The state is the caller's business.
    fn undo_to(&mut self, length: usize) {
        while self.trail.len() > length
            && let Some((place, front)) = self.trail.pop()
        {
            match place {
                Place::Answered(at) => {
                    for passed in &self.plan.answered[front..self.front] {
                        flip(&mut self.placed, passed.slot);
                    }
                    flip(&mut self.placed, self.plan.answered[at].slot);
                    self.front = front;
                }
                Place::Unknown(at) => flip(&mut self.used, at),
            }
        }
    }

    fn is_placed(&self, slot: usize) -> bool {
        self.placed[slot / 64] >> (slot % 64) & 1 == 1
    }

    fn is_used(&self, unknown: usize) -> bool {
        self.used[unknown / 64] >> (unknown % 64) & 1 == 1
    }

    fn operation(&self, place: Place) -> usize {
        match place {
            Place::Answered(at) => self.plan.answered[at].operation,
            Place::Unknown(at) => self.plan.unknown[at].operation,
        }
    }

    fn remember_furthest(&mut self) {
        let (front, trail) = &self.furthest;
        // As few as possible: what was placed later did not help.
        if self.front > *front || (self.front == *front && self.trail.len() <= trail.len()) {
            self.furthest = (self.front, self.trail.iter().map(|&(place, _)| place).collect());
        }
    }

    /// What the furthest dead end looks like.
    fn stuck(&self) -> Stuck {
        let (front, trail) = &self.furthest;
        let placed: Vec<usize> = trail.iter().map(|&place| self.operation(place)).collect();
        let open = self.plan.open(*front).iter().map(|&at| self.plan.answered[at as usize].operation);
        let unknown = self.plan.unknown[..self.plan.unknown_before[*front]].iter().map(|u| u.operation);
        let stuck = self.plan.answered[*front].operation;
        let mut concurrent: Vec<usize> =
            open.chain(unknown).filter(|at| *at != stuck && !placed.contains(at)).collect();
        concurrent.sort_unstable();
        Stuck { placed, stuck, concurrent }
    }
}

fn flip(words: &mut [u64], bit: usize) {
    words[bit / 64] ^= 1 << (bit % 64);
}
