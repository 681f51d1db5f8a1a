//! Who may do what: the users, as the machine holds them.
//!
//! They are part of what is replicated, so every node knows the same ones at the same entry, and `apply` judges a
//! write by the rights that hold at its very place in the log. Nothing here knows a password: a user has a hash
//! ([`passwords`](crate::passwords) makes it and compares), which the machine keeps and never computes.
//!
//! While there are no users nobody has to say who it is. The first user is an administrator, and there is one as long
//! as there is anybody.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use xxhash_rust::xxh3::xxh3_128;

/// The most users: those of a company's services. All of them together are at most 5 MiB.
pub const MAX_USERS: usize = 1000;

/// The longest name, in bytes.
pub const MAX_NAME: usize = 64;

/// The longest hash of a password, in bytes: ours have 97.
pub const MAX_HASH: usize = 128;

/// The most prefixes of a user: each key of each of its commands is compared with all of them.
pub const MAX_PREFIXES: usize = 16;

/// The longest prefix, in bytes.
pub const MAX_PREFIX: usize = 256;

/// What a user may do. Each role may do what those before it may.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, clap::ValueEnum)]
pub enum Role {
    /// Read keys
    Read,
    /// Read and write keys
    Write,
    /// Read and write keys, change the cluster, take backups and manage users
    Admin,
}

impl Role {
    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Write => "write",
            Role::Admin => "admin",
        }
    }

    /// The role of this word, in whatever case.
    pub fn named(word: &str) -> Option<Role> {
        [Role::Read, Role::Write, Role::Admin].into_iter().find(|role| role.name().eq_ignore_ascii_case(word))
    }

    /// Its number, where bytes are kept.
    pub(crate) fn code(self) -> u8 {
        match self {
            Role::Read => 1,
            Role::Write => 2,
            Role::Admin => 3,
        }
    }

    pub(crate) fn of_code(code: u8) -> Option<Role> {
        [Role::Read, Role::Write, Role::Admin].into_iter().find(|role| role.code() == code)
    }
}

/// What a user may do, and with which keys.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rights {
    /// What.
    pub role: Role,
    /// Only with keys that begin with one of these; none: with all keys.
    pub prefixes: Vec<Bytes>,
}

impl Rights {
    fn allow<'a>(&self, role: Role, mut keys: impl Iterator<Item = &'a [u8]>) -> bool {
        let within = |key: &[u8]| self.prefixes.iter().any(|prefix| key.starts_with(prefix));
        self.role >= role && (self.prefixes.is_empty() || keys.all(within))
    }

    fn fits(&self) -> bool {
        let fits = |prefix: &Bytes| (1..=MAX_PREFIX).contains(&prefix.len());
        self.prefixes.len() <= MAX_PREFIXES && self.prefixes.iter().all(fits)
    }
}

/// The hash of a password, in PHC string form. Whoever has it can try passwords, so it shows itself to nobody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hash(pub Bytes);

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// A user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// Of its password.
    pub hash: Hash,
    /// What it may do.
    pub rights: Rights,
    /// The [version](Users::version) in which it came to be, or was given another password. Whoever was let in before that
    /// was somebody else.
    pub since: u64,
}

/// In whose name something is asked of the machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum By {
    /// The cluster's own: whoever knows its join token, or has the certificate of one of its nodes. May do everything.
    Cluster,
    /// A user's.
    User {
        /// Its name.
        name: Bytes,
        /// The [version](Users::version) of the users in which it was found to be this one.
        version: u64,
    },
}

/// Why something was not done. Nothing was changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// There are users, and it was asked in nobody's name, or in the name of one that there is no more.
    Nobody,
    /// The role is another one.
    Role,
    /// A key begins with none of the user's prefixes.
    Key,
    /// There is a user of this name.
    Known,
    /// There is no user of this name.
    Unknown,
    /// There are [`MAX_USERS`].
    TooMany,
    /// The first user must be an administrator, and the last one cannot go, or become less, before all others went.
    LastAdmin,
    /// The name, the hash or a prefix is not as it must be.
    Malformed,
}

impl Refusal {
    const ALL: [Refusal; 8] = [
        Refusal::Nobody,
        Refusal::Role,
        Refusal::Key,
        Refusal::Known,
        Refusal::Unknown,
        Refusal::TooMany,
        Refusal::LastAdmin,
        Refusal::Malformed,
    ];

    /// Its number, where bytes are kept.
    pub(crate) fn code(self) -> u8 {
        Refusal::ALL.iter().position(|one| *one == self).map_or(0, |at| at as u8 + 1)
    }

