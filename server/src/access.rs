//! Who a connection is, and what it may have done.
//!
//! A client is nobody at first, or whom its certificate names, and says who it is by AUTH, by HELLO, or by `CORACLE TOKEN`.
//! Each command is looked at before it goes in, by the users that the machine of this node has; what is done to keys and
//! users is looked at again by the machine itself, at its place in the log. Whoever was removed is nobody from its next
//! command on.
//!
//! While there are no users, everybody may do everything who gets in: in *protected mode* those are clients on this computer,
//! and those that show a certificate or the join token. A node that has just started and has no users may only not know
//! of them yet. So nothing but its status is given out before its machine has come as far as the cluster had.
//!
//! The common case, no users and nobody to keep out, costs one look at a number.

use crate::commands::Request;
use crate::kv::{Lookup, Machine};
use crate::members::{NOT_LEADER, WRONG_TOKEN};
use crate::passwords::{Checker, Login};
use crate::resp::Command;
use crate::roster::Roster;
use crate::secret::Secret;
use crate::users::{By, Refusal, Role, User, Users};
use bytes::Bytes;
use coracle::Node;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Whom `AUTH password` means, as in redis.
const DEFAULT: &[u8] = b"default";

/// How long a command waits at most until it is known whether there are users.
const CONFIRM: Duration = Duration::from_secs(2);

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";

const NO_PASSWORD: &str = "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?";

const DENIED: &str = "DENIED Coracle is running in protected mode because there are no users. In this mode connections are only accepted from \
the loopback interface. If you want to connect from external computers, add a user (on this computer, by 'coracle users add'), let \
clients show certificates (--client-certs required), or start the server with --open-without-users: then whoever reaches this port may do \
everything.";

const UNSURE: &str =
    "this node has not heard of a leader since its start, and does not know yet whether there are users";

/// What the connections of a server share of this.
#[derive(Default)]
pub struct Rules {
    /// The users.
    pub roster: Roster,
    /// What whoever changes the membership must know, if anything.
    pub token: Option<Secret>,
    /// Whether clients on other computers get in without users, and without showing anything.
    pub open: bool,
    /// Compares passwords.
    pub checker: Checker,
}

/// Who a client is.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Caller {
    Nobody,
    /// Whoever knows the join token.
    Token,
    /// A node of the cluster, by its certificate.
    Node(u64),
    /// A client of the cluster, by its certificate: the user of this name, if there is one.
    Certified(Bytes),
    /// Who gave the password of this user, when the users had this version.
    User(Bytes, u64),
}

impl Caller {
    fn certified(shown: Option<&coracle::Role>) -> Caller {
        match shown {
            Some(coracle::Role::Node(id)) => Caller::Node(id.0),
            Some(coracle::Role::Client(name)) => Caller::Certified(Bytes::copy_from_slice(name.as_bytes())),
            None => Caller::Nobody,
        }
    }
}

/// What becomes of a command.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It goes on.
    May,
    /// It is answered by this error.
    Refused(String),
    /// The same, and the connection ends.
    Ends(&'static str),
}

/// What a command takes.
#[derive(PartialEq, Eq, Debug)]
enum Need {
    /// Nothing: greetings, and what is answered by an error or goodbye.
    Nothing,
    /// To be somebody.
    User,
    /// This right on the keys that it names.
    Keys(Role),
    /// To be an administrator.
    Admin,
    /// The same, but it is answered while nobody can know whether there are users: without it, nodes that have moved would
    /// not find each other.
    Status,
}

impl Need {
    fn of(request: &Request) -> Need {
        match request {
            Request::Login(_)
            | Request::Hello(_)
            | Request::Quit
            | Request::Refuse(_)
            | Request::Reject(_)
            | Request::Queued
            | Request::Done => Need::Nothing,
            Request::Session("ping" | "reset", _) => Need::Nothing,
            Request::Session("client", command) if command.is(1, "list") || command.is(1, "kill") => {
                Need::Admin
            }
            Request::Session("config", command) if command.is(1, "set") => Need::Admin,
            Request::Multi | Request::Exec | Request::Discard | Request::Unwatch => Need::User,
            Request::Session(..) | Request::Acl(_) | Request::Select(_) | Request::Wait => Need::User,
            Request::Write(write, _) => Need::Keys(write.role()),
            Request::Read(..) | Request::Keys(_) | Request::Watch(_) => Need::Keys(Role::Read),
            Request::Admin(command) if command.is(1, "token") => Need::Nothing,
            Request::Admin(command) if command.is(1, "health") => Need::User,
            Request::Admin(command) if command.is(1, "status") || command.is(1, "snapshot") => Need::Status,
            Request::Admin(_) => Need::Admin,
        }
    }
}

