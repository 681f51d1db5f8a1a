//! Those who watch the machines: what is published is the same everywhere, and nobody misses any of it unknowingly.

use super::World;
use crate::events::{Event, News, Position};
use crate::sim::ghost::{Verdict, broken};
use crate::sim::situations::Rare;
use bytes::Bytes;
use coracle_core::Index;
use std::collections::BTreeMap;

/// How many events a watcher asks for at a time.
const BATCH: usize = 3;

/// What was published, and who watches.
#[derive(Default)]
pub(in crate::sim) struct Watchers {
    /// The events of each entry that any machine has applied, none of those without effect.
    published: BTreeMap<Index, Vec<Bytes>>,
    /// One for each node that it watches at first. It goes to the next where its node is gone.
    watchers: Vec<Watcher>,
}

struct Watcher {
    node: usize,
    at: Position,
}

impl Watchers {
    /// One watcher for each node.
    pub(in crate::sim) fn new(nodes: usize) -> Watchers {
        let at = Position::of_entry(1);
        Watchers {
            published: BTreeMap::new(),
            watchers: (0..nodes).map(|node| Watcher { node, at }).collect(),
        }
    }

    /// A machine has published this, and applied the entries at these places.
    fn learn(&mut self, node: usize, news: &News, applied: impl Iterator<Item = Index>) -> Verdict {
        let mut events: BTreeMap<Index, Vec<Bytes>> = applied.map(|index| (index, Vec::new())).collect();
        for event in &news.events {
            let of_entry = events.entry(event.at.index).or_default();
            if event.at.number as usize != of_entry.len() {
                let wrong = format!("node {} numbers the events of {} wrong", node + 1, event.at.index);
                return broken("S31", wrong);
            }
            of_entry.push(event.payload.clone());
        }
        for (index, events) in events {
            if *self.published.entry(index).or_insert_with(|| events.clone()) != events {
                let other = format!("node {} publishes other events of entry {index} than another", node + 1);
                return broken("S31", other);
            }
        }
        Ok(())
    }

    /// Whether this is the next event from there on.
    fn is_next(&self, at: Position, event: &Event) -> bool {
        let entries = self.published.range(at.index..);
        let mut places = entries.flat_map(|(index, events)| {
            (0..).zip(events).map(|(number, payload)| (Position { index: *index, number }, payload))
        });
        places.find(|(place, _)| *place >= at) == Some((event.at, &event.payload))
    }
}

impl World {
    /// A machine has got on: the judge learns what it published, and those who watch it look.
    pub(in crate::sim) fn watch_events(
        &mut self,
        node: usize,
        news: &[News],
        applied: impl Iterator<Item = Index>,
    ) -> Verdict {
        let events = news.iter().flat_map(|news| news.events.iter().cloned()).collect();
        // A machine that went back applies again what it has published.
        let published = self.hosts[node].told;
        let applied = applied.filter(|index| *index > published);
        self.watchers.learn(node, &News { jumped: None, events }, applied)?;
        for at in 0..self.watchers.watchers.len() {
            self.look(at)?;
        }
        Ok(())
    }

    fn look(&mut self, at: usize) -> Verdict {
        let (nodes, watcher) = (self.hosts.len(), &mut self.watchers.watchers[at]);
        let Some(up) = &self.hosts[watcher.node].up else {
            watcher.node = (watcher.node + 1) % nodes;
            return Ok(());
        };
        let place = watcher.at;
        match up.history.from(place, BATCH) {
            Err(compacted) => {
                watcher.at = Position::of_entry(compacted.0 + 1);
                self.met.count(Rare::Compacted);
            }
            Ok(events) => {
                let node = watcher.node;
                for event in events {
                    let place = self.watchers.watchers[at].at;
                    if !self.watchers.is_next(place, &event) {
                        let missed = format!(
                            "who watches node {} from {place:?} is told {:?} next, which is not what comes next",
                            node + 1,
                            event.at
                        );
                        return broken("S31", missed);
                    }
                    self.watchers.watchers[at].at = event.next();
                    self.met.count(Rare::Watched);
                }
            }
        }
        Ok(())
    }
}