    pub(crate) fn of_code(code: u8) -> Option<Refusal> {
        Refusal::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }
}

impl fmt::Display for Refusal {
    /// As an error reply. The first words are redis's own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Nobody => f.write_str("NOAUTH Authentication required."),
            Refusal::Role => f.write_str("NOPERM this user has no permissions to run this command"),
            Refusal::Key => f.write_str("NOPERM No permissions to access a key"),
            Refusal::Known => f.write_str("ERR there is a user of this name already: change it by GRANT or PASSWORD"),
            Refusal::Unknown => f.write_str("ERR there is no user of this name"),
            Refusal::TooMany => write!(f, "ERR there are {MAX_USERS} users, and cannot be more"),
            Refusal::LastAdmin => f.write_str(
                "ERR there must be a user of the role admin as long as there are users: make another one admin first",
            ),
            Refusal::Malformed => write!(
                f,
                "ERR a name has 1 to {MAX_NAME} letters, digits, dots, dashes and underscores, a hash at most {MAX_HASH} bytes, \
                 and there are at most {MAX_PREFIXES} prefixes of 1 to {MAX_PREFIX} bytes"
            ),
        }
    }
}

/// Whether a user may be called so.
pub fn is_name(name: &[u8]) -> bool {
    let may = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    (1..=MAX_NAME).contains(&name.len()) && name.iter().all(may)
}

/// All users.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Users {
    users: BTreeMap<Bytes, User>,
    version: u64,
}

impl Users {
    /// Whether there are none, and so nobody has to say who it is.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// How many changes of users there were: 0 where there never were any.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The user of this name.
    pub fn get(&self, name: &[u8]) -> Option<&User> {
        self.users.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Bytes, &User)> {
        self.users.iter()
    }

    /// Whether somebody may do what takes this role, with these keys.
    pub fn judge<'a>(
        &self,
        by: Option<&By>,
        role: Role,
        keys: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), Refusal> {
        if self.is_empty() {
            return Ok(());
        }
        let user = match by {
            None => return Err(Refusal::Nobody),
            Some(By::Cluster) => return Ok(()),
            Some(By::User { name, version }) => self.get(name).filter(|user| user.since <= *version),
        };
        let rights = &user.ok_or(Refusal::Nobody)?.rights;
        match rights.role >= role {
            false => Err(Refusal::Role),
            true if !rights.allow(role, keys) => Err(Refusal::Key),
            true => Ok(()),
        }
    }

    /// A new user.
    pub(crate) fn add(&mut self, name: &[u8], hash: &Hash, rights: &Rights) -> Result<(), Refusal> {
        if self.users.contains_key(name) {
            return Err(Refusal::Known);
        }
        if self.users.len() >= MAX_USERS {
            return Err(Refusal::TooMany);
        }
        self.put(name, Some(User { hash: hash.clone(), rights: rights.clone(), since: self.version + 1 }))
    }

    /// A user goes, and whoever is connected as this one is nobody from its next command on.
    pub(crate) fn remove(&mut self, name: &[u8]) -> Result<(), Refusal> {
        self.known(name)?;
        self.put(name, None)
    }

    /// Other rights. Whoever is connected as this user has them from its next command on.
    pub(crate) fn grant(&mut self, name: &[u8], rights: &Rights) -> Result<(), Refusal> {
        let user = User { rights: rights.clone(), ..self.known(name)?.clone() };
        self.put(name, Some(user))
    }

    /// Another password. Whoever is connected as this user has to say again who it is.
    pub(crate) fn give_password(&mut self, name: &[u8], hash: &Hash) -> Result<(), Refusal> {
        let user = User { hash: hash.clone(), since: self.version + 1, ..self.known(name)?.clone() };
        self.put(name, Some(user))
    }

    fn known(&self, name: &[u8]) -> Result<&User, Refusal> {
        self.get(name).ok_or(Refusal::Unknown)
    }

    /// Puts a user in its place, or nobody, if what comes of it is as it must be.
    fn put(&mut self, name: &[u8], user: Option<User>) -> Result<(), Refusal> {
        if !user.as_ref().is_none_or(|user| fits(name, user)) {
            return Err(Refusal::Malformed);
        }
        let others = || self.users.iter().filter(|(other, _)| *other != name).map(|(_, other)| other);
        let mut all = others().chain(&user).peekable();
        if all.peek().is_some() && !all.any(|user| user.rights.role == Role::Admin) {
            return Err(Refusal::LastAdmin);
        }
        // The bytes came in an entry, of which they would keep all.
        let own = Bytes::copy_from_slice;
        match user {
            Some(User { hash, rights: Rights { role, prefixes }, since }) => {
                let rights = Rights { role, prefixes: prefixes.iter().map(|prefix| own(prefix)).collect() };
                self.users.insert(own(name), User { hash: Hash(own(&hash.0)), rights, since });
            }
            None => drop(self.users.remove(name)),
        }
        self.version += 1;
        Ok(())
    }

    /// What was kept in a snapshot.
    pub(crate) fn restored(users: BTreeMap<Bytes, User>, version: u64) -> Option<Users> {
        let known = |user: &User| user.since <= version;
        let right = |(name, user): (&Bytes, &User)| fits(name, user) && known(user);
        (version > 0 && users.iter().all(right)).then_some(Users { users, version })
    }

    /// A digest of all that is here. Costs what is here, so it is taken when that changes.
    pub(crate) fn print(&self) -> u128 {
        let mut bytes = self.version.to_le_bytes().to_vec();
        let mut put = |field: &[u8]| {
            bytes.extend((field.len() as u64).to_le_bytes());
            bytes.extend(field);
        };
        for (name, User { hash, rights, since }) in &self.users {
            put(name);
            put(&hash.0);
            put(&[rights.role.code()]);
            put(&since.to_le_bytes());
            put(&(rights.prefixes.len() as u64).to_le_bytes());
            rights.prefixes.iter().for_each(|prefix| put(prefix));
        }
        xxh3_128(&bytes)
    }
}