/// One connection's.
pub(crate) struct Access {
    rules: Arc<Rules>,
    from: IpAddr,
    shown: Option<coracle::Role>,
    caller: Caller,
    /// The users as they were seen last.
    users: Arc<Users>,
    edition: u64,
}

impl Access {
    /// That of a client from there, which has shown the certificate of somebody, if it has.
    pub(crate) fn new(rules: &Arc<Rules>, from: IpAddr, shown: Option<coracle::Role>) -> Access {
        let caller = Caller::certified(shown.as_ref());
        Access { rules: rules.clone(), from, shown, caller, users: Arc::default(), edition: 0 }
    }

    /// Whether nothing is to be looked at for a command of keys.
    pub(crate) fn is_free(&self) -> bool {
        self.rules.roster.edition() == 0 && self.gets_in()
    }

    /// Whether it gets in without users. Addresses of version 4 in those of 6 count as what they are.
    fn gets_in(&self) -> bool {
        let shows = matches!(self.caller, Caller::Token | Caller::Node(_) | Caller::Certified(_));
        self.rules.open || self.is_local() || shows
    }

    fn is_local(&self) -> bool {
        self.from.to_canonical().is_loopback()
    }

    fn look(&mut self) {
        let edition = self.rules.roster.edition();
        if edition != self.edition {
            (self.edition, self.users) = (edition, self.rules.roster.users());
        }
    }

    /// In whose name it asks the machine; nothing while there are no users.
    pub(crate) fn by(&self) -> Option<By> {
        if self.users.is_empty() {
            return None;
        }
        match &self.caller {
            Caller::Nobody => None,
            Caller::Token | Caller::Node(_) => Some(By::Cluster),
            Caller::Certified(name) => Some(By::User { name: name.clone(), version: self.users.version() }),
            Caller::User(name, version) => Some(By::User { name: name.clone(), version: *version }),
        }
    }

    /// The user that it is, if it is one.
    fn user(&self) -> Option<(&Bytes, &User)> {
        let (name, version) = match &self.caller {
            Caller::Certified(name) => (name, self.users.version()),
            Caller::User(name, version) => (name, *version),
            _ => return None,
        };
        self.users.get(name).filter(|user| user.since <= version).map(|user| (name, user))
    }

    /// The name of the user that it is now, if it is one.
    pub(crate) fn user_name(&mut self) -> Option<&Bytes> {
        self.look();
        self.user().map(|(name, _)| name)
    }

    /// Whether it may change the cluster without saying the token.
    pub(crate) fn is_admin(&self) -> bool {
        match self.caller {
            Caller::Token | Caller::Node(_) => true,
            _ => self.user().is_some_and(|(_, user)| user.rights.role == Role::Admin),
        }
    }

    /// Whether it may change users if there are any. The first one is added on this computer; where there is a join token,
    /// by whoever knows it.
    pub(crate) fn may_begin(&self) -> bool {
        !self.users.is_empty() || self.is_admin() || self.rules.token.is_none() && self.is_local()
    }

    /// The users as they are in the cluster now, if that can be found out, and as this node knows them otherwise.
    pub(crate) async fn all<M: Machine>(&mut self, node: &Node<M>, limit: Duration) -> Arc<Users> {
        newest(node, &self.rules.roster, limit).await;
        self.look();
        self.users.clone()
    }

    /// What it is called.
    pub(crate) fn name(&self) -> String {
        match &self.caller {
            Caller::Token => "(join token)".to_owned(),
            Caller::Node(id) => format!("(node {id})"),
            _ => {
                let name = self.user().map_or(DEFAULT, |(name, _)| name);
                String::from_utf8_lossy(name).into_owned()
            }
        }
    }

    /// It is again who it was at first.
    pub(crate) fn reset(&mut self) {
        self.caller = Caller::certified(self.shown.as_ref());
    }

    /// Whether a command may go on; nothing where this node does not know yet: [`Access::ask`].
    pub(crate) fn judge(&mut self, request: &Request) -> Option<Verdict> {
        let need = Need::of(request);
        self.look();
        if !self.users.is_empty() {
            return Some(self.by_rights(&need, request));
        }
        let matters = !self.gets_in() || need == Need::Admin && !self.is_admin();
        let sure = !matters || self.rules.roster.is_complete();
        sure.then(|| self.without_users(&need, request, sure))
    }

