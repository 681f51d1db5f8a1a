//! What a connection asks of the node: neighbouring writes as one entry of the log, and neighbouring reads as one question.

use super::{Connection, End, NO_ROOM};
use crate::commands::{self, Phrase};
use crate::failures;
use crate::kv::{Found, Lookup, Machine, Operation, Outcome};
use crate::monitor::Refused;
use crate::value::Value;
use coracle::WriteError;
use tokio::io::{AsyncRead, AsyncWrite};

/// What a write hears whose answer is longer than there is memory for: that turns out when it is done.
const UNTOLD: &str = "UNKNOWN the memory for replies is used up; this was done, and its answer is lost";

impl<M: Machine, T: AsyncRead + AsyncWrite + Unpin> Connection<M, T> {
    /// Has writes done in the database that was chosen, and answers each of them.
    pub(super) async fn write(
        &mut self,
        mut writes: Vec<Operation>,
        phrases: Vec<Phrase>,
    ) -> Result<(), End> {
        let count = writes.len();
        let reply = writes.iter().map(Operation::reply).sum();
        if self.session.database != 0 {
            writes.insert(0, Operation::In(self.session.database));
        }
        let outcomes = match self.propose(writes, reply).await {
            Ok(outcomes) => outcomes,
            Err(error) => return self.repeat_error(&error, count).await,
        };
        let bytes = outcomes.iter().map(Outcome::bytes).sum();
        if outcomes.len() == count && bytes > reply && !self.owe(bytes) {
            self.repeat_error(UNTOLD, count).await?;
        } else if outcomes.len() != count {
            let error = format!("UNKNOWN {} outcomes came for {count} commands", outcomes.len());
            self.repeat_error(&error, count).await?;
        } else {
            for (outcome, phrase) in outcomes.iter().zip(&phrases) {
                commands::answer_write(outcome, phrase, &mut self.replies);
                if self.has_many() {
                    self.send_many().await?;
                }
            }
        }
        self.fetched = 0;
        Ok(())
    }

    /// Has a batch done, whose answer has so many bytes of values at most. The error is the text of a reply.
    pub(super) async fn propose(
        &mut self,
        mut batch: Vec<Operation>,
        reply: usize,
    ) -> Result<Vec<Outcome>, String> {
        // Before anything is done: afterwards it could not be refused.
        if !self.owe(reply) {
            return Err(NO_ROOM.to_owned());
        }
        let weight = batch.iter().map(Operation::weight).sum();
        let Some(passed) = self.shared.pass(self.place.whose(), weight).await else {
            self.fetched = 0;
            return Err(self.refused());
        };
        self.refusals.end();
        if let Some(by) = self.access.by() {
            batch.insert(0, Operation::As(by));
        }
        let limit = self.shared.timeout;
        let outcomes: Result<_, WriteError> = self.lane.write_retrying(batch, limit).await;
        // It is not under way any more, however slowly the client takes its replies.
        self.shared.about.served.writes.took(passed.end());
        outcomes.map_err(|error| {
            self.fetched = 0;
            self.told(failures::of_write(&error, limit))
        })
    }

    /// What a client is told of what was not done.
    fn told(&self, error: String) -> String {
        if self.shared.about.is_loading() { failures::while_loading(error) } else { error }
    }

    /// One more request was refused.
    fn refused(&mut self) -> String {
        self.shared.about.served.refuse(Refused::Busy);
        failures::busy("too many requests are under way", self.refusals.one_more())
    }

    /// Asks the machine, and answers each of the questions.
    pub(super) async fn read(&mut self, mut reads: Vec<Lookup>, mut phrases: Vec<Phrase>) -> Result<(), End> {
        while !phrases.is_empty() {
            // One alone is answered, or there is an error.
            let asked = if reads.len() == 1 { std::mem::take(&mut reads) } else { reads.clone() };
            let answers = match self.ask(asked).await {
                Ok(answers) => answers,
                Err(error) => return self.repeat_error(&error, phrases.len()).await,
            };
            // What was not answered is asked for again; one that there is no memory for alone is not.
            let done = answers.len().max(1);
            reads.drain(..done.min(reads.len()));
            if answers.is_empty() {
                self.repeat_error(NO_ROOM, 1).await?;
            }
            self.count(&answers);
            for (found, phrase) in answers.iter().zip(phrases.drain(..done)) {
                match found {
                    // Up to MAX_ANSWER bytes: they leave piece by piece.
                    Found::Values(values) => self.answer_values(values, &phrase).await?,
                    _ => commands::answer_read(found, &phrase, &mut self.replies),
                }
                // A look at each is cheaper than a future for each.
                if self.has_many() {
                    self.send_many().await?;
                }
            }
            self.fetched = 0;
        }
        Ok(())
    }

    /// Asks the machine, in the database that was chosen. As many answers come, from the first question on, as there is memory
    /// for. The error is the text of a reply.
    pub(super) async fn ask(&mut self, mut reads: Vec<Lookup>) -> Result<Vec<Found>, String> {
        let Some(passed) = self.shared.pass(self.place.whose(), 0).await else { return Err(self.refused()) };
        self.refusals.end();
        let count = reads.len();
        let limit = self.shared.timeout;
        if self.session.database != 0 {
            reads.insert(0, Lookup::In(self.session.database));
        }
        if let Some(by) = self.access.by() {
            reads.insert(0, Lookup::As(by));
        }
        let answers = self.shared.node.read_retrying(reads, limit).await;
        self.shared.about.served.reads.took(passed.end());
        let mut answers: Vec<Found> = answers.map_err(|error| self.told(failures::of_read(&error, limit)))?;
        if !(1..=count).contains(&answers.len()) {
            return Err("ERR the machine answered nothing".to_owned());
        }
        let mut fit = answers.len();
        while !self.owe(answers[..fit].iter().map(Found::bytes).sum()) && fit > 0 {
            fit /= 2;
        }
        answers.truncate(fit);
        Ok(answers)
    }

    /// Notes how many keys were looked for, and found.
    fn count(&self, answers: &[Found]) {
        let (mut all, mut found) = (0, 0);
        for answer in answers {
            match answer {
                Found::Value(value) => (all, found) = (all + 1, found + usize::from(value.is_some())),
                Found::Values(values) => {
                    (all, found) = (all + values.len(), found + values.iter().flatten().count());
                }
                _ => {}
            }
        }
        self.shared.about.served.looked(all, found);
    }

    async fn answer_values(&mut self, values: &[Option<Value>], phrase: &Phrase) -> Result<(), End> {
        self.replies.array(values.len());
        for value in values {
            commands::answer_value(value.as_ref(), phrase, &mut self.replies);
            self.send_if_many().await?;
        }
        Ok(())
    }

    /// All of a batch comes to this.
    pub(super) async fn repeat_error(&mut self, error: &str, times: usize) -> Result<(), End> {
        self.shared.about.served.failed();
        for _ in 0..times {
            self.replies.error(error);
            self.send_if_many().await?;
        }
        Ok(())
    }
}
