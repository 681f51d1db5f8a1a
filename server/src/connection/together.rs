//! What takes several questions or commands together: transactions, all names, and where all is that was written.

use super::{Connection, End, NO_ROOM};
use crate::commands::{self, Request};
use crate::kv::{Found, Lookup, MAX_ANSWER, MAX_COST, Machine, Operation, Outcome};
use crate::transaction::{Item, Planned};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

/// How many names one question of KEYS looks at.
const NAMES_AT_ONCE: u64 = 1000;

/// For how many bytes of an answer inside a transaction there has to be memory before it is begun.
const LOOKED: usize = 16 << 10;

const TOO_MANY_WATCHED: &str = "ERR a client watches at most 1,024 keys at a time here";

impl<M: Machine, T: AsyncRead + AsyncWrite + Unpin> Connection<M, T> {
    /// Answers WATCH.
    pub(super) async fn watch(&mut self, keys: Vec<Bytes>) {
        if !self.transaction.can_watch(keys.len()) {
            return self.replies.error(TOO_MANY_WATCHED);
        }
        match self.ask(vec![Lookup::Marks(keys.clone())]).await.as_deref() {
            Ok([Found::Marks(marks)]) if marks.len() == keys.len() => {
                self.transaction.watch(self.session.database, keys, marks.clone());
                self.replies.simple("OK");
            }
            Ok([Found::Refused(why)]) => self.replies.error(&why.to_string()),
            Ok(_) => self.replies.error(NO_ROOM),
            Err(error) => self.replies.error(error),
        }
    }

    /// Answers EXEC.
    pub(super) async fn exec(&mut self) -> Result<(), End> {
        let Planned { batch, outcomes: count, guarded, items } = self.transaction.plan(self.session.database);
        // What is found may be more, and is known when it is done; most is little, and much at once is rare.
        let looks = batch.iter().filter(|operation| matches!(operation, Operation::Look(_))).count();
        let reply = batch.iter().map(Operation::reply).sum::<usize>() + (looks * LOOKED).min(MAX_COST);
        let outcomes = match count {
            0 => Vec::new(),
            _ => match self.propose(batch, reply).await {
                Ok(outcomes) => outcomes,
                Err(error) => return self.repeat_error(&error, 1).await,
            },
        };
        let bytes = outcomes.iter().map(Outcome::bytes).sum();
        if bytes > reply && !self.owe(bytes) {
            // It is done and cannot be told: whoever asks again finds out.
            return Err(End::Gone);
        }
        let void = guarded && outcomes == [Outcome::Nothing];
        if void {
            self.replies.no_array();
        } else if outcomes.len() != count {
            let error = format!("UNKNOWN {} outcomes came for {count} commands", outcomes.len());
            self.repeat_error(&error, 1).await?;
        } else {
            let mut outcomes = outcomes.into_iter().skip(usize::from(guarded));
            self.replies.array(items.len());
            for item in items {
                self.answer_item(item, &mut outcomes);
                self.send_if_many().await?;
            }
        }
        self.fetched = 0;
        self.send_if_many().await
    }

    fn answer_item(&mut self, item: Item, outcomes: &mut impl Iterator<Item = Outcome>) {
        match item {
            Item::Outcome(phrase) => {
                let outcome = outcomes.next().unwrap_or(Outcome::Nothing);
                commands::answer_write(&outcome, &phrase, &mut self.replies);
            }
            Item::Local(Request::Session(name, command)) => {
                self.session.answer(name, &command, &mut self.replies);
            }
            Item::Local(Request::Select(database)) => {
                self.session.database = database;
                self.replies.simple("OK");
            }
            Item::Local(Request::Refuse(error)) => self.replies.error(&error),
            Item::Local(_) => self.replies.simple("OK"),
        }
    }

    /// Answers KEYS: the machine is asked for some names at a time, so that all others have their turns.
    pub(super) async fn keys(&mut self, pattern: Bytes) -> Result<(), End> {
        let (mut all, mut bytes, mut cursor) = (Vec::new(), 0, 0);
        loop {
            let pattern = Some(Box::new(pattern.clone()));
            let page = Lookup::Scan { cursor, count: NAMES_AT_ONCE, pattern, kind: None };
            let answers = self.ask(vec![page]).await;
            let (next, names) = match answers.map(|mut answers| answers.pop()) {
                Ok(Some(Found::Page { next, names })) => (next, names),
                Ok(Some(Found::Refused(why))) => return self.repeat_error(&why.to_string(), 1).await,
                Ok(_) => return self.repeat_error(NO_ROOM, 1).await,
                Err(error) => return self.repeat_error(&error, 1).await,
            };
            bytes += names.iter().map(|name| name.len() + size_of::<Bytes>()).sum::<usize>();
            all.extend(names);
            if bytes > MAX_ANSWER {
                let error = format!("ERR the names are over {MAX_ANSWER} bytes together; use SCAN");
                return self.repeat_error(&error, 1).await;
            }
            if !self.owe(bytes) {
                return self.repeat_error(NO_ROOM, 1).await;
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
            tokio::task::yield_now().await;
        }
        self.replies.array(all.len());
        for name in all {
            self.replies.bulk(&name);
            self.send_if_many().await?;
        }
        self.fetched = 0;
        Ok(())
    }

    /// Answers WAIT: what was answered is on a majority, whatever number is asked for.
    pub(super) async fn wait(&mut self) {
        match self.shared.node.status().await {
            Ok(status) => {
                let voters = status.members.iter().filter(|member| member.voter).count();
                self.replies.number((voters / 2) as i64);
            }
            Err(reason) => self.replies.error(&format!("CLUSTERDOWN {reason}")),
        }
    }
}