    /// The same, after it has found out whether there are users, if that can be done.
    pub(crate) async fn ask<M: Machine>(
        &mut self,
        node: &Node<M>,
        limit: Duration,
        request: &Request,
    ) -> Verdict {
        let sure = newest(node, &self.rules.roster, limit).await;
        let need = Need::of(request);
        self.look();
        match self.users.is_empty() {
            true => self.without_users(&need, request, sure),
            false => self.by_rights(&need, request),
        }
    }

    fn by_rights(&self, need: &Need, request: &Request) -> Verdict {
        match *need {
            Need::Nothing => Verdict::May,
            Need::Keys(role) => match request {
                Request::Write(write, _) => self.right(role, write.keys()),
                Request::Read(read, _) => self.right(role, read.keys().iter().map(|key| &key[..])),
                Request::Watch(keys) => self.right(role, keys.iter().map(|key| &key[..])),
                _ => self.right(role, std::iter::empty()),
            },
            Need::User => match self.is_admin() || self.user().is_some() {
                true => Verdict::May,
                false => Verdict::Refused(Refusal::Nobody.to_string()),
            },
            Need::Admin | Need::Status => self.right(Role::Admin, std::iter::empty()),
        }
    }

    fn without_users(&self, need: &Need, request: &Request, sure: bool) -> Verdict {
        let shows = matches!(request, Request::Admin(command) if command.is(1, "token"))
            && self.rules.token.is_some();
        match (sure, need) {
            (true, _) if self.gets_in() || shows => Verdict::May,
            (true, _) => Verdict::Ends(DENIED),
            (false, Need::Nothing) => Verdict::May,
            // So that whoever asks for a change goes on to another node.
            (false, _) => Verdict::Refused(format!("{NOT_LEADER} ? {UNSURE}")),
        }
    }

    fn right<'a>(&self, role: Role, keys: impl Iterator<Item = &'a [u8]>) -> Verdict {
        match self.users.judge(self.by().as_ref(), role, keys) {
            Ok(()) => Verdict::May,
            Err(why) => Verdict::Refused(self.told(why)),
        }
    }

    /// A refusal, with what this user would have to know.
    fn told(&self, why: Refusal) -> String {
        match (why, self.user()) {
            (Refusal::Role, Some((name, user))) => format!(
                "NOPERM User {} has no permissions to run this command: its role is {}",
                String::from_utf8_lossy(name),
                user.rights.role.name()
            ),
            _ => why.to_string(),
        }
    }

    /// Has the client be who it says that it is, if that is so; it stays who it was otherwise. The error is the text of a
    /// reply.
    pub(crate) async fn log_in<M: Machine>(
        &mut self,
        node: &Node<M>,
        limit: Duration,
        login: Login,
    ) -> Result<(), &'static str> {
        // A user that was just added at another node is known here, too.
        let sure = newest(node, &self.rules.roster, limit).await;
        self.look();
        if self.users.is_empty() {
            return match login.user.as_deref() {
                _ if !sure => {
                    Err("CLUSTERDOWN this node does not know yet whether there are users; try again later")
                }
                None => Err(NO_PASSWORD),
                Some(DEFAULT) => Ok(()),
                Some(_) => Err(WRONG_PASSWORD),
            };
        }
        let name = login.user.unwrap_or(Bytes::from_static(DEFAULT));
        let version = self.users.version();
        let hash = self.users.get(&name).map(|user| user.hash.clone());
        match self.rules.checker.check(self.from, hash, login.password).await? {
            true => self.caller = Caller::User(name, version),
            false => return Err(WRONG_PASSWORD),
        }
        Ok(())
    }

    /// `CORACLE TOKEN secret`: has the client be the cluster's own. The error is the text of a reply.
    pub(crate) fn show_token(&mut self, command: &Command) -> Result<(), &'static str> {
        match &self.rules.token {
            _ if command.len() != 3 => Err("ERR write CORACLE TOKEN secret"),
            None => Err("ERR this node was started without a join token"),
            Some(token) if *token == Secret::new(command.argument(2)) => {
                self.caller = Caller::Token;
                Ok(())
            }
            Some(_) => Err(WRONG_TOKEN),
        }
    }
}

/// Waits until the machine of this node is known to have come as far as the cluster has now. Whether it has.
async fn newest<M: Machine>(node: &Node<M>, roster: &Roster, limit: Duration) -> bool {
    let Ok(status) = node.status().await else { return false };
    // A blank node has no users, and a machine that has stopped learns of no others.
    if status.cluster.is_none() || status.machine_stopped.is_some() || status.fenced.is_some() {
        return true;
    }
    let seen = node.read_retrying(Vec::<Lookup>::new(), limit.min(CONFIRM)).await.is_ok();
    if seen {
        roster.now_complete();
    }
    seen
}