fn fits(name: &[u8], user: &User) -> bool {
    is_name(name) && (1..=MAX_HASH).contains(&user.hash.0.len()) && user.rights.fits()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(role: Role, prefixes: &[&'static str]) -> Rights {
        Rights { role, prefixes: prefixes.iter().map(|prefix| Bytes::from(*prefix)).collect() }
    }

    fn add(users: &mut Users, name: &str, role: Role, prefixes: &[&'static str]) -> Result<(), Refusal> {
        users.add(name.as_bytes(), &Hash("hash".into()), &rights(role, prefixes))
    }

    fn by(name: &'static str, version: u64) -> Option<By> {
        Some(By::User { name: name.into(), version })
    }

    fn may(users: &Users, by: &Option<By>, role: Role, keys: &[&str]) -> Result<(), Refusal> {
        users.judge(by.as_ref(), role, keys.iter().map(|key| key.as_bytes()))
    }

    #[test]
    fn each_role_may_what_those_before_it_may_with_its_keys() {
        let mut users = Users::default();
        assert_eq!(may(&users, &None, Role::Admin, &["k"]), Ok(()), "nobody has to say who it is");
        add(&mut users, "root", Role::Admin, &[]).unwrap();
        add(&mut users, "reads", Role::Read, &["a:", "b:"]).unwrap();
        add(&mut users, "writes", Role::Write, &["a:"]).unwrap();
        let version = users.version();
        assert_eq!(version, 3);
        for (who, role, keys, verdict) in [
            (None, Role::Read, &["a:1"][..], Err(Refusal::Nobody)),
            (Some(By::Cluster), Role::Admin, &["x"], Ok(())),
            (by("root", 1), Role::Admin, &["x"], Ok(())),
            (by("reads", version), Role::Read, &["a:1", "b:1"], Ok(())),
            (by("reads", version), Role::Read, &["a:1", "c:1"], Err(Refusal::Key)),
            (by("reads", version), Role::Read, &["a"], Err(Refusal::Key)),
            (by("reads", version), Role::Write, &["a:1"], Err(Refusal::Role)),
            (by("writes", version), Role::Read, &["a:1"], Ok(())),
            (by("writes", version), Role::Write, &["a:1"], Ok(())),
            (by("writes", version), Role::Write, &["b:1"], Err(Refusal::Key)),
            (by("writes", version), Role::Admin, &[], Err(Refusal::Role)),
            (by("gone", version), Role::Read, &[], Err(Refusal::Nobody)),
        ] {
            assert_eq!(may(&users, &who, role, keys), verdict, "{who:?} {role:?} {keys:?}");
        }
    }

    #[test]
    fn whoever_was_let_in_before_a_password_changed_or_a_name_was_given_anew_is_somebody_else() {
        let mut users = Users::default();
        add(&mut users, "root", Role::Admin, &[]).unwrap();
        add(&mut users, "ann", Role::Read, &[]).unwrap();
        let before = by("ann", users.version());
        users.grant(b"ann", &rights(Role::Write, &[])).unwrap();
        assert_eq!(may(&users, &before, Role::Write, &["k"]), Ok(()), "other rights, and the same one");
        users.give_password(b"ann", &Hash("other".into())).unwrap();
        assert_eq!(may(&users, &before, Role::Read, &["k"]), Err(Refusal::Nobody));
        let before = by("ann", users.version());
        assert_eq!(may(&users, &before, Role::Write, &["k"]), Ok(()));
        users.remove(b"ann").unwrap();
        assert_eq!(may(&users, &before, Role::Read, &["k"]), Err(Refusal::Nobody));
        add(&mut users, "ann", Role::Admin, &[]).unwrap();
        assert_eq!(may(&users, &before, Role::Read, &["k"]), Err(Refusal::Nobody));
        assert_eq!(may(&users, &by("ann", users.version()), Role::Admin, &["k"]), Ok(()));
    }

    #[test]
    fn as_long_as_there_is_anybody_there_is_an_administrator() {
        let mut users = Users::default();
        assert_eq!(add(&mut users, "ann", Role::Write, &[]), Err(Refusal::LastAdmin));
        add(&mut users, "root", Role::Admin, &[]).unwrap();
        assert_eq!(users.grant(b"root", &rights(Role::Write, &[])), Err(Refusal::LastAdmin));
        add(&mut users, "ann", Role::Write, &[]).unwrap();
        let before = users.clone();
        assert_eq!(users.remove(b"root"), Err(Refusal::LastAdmin));
        assert_eq!(users, before, "a refusal changes nothing");
        users.grant(b"ann", &rights(Role::Admin, &["a:"])).unwrap();
        users.remove(b"root").unwrap();
        users.remove(b"ann").unwrap();
        assert!(users.is_empty() && users.version() == 5);
    }

    #[test]
    fn names_hashes_and_prefixes_have_their_limits() {
        let mut users = Users::default();
        add(&mut users, "root", Role::Admin, &[]).unwrap();
        for name in ["", "a b", "a:b", "ä", "(node 1)", &"x".repeat(MAX_NAME + 1)] {
            assert_eq!(add(&mut users, name, Role::Read, &[]), Err(Refusal::Malformed), "{name}");
        }
        let plain = rights(Role::Read, &[]);
        for length in [0, MAX_HASH + 1] {
            let hash = Hash(vec![b'x'; length].into());
            assert_eq!(users.add(b"ann", &hash, &plain), Err(Refusal::Malformed));
            assert_eq!(users.give_password(b"root", &hash), Err(Refusal::Malformed));
        }
        for prefixes in
            [vec![Bytes::from("p"); MAX_PREFIXES + 1], vec![Bytes::new()], vec![vec![b'p'; 257].into()]]
        {
            let rights = Rights { role: Role::Read, prefixes };
            assert_eq!(users.add(b"ann", &Hash("h".into()), &rights), Err(Refusal::Malformed));
        }
        for number in 1..MAX_USERS {
            add(&mut users, &format!("user-{number}"), Role::Read, &[]).unwrap();
        }
        assert_eq!(add(&mut users, "one-more", Role::Read, &[]), Err(Refusal::TooMany));
        assert_eq!(
            (users.remove(b"nobody"), users.grant(b"nobody", &plain)),
            (Err(Refusal::Unknown), Err(Refusal::Unknown))
        );
        assert_eq!(add(&mut users, "root", Role::Read, &[]), Err(Refusal::Known));
        assert_eq!(users.iter().len(), MAX_USERS);
    }

    #[test]
    fn the_print_tells_tables_apart_and_no_hash_is_shown() {
        let with = |role, prefixes: &[&'static str], hash: &'static str| {
            let mut users = Users::default();
            users.add(b"root", &Hash(hash.into()), &rights(Role::Admin, &[])).unwrap();
            add(&mut users, "ann", role, prefixes).unwrap();
            users
        };
        let all = [
            with(Role::Read, &[], "hash"),
            with(Role::Write, &[], "hash"),
            with(Role::Read, &["a"], "hash"),
            with(Role::Read, &["a", "b"], "hash"),
            with(Role::Read, &["ab"], "hash"),
            with(Role::Read, &[], "secret"),
            Users::default(),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all[at + 1..].iter().all(|other| other.print() != one.print()), "{at}");
        }
        assert!(!format!("{:?}", all[5]).contains("secret"));
    }
}
