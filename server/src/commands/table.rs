//! The commands that there are, as COMMAND describes them.

/// A command that the server knows.
pub struct Known {
    /// In lower case.
    pub name: &'static str,
    /// The number of arguments, the name included; negative: at least so many. As in redis.
    pub arity: i64,
    /// What COMMAND says of it.
    pub flags: &'static [&'static str],
    /// The first and last argument that is a key and the step between keys; 0 where there is none.
    pub keys: (i64, i64, i64),
    /// Its kind, as redis's manual sorts commands.
    pub group: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
}

const WRITE: &[&str] = &["write"];
const QUICK_WRITE: &[&str] = &["write", "fast"];
const MORE: &[&str] = &["write", "denyoom"];
const QUICK_MORE: &[&str] = &["write", "denyoom", "fast"];
const READ: &[&str] = &["readonly"];
const QUICK_READ: &[&str] = &["readonly", "fast"];
const LOCAL: &[&str] = &["loading", "stale"];
const QUICK: &[&str] = &["fast", "loading", "stale"];
const GREETING: &[&str] = &["fast", "loading", "stale", "no_auth"];
const ADMIN: &[&str] = &["admin", "loading", "stale"];
const IN_MULTI: &[&str] = &["noscript", "loading", "stale", "fast"];

const NONE: (i64, i64, i64) = (0, 0, 0);
const ONE: (i64, i64, i64) = (1, 1, 1);
const TWO: (i64, i64, i64) = (1, 2, 1);
const ALL: (i64, i64, i64) = (1, -1, 1);
const PAIRS: (i64, i64, i64) = (1, -1, 2);

/// All commands.
pub static COMMANDS: &[Known] = &[
    known("acl", -2, LOCAL, NONE, "server", "ACL WHOAMI says who the client is"),
    known("append", 3, MORE, ONE, "string", "Adds to the end of a string"),
    known("auth", -2, GREETING, NONE, "connection", "Says who the client is"),
    known("client", -2, LOCAL, NONE, "connection", "Tells of connections, names them and ends them"),
    known("command", -1, LOCAL, NONE, "server", "Tells of the commands"),
    known("config", -2, ADMIN, NONE, "server", "Tells how the server is set"),
    known("copy", -3, MORE, TWO, "generic", "Copies a key"),
    known("coracle", -2, ADMIN, NONE, "server", "Tells of the cluster, and changes it"),
    known("dbsize", 1, QUICK_READ, NONE, "server", "Counts the keys of the database"),
    known("decr", 2, QUICK_MORE, ONE, "string", "Takes one from a number"),
    known("decrby", 3, QUICK_MORE, ONE, "string", "Takes so many from a number"),
    known("del", -2, WRITE, ALL, "generic", "Removes keys"),
    known("delex", -2, QUICK_WRITE, ONE, "string", "Removes a key if it has this value, or another one"),
    known("discard", 1, IN_MULTI, NONE, "transactions", "Ends a transaction that is not done"),
    known("echo", 2, QUICK, NONE, "connection", "Answers the same"),
    known("exec", 1, IN_MULTI, NONE, "transactions", "Does a transaction, in one entry of the log"),
    known("exists", -2, QUICK_READ, ALL, "generic", "Counts which of the keys are there"),
    known("expire", -3, QUICK_WRITE, ONE, "generic", "Lets a key end in so many seconds"),
    known("expireat", -3, QUICK_WRITE, ONE, "generic", "Lets a key end at a second since 1970"),
    known("expiretime", 2, QUICK_READ, ONE, "generic", "Tells at which second since 1970 a key ends"),
    known("flushall", -1, WRITE, NONE, "server", "Removes all keys of all databases"),
    known("flushdb", -1, WRITE, NONE, "server", "Removes all keys of the database"),
    known("get", 2, QUICK_READ, ONE, "string", "Tells the value of a string"),
    known("getdel", 2, QUICK_WRITE, ONE, "string", "Removes a string and tells its value"),
    known("getex", -2, QUICK_WRITE, ONE, "string", "Tells the value of a string and lets it end"),
    known("getrange", 4, READ, ONE, "string", "Tells a part of a string"),
    known("getset", 3, QUICK_MORE, ONE, "string", "Sets a string and tells its value before"),
    known("hdel", -3, QUICK_WRITE, ONE, "hash", "Removes fields"),
    known("hello", -1, GREETING, NONE, "connection", "Greets, and chooses a dialect"),
    known("hexists", 3, QUICK_READ, ONE, "hash", "Tells whether a field is there"),
    known("hget", 3, QUICK_READ, ONE, "hash", "Tells the value of a field"),
    known("hgetall", 2, READ, ONE, "hash", "Tells all fields and values"),
    known("hincrby", 4, QUICK_MORE, ONE, "hash", "Adds to a number in a field"),
    known("hincrbyfloat", 4, QUICK_MORE, ONE, "hash", "Adds to a fraction in a field"),
    known("hkeys", 2, READ, ONE, "hash", "Tells all fields"),
    known("hlen", 2, QUICK_READ, ONE, "hash", "Counts the fields"),
    known("hmget", -3, QUICK_READ, ONE, "hash", "Tells the values of fields"),
    known("hmset", -4, QUICK_MORE, ONE, "hash", "Sets fields"),
    known("hrandfield", -2, READ, ONE, "hash", "Tells fields at random"),
    known("hscan", -3, READ, ONE, "hash", "Tells fields and values"),
    known("hset", -4, QUICK_MORE, ONE, "hash", "Sets fields"),
    known("hsetnx", 4, QUICK_MORE, ONE, "hash", "Sets a field that is not there"),
    known("hstrlen", 3, QUICK_READ, ONE, "hash", "Tells the length of a field's value"),
    known("hvals", 2, READ, ONE, "hash", "Tells all values"),
    known("incr", 2, QUICK_MORE, ONE, "string", "Adds one to a number"),
    known("incrby", 3, QUICK_MORE, ONE, "string", "Adds so many to a number"),
    known("incrbyfloat", 3, QUICK_MORE, ONE, "string", "Adds to a fraction"),
    known("info", -1, LOCAL, NONE, "server", "Tells how the server is"),
    known("keys", 2, READ, NONE, "generic", "Tells the names of all keys that fit a pattern"),
    known("mget", -2, QUICK_READ, ALL, "string", "Tells the values of strings"),
    known("move", 3, QUICK_WRITE, ONE, "generic", "Moves a key to another database"),
    known("mset", -3, MORE, PAIRS, "string", "Sets strings"),
    known("msetnx", -3, MORE, PAIRS, "string", "Sets strings of which none is there"),
    known("multi", 1, IN_MULTI, NONE, "transactions", "Begins a transaction"),
    known("object", -2, READ, (2, 2, 1), "generic", "OBJECT ENCODING tells how redis would keep a value"),
    known("persist", 2, QUICK_WRITE, ONE, "generic", "Lets a key live for ever"),
    known("pexpire", -3, QUICK_WRITE, ONE, "generic", "Lets a key end in so many milliseconds"),
    known("pexpireat", -3, QUICK_WRITE, ONE, "generic", "Lets a key end at a millisecond since 1970"),
    known("pexpiretime", 2, QUICK_READ, ONE, "generic", "Tells at which millisecond since 1970 a key ends"),
    known("ping", -1, GREETING, NONE, "connection", "Answers PONG, or the same"),
    known("psetex", 4, MORE, ONE, "string", "Sets a string that ends in so many milliseconds"),
    known("pttl", 2, QUICK_READ, ONE, "generic", "Tells in how many milliseconds a key ends"),
    known("quit", -1, GREETING, NONE, "connection", "Ends the connection"),
    known("randomkey", 1, READ, NONE, "generic", "Tells the name of any key"),
    known("rename", 3, WRITE, TWO, "generic", "Gives a key another name"),
    known("renamenx", 3, QUICK_WRITE, TWO, "generic", "Gives a key a name that nothing has"),
    known("reset", 1, GREETING, NONE, "connection", "Makes the connection like a new one"),
    known("role", 1, QUICK, NONE, "server", "Tells that the server takes writes"),
    known("scan", -2, READ, NONE, "generic", "Tells the names of keys, part by part"),
    known("select", 2, QUICK, NONE, "connection", "Chooses a database"),
    known("set", -3, MORE, ONE, "string", "Sets a string"),
    known("setex", 4, MORE, ONE, "string", "Sets a string that ends in so many seconds"),
    known("setnx", 3, QUICK_MORE, ONE, "string", "Sets a string that is not there"),
    known("setrange", 4, MORE, ONE, "string", "Writes over a part of a string"),
    known("strlen", 2, QUICK_READ, ONE, "string", "Tells the length of a string"),
    known("substr", 4, READ, ONE, "string", "Tells a part of a string"),
    known("time", 1, QUICK, NONE, "server", "Tells the time of this server"),
    known("touch", -2, QUICK_READ, ALL, "generic", "Counts which of the keys are there"),
    known("ttl", 2, QUICK_READ, ONE, "generic", "Tells in how many seconds a key ends"),
    known("type", 2, QUICK_READ, ONE, "generic", "Tells what kind of value a key has"),
    known("unlink", -2, QUICK_WRITE, ALL, "generic", "Removes keys"),
    known("unwatch", 1, IN_MULTI, NONE, "transactions", "Forgets what was watched"),
    known(
        "wait",
        3,
        &["blocking"],
        NONE,
        "generic",
        "Tells how many other servers have all that was written",
    ),
    known("watch", -2, IN_MULTI, ALL, "transactions", "Has the next transaction fail if these keys change"),
];

