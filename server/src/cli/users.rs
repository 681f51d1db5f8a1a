//! `coracle users`: who may do what, where a cluster has users.

use super::To;
use crate::client::{Client, Value, is_not_known, unasked};
use crate::credentials::{PASSWORD, given};
use crate::failures::NOT_DONE;
use crate::passwords;
use crate::user_commands::Listed;
use crate::users::{self, Role};
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Where the password is that a user is given, if no file has it.
const NEW_PASSWORD: &str = "CORACLE_NEW_PASSWORD";

/// How long an answer may take: longer than a request does.
const LIMIT: Duration = Duration::from_secs(60);

/// The pause before the next node is asked.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Subcommand)]
pub(super) enum Users {
    /// Add a user; the first one is an admin, and is added on the computer of a node
    Add {
        #[command(flatten)]
        to: To,
        /// Its name
        #[arg(value_parser = name)]
        name: String,
        #[command(flatten)]
        rights: Rights,
        #[command(flatten)]
        password: NewPassword,
    },
    /// Give a user another role and other keys, in the place of those that it has
    Grant {
        #[command(flatten)]
        to: To,
        /// Its name
        #[arg(value_parser = name)]
        name: String,
        #[command(flatten)]
        rights: Rights,
    },
    /// Give a user another password
    Password {
        #[command(flatten)]
        to: To,
        /// Its name
        #[arg(value_parser = name)]
        name: String,
        #[command(flatten)]
        password: NewPassword,
    },
    /// Remove a user; the last admin goes last
    Remove {
        #[command(flatten)]
        to: To,
        /// Its name
        #[arg(value_parser = name)]
        name: String,
    },
    /// Show all users
    List {
        #[command(flatten)]
        to: To,
    },
}

#[derive(Args)]
pub(super) struct Rights {
    /// What it may do
    #[arg(long, value_enum)]
    role: Role,
    /// With which keys: those that begin so; may be said again. With all of them, if it is omitted
    #[arg(long = "prefix", value_name = "BEGINNING")]
    prefixes: Vec<String>,
}

impl Rights {
    fn words(self) -> impl Iterator<Item = Vec<u8>> {
        let role = self.role.name().to_owned();
        [role].into_iter().chain(self.prefixes).map(String::into_bytes)
    }
}

/// The password that a user is given.
#[derive(Args)]
pub(super) struct NewPassword {
    /// The file with the user's password; without one it is taken from CORACLE_NEW_PASSWORD, and where --user is not given, from --password-file or CORACLE_PASSWORD
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
}

impl NewPassword {
    /// Its hash.
    fn hashed(&self, to: &To) -> Result<Vec<u8>, String> {
        let login = to.credentials.login();
        let password = match given(self.new_password_file.as_ref(), NEW_PASSWORD)? {
            None if !login.names_a_user() => login.password()?,
            password => password,
        };
        let missing = || {
            format!(
                "no password for the user: give it by --new-password-file or in {NEW_PASSWORD}, or, without --user, by \
                 --password-file or in {PASSWORD}"
            )
        };
        let hash = passwords::hash(&password.ok_or_else(missing)?)?;
        Ok(hash.0.to_vec())
    }
}

impl Users {
    pub(super) fn run(self) -> Result<(), String> {
        let word = |word: &str| word.as_bytes().to_vec();
        let (to, words, done) = match self {
            Users::Add { to, name, rights, password } => {
                let mut words = vec![word("ADD"), word(&name)];
                let mut rights = rights.words();
                words.extend(rights.next());
                words.push(password.hashed(&to)?);
                words.extend(rights);
                (to, words, format!("user {name} was added"))
            }
            Users::Grant { to, name, rights } => {
                let words = [word("GRANT"), word(&name)].into_iter().chain(rights.words()).collect();
                (to, words, format!("user {name} has other rights"))
            }
            Users::Password { to, name, password } => {
                let words = vec![word("PASSWORD"), word(&name), password.hashed(&to)?];
                (to, words, format!("user {name} has another password"))
            }
            Users::Remove { to, name } => {
                (to, vec![word("REMOVE"), word(&name)], format!("user {name} was removed"))
            }
            Users::List { to } => (to, vec![word("LIST")], String::new()),
        };
        to.credentials.apply()?;
        match ask(&to, &words)? {
            Value::Simple(_) => to.tell(&done),
            Value::Bulk(json) => show(&json, to.json),
            _ => Err("the node gave an answer that is none to this command: is it a node of Coracle?".into()),
        }
    }
}

/// Asks the nodes, one after the other, until one has done it. Whatever may have been done is not asked for again.
fn ask(to: &To, words: &[Vec<u8>]) -> Result<Value, String> {
    let mut command: Vec<&[u8]> = vec![b"CORACLE", b"USERS"];
    command.extend(words.iter().map(Vec::as_slice));
    let until = Instant::now() + to.wait;
    let mut next = 0;
    loop {
        let address = &to.to[next % to.to.len()];
        let problem = match Client::connect(address, LIMIT) {
            Err(error) if is_not_known(&error) => return Err(unasked(address, &error)),
            Err(error) => unasked(address, &error),
            Ok(mut client) => match client.ask(&command) {
                Ok(Value::Error(error)) if NOT_DONE.iter().any(|word| error.starts_with(word)) => {
                    format!("{address}: {error}")
                }
                Ok(Value::Error(error)) => return Err(error),
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    return Err(format!("{}; it may or may not have been done", unasked(address, &error)));
                }
            },
        };
        if Instant::now() >= until {
            return Err(problem);
        }
        next += 1;
        sleep(PAUSE);
    }
}

fn show(json: &[u8], as_it_is: bool) -> Result<(), String> {
    if as_it_is {
        println!("{}", String::from_utf8_lossy(json));
        return Ok(());
    }
    let listed: Vec<Listed> = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    if listed.is_empty() {
        println!("there are no users");
    }
    for Listed { name, role, prefixes } in listed {
        let keys = if prefixes.is_empty() { "all keys".to_owned() } else { prefixes.join(" ") };
        println!("{name} {role}, {keys}");
    }
    Ok(())
}

fn name(word: &str) -> Result<String, String> {
    match users::is_name(word.as_bytes()) {
        true => Ok(word.to_owned()),
        false => {
            Err(format!("a name has 1 to {} letters, digits, dots, dashes and underscores", users::MAX_NAME))
        }
    }
}
