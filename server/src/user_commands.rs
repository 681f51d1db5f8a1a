//! `CORACLE USERS …`: the users, as an operator changes them.
//!
//! ```text
//! CORACLE USERS ADD name role hash [prefix …]    a new user, with the hash of its password
//! CORACLE USERS GRANT name role [prefix …]       other rights
//! CORACLE USERS PASSWORD name hash               another password
//! CORACLE USERS REMOVE name
//! CORACLE USERS LIST                             all of them as JSON, without their hashes
//! ```
//!
//! Passwords are hashed by whoever asks (`coracle users`), so they do not travel for this.

use crate::commands::{unknown_subcommand, wrong_arity};
use crate::kv::Operation;
use crate::passwords::is_hash;
use crate::resp::Command;
use crate::users::{Hash, Rights, Role, Users};
use serde::{Deserialize, Serialize};

/// What somebody hears who may not add the first user.
pub(crate) const NOT_FIRST: &str = "NOPERM the first user is added on the computer of a node, over the loopback interface; where there is \
a join token, by whoever gives it";

/// A user, as it is listed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) role: String,
    /// The beginnings of its keys, as text where they are; none: all keys.
    pub(crate) prefixes: Vec<String>,
}

/// All users, as JSON.
pub(crate) fn list(users: &Users) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let listed = users.iter().map(|(name, user)| Listed {
        name: text(name),
        role: user.rights.role.name().to_owned(),
        prefixes: user.rights.prefixes.iter().map(|prefix| text(prefix)).collect(),
    });
    serde_json::to_string(&listed.collect::<Vec<_>>()).map_err(|error| format!("ERR {error}"))
}

/// The change that a command asks for, or the text of an error reply.
pub(crate) fn change(command: &Command) -> Result<Operation, String> {
    let count = command.len();
    let name = || command.share(3);
    let rights = |from: usize| {
        let role = std::str::from_utf8(command.argument(4)).ok().and_then(Role::named);
        let role = role.ok_or("ERR a role is read, write or admin")?;
        Ok::<_, String>(Rights { role, prefixes: (from..count).map(|at| command.share(at)).collect() })
    };
    let hash =
        |at| match is_hash(command.argument(at)) {
            true => Ok(Hash(command.share(at))),
            false => Err("ERR that is no hash of a password as this cluster makes them: use 'coracle users'"
                .to_owned()),
        };
    let of = |word: &str| command.is(2, word);
    match count {
        6.. if of("add") => Ok(Operation::AddUser { name: name(), hash: hash(5)?, rights: rights(6)? }),
        5.. if of("grant") => Ok(Operation::Grant { name: name(), rights: rights(5)? }),
        5 if of("password") => Ok(Operation::GivePassword { name: name(), hash: hash(4)? }),
        4 if of("remove") => Ok(Operation::RemoveUser { name: name() }),
        _ if ["add", "grant", "password", "remove", "list"].into_iter().any(of) => {
            Err(wrong_arity(&format!("coracle|users|{}", String::from_utf8_lossy(command.argument(2)))))
        }
        _ => Err(unknown_subcommand(command)),
    }
}