const fn known(
    name: &'static str,
    arity: i64,
    flags: &'static [&'static str],
    keys: (i64, i64, i64),
    group: &'static str,
    summary: &'static str,
) -> Known {
    Known { name, arity, flags, keys, group, summary }
}

/// The command of this name, in whatever case.
pub fn find(name: &[u8]) -> Option<&'static Known> {
    place(name).map(|at| &COMMANDS[at])
}

/// Where the names begin that have each letter first, and where all end.
const STARTS: [u8; 27] = starts();

const fn starts() -> [u8; 27] {
    let (mut starts, mut letter, mut at) = ([0; 27], 0, 0);
    while letter < starts.len() {
        while at < COMMANDS.len() && ((COMMANDS[at].name.as_bytes()[0] - b'a') as usize) < letter {
            at += 1;
        }
        starts[letter] = at as u8;
        letter += 1;
    }
    starts
}

/// Where in the list the command of this name is, in whatever case.
pub fn place(name: &[u8]) -> Option<usize> {
    let letter = name.first()?.to_ascii_lowercase().checked_sub(b'a').filter(|letter| *letter < 26)?;
    let [from, to] = [0, 1].map(|next| usize::from(STARTS[usize::from(letter) + next]));
    let is =
        |known: &Known| known.name.len() == name.len() && known.name.as_bytes().eq_ignore_ascii_case(name);
    COMMANDS[from..to].iter().position(is).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_in_order() {
        assert!(COMMANDS.is_sorted_by(|one, next| one.name < next.name));
        for known in COMMANDS {
            assert!(std::ptr::eq(find(known.name.to_uppercase().as_bytes()).unwrap(), known));
        }
        for other in [&b"nosuch"[..], b"", b"0", b"{", b"@get", b"get\0", b"zz"] {
            assert!(find(other).is_none(), "{other:?}");
        }
    }
}
