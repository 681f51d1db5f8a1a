//! Random sequences of commands, which redis answers too.

use fastrand::Rng;

/// Words of a command.
pub(crate) type Words = Vec<String>;

/// Strings that are numbers of some kind, or none.
const VALUES: [&str; 12] = [
    "1",
    "-7",
    "0",
    "10.5",
    "0.1",
    "1e2",
    "text",
    "",
    "9223372036854775807",
    " 1",
    "007",
    "a longer text of words",
];

struct Source {
    dice: Rng,
}

/// A sequence; the same for the same seed. It begins with empty databases, and leaves nothing that concerns the
/// connection.
pub(crate) fn sequence(seed: u64, length: usize) -> Vec<Words> {
    let mut source = Source { dice: Rng::with_seed(seed) };
    let mut commands = vec![words("FLUSHALL"), words("SELECT 0")];
    while commands.len() < length {
        match source.dice.usize(..20) {
            0 => source.transaction(&mut commands),
            1 => {
                let command = words(&format!("SELECT {}", source.dice.usize(..3)));
                commands.push(command);
            }
            _ => {
                let command = source.command();
                commands.push(command);
            }
        }
    }
    commands
}

fn words(line: &str) -> Words {
    line.split(' ').map(str::to_owned).collect()
}

impl Source {
    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.dice.usize(..of.len())]
    }

    fn key(&mut self) -> String {
        format!("k{}", self.dice.usize(..5))
    }

    fn value(&mut self) -> String {
        self.one(&VALUES).to_owned()
    }

    /// A number, as a rule.
    fn number(&mut self) -> String {
        self.one(&["1", "-1", "5", "0", "9223372036854775807", "-9223372036854775808", "x", "1.5", "100"])
            .to_owned()
    }

    /// Far away: a test takes less.
    fn seconds(&mut self) -> String {
        self.one(&["1000", "2000", "100000", "0", "-5", "x", "9223372036854775807"]).to_owned()
    }

    /// The same as a time since 1970.
    fn second(&mut self) -> String {
        self.one(&["4000000000", "4000000001", "1", "-5", "x"]).to_owned()
    }

    fn pairs(&mut self, name: fn(&mut Source) -> String) -> Words {
        let count = 1 + self.dice.usize(..3);
        let mut pairs: Words = (0..count).flat_map(|_| [name(self), self.value()]).collect();
        if self.dice.usize(..10) == 0 {
            pairs.pop();
        }
        pairs
    }

    fn several(&mut self, name: fn(&mut Source) -> String) -> Words {
        (0..self.dice.usize(..4)).map(|_| name(self)).collect()
    }

    fn transaction(&mut self, commands: &mut Vec<Words>) {
        if self.dice.bool() {
            commands.push([words("WATCH"), vec![self.key()]].concat());
            match self.dice.usize(..4) {
                0 => commands.push([words("APPEND"), vec![self.key(), "w".to_owned()]].concat()),
                1 | 2 => self.passing(commands),
                _ => {}
            }
        }
        commands.push(words("MULTI"));
        for _ in 0..self.dice.usize(..5) {
            let command = match self.dice.usize(..12) {
                0 => words("PING"),
                1 => words(&format!("SELECT {}", self.dice.usize(..3))),
                2 => words("MULTI"),
                3 => words("WATCH k0"),
                4 if self.dice.bool() => words("NOSUCH command"),
                _ => self.command(),
            };
            commands.push(command);
        }
        commands.push(words(self.one(&["EXEC", "EXEC", "EXEC", "DISCARD"])));
        if self.dice.usize(..4) == 0 {
            commands.push(words(self.one(&["EXEC", "DISCARD", "UNWATCH"])));
        }
    }

    /// A key comes and goes.
    fn passing(&mut self, commands: &mut Vec<Words>) {
        let key = self.key();
        let come =
            self.one(&["SET KEY v", "HSET KEY f v", "SET KEY v EX 1000", "SET KEY v NX", "COPY k1 KEY"]);
        let go = self.one(&[
            "DEL KEY",
            "UNLINK KEY",
            "MOVE KEY 2",
            "RENAME KEY k4",
            "HDEL KEY f",
            "GETDEL KEY",
            "EXPIRE KEY 0",
            "FLUSHDB",
        ]);
        for line in [come, go] {
            commands.push(words(&line.replace("KEY", &key)));
        }
    }

    fn command(&mut self) -> Words {
        match self.dice.usize(..3) {
            0 => self.of_strings(),
            1 => self.of_keys(),
            _ => self.of_hashes(),
        }
    }

    fn set(&mut self) -> Words {
        let mut set = vec!["SET".to_owned(), self.key(), self.value()];
        for _ in 0..self.dice.usize(..3) {
            match self.dice.usize(..7) {
                0 => set.push("NX".to_owned()),
                1 => set.push("xx".to_owned()),
                2 => set.push("GET".to_owned()),
                3 => set.push("KEEPTTL".to_owned()),
                4 => set.extend(["EX".to_owned(), self.seconds()]),
                // Of one that has ended redis still counts the key, until it looks at it.
                5 => set.extend(["PXAT".to_owned(), "4000000000000".to_owned()]),
                _ => set.push(self.one(&["EX", "nonsense", "PX"]).to_owned()),
            }
        }
        set
    }

    fn of_strings(&mut self) -> Words {
        let key = self.key();
        let one = |name: &str, more: &[String]| [vec![name.to_owned(), key.clone()], more.to_vec()].concat();
        match self.dice.usize(..25) {
            0..4 => self.set(),
            4..7 => one("GET", &[]),
            7 => one("APPEND", &[self.value()]),
            8 => one("STRLEN", &[]),
            9 => one(self.one(&["GETRANGE", "SUBSTR"]), &[self.number(), self.number()]),
            10 => one("SETRANGE", &[self.one(&["0", "3", "10", "-1", "x"]).to_owned(), self.value()]),
            11 => one(self.one(&["INCR", "DECR"]), &[]),
            12 | 13 => one(self.one(&["INCRBY", "DECRBY"]), &[self.number()]),
            14 => self.of_fractions("INCRBYFLOAT", "n"),
            15 => one("GETSET", &[self.value()]),
            16 => one("GETDEL", &[]),
            17 => match self.dice.usize(..4) {
                0 => one("GETEX", &[]),
                1 => one("GETEX", &["PERSIST".to_owned()]),
                // A wrong time is told before it is looked whether there is such a key.
                2 => one("GETEX", &["EX".to_owned(), "1000".to_owned()]),
                _ => one("GETEX", &["EXAT".to_owned(), "4000000000".to_owned()]),
            },
            18 => one("SETNX", &[self.value()]),
            19 => one(self.one(&["SETEX", "PSETEX"]), &[self.seconds() + "000", self.value()]),
            20 | 21 => [words("MGET"), self.several(Source::key)].concat(),
            22 => [words("MSET"), self.pairs(Source::key)].concat(),
            23 => [words("MSETNX"), self.pairs(Source::key)].concat(),
            _ => one("GET", &[self.value()]),
        }
    }

    /// On keys of their own: with numbers of 19 digits redis's sums are not exact, and these here are.
    fn of_fractions(&mut self, name: &str, of: &str) -> Words {
        let value = self.one(&["10.5", "0.1", "-0.30", "1e2", "3", "text", "", " 1"]).to_owned();
        match self.dice.usize(..5) {
            0 if of == "n" => vec!["SET".to_owned(), "n".to_owned(), value],
            0 => vec!["HSET".to_owned(), "h".to_owned(), "f".to_owned(), value],
            _ => [words(name), words(of), vec![value]].concat(),
        }
    }

    fn of_keys(&mut self) -> Words {
        let key = self.key();
        let one = |name: &str, more: &[String]| [vec![name.to_owned(), key.clone()], more.to_vec()].concat();
        match self.dice.usize(..20) {
            0 => [words("DEL"), self.several(Source::key)].concat(),
            1 => [words("EXISTS"), self.several(Source::key)].concat(),
            2 => [words(self.one(&["UNLINK", "TOUCH"])), self.several(Source::key)].concat(),
            3 | 4 => {
                let mut expire = one("EXPIRE", &[self.seconds()]);
                // Not GT and LT: the same said a moment later is a little longer.
                let condition = self.one(&["", "", "NX", "XX", "nonsense"]);
                expire.extend(condition.split_whitespace().map(str::to_owned));
                expire
            }
            5 => one("PEXPIRE", &[self.seconds() + "000"]),
            6 => one("EXPIREAT", &[self.second(), self.one(&["NX", "XX", "GT", "LT"]).to_owned()]),
            7 => one("PEXPIREAT", &[self.second() + "000"]),
            8 => one("PERSIST", &[]),
            9 | 10 => one(self.one(&["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"]), &[]),
            11 => one("TYPE", &[]),
            12 => one(self.one(&["RENAME", "RENAMENX"]), &[self.key()]),
            13 => {
                let mut copy = one("COPY", &[self.key()]);
                let more = self.one(&["", "REPLACE", "DB 1", "DB 2 REPLACE", "DB 99", "nonsense"]);
                copy.extend(more.split_whitespace().map(str::to_owned));
                copy
            }
            14 => one("MOVE", &[self.one(&["0", "1", "2", "x"]).to_owned()]),
            15 => words("SCAN 0 COUNT 100"),
            16 => words(self.one(&[
                "SCAN 0 COUNT 100 MATCH k[1-3]",
                "SCAN 0 COUNT 100 TYPE hash",
                "SCAN x",
                "SCAN 0 COUNT 0",
            ])),
            17 => words("DBSIZE"),
            18 if self.dice.usize(..8) == 0 => words("FLUSHDB"),
            18 => words("TTL nosuch"),
            _ => one("EXISTS", &[]),
        }
    }

    fn of_hashes(&mut self) -> Words {
        let key = self.key();
        let one = |name: &str, more: &[String]| [vec![name.to_owned(), key.clone()], more.to_vec()].concat();
        let field = |source: &mut Source| format!("f{}", source.dice.usize(..4));
        match self.dice.usize(..18) {
            0..4 => one("HSET", &self.pairs(field)),
            4 => one("HMSET", &self.pairs(field)),
            5 => one("HSETNX", &[field(self), self.value()]),
            6 | 7 => one("HGET", &[field(self)]),
            8 => one("HMGET", &self.several(field)),
            9 => one("HGETALL", &[]),
            10 => one("HDEL", &self.several(field)),
            11 => one("HLEN", &[]),
            12 => one(self.one(&["HEXISTS", "HSTRLEN"]), &[field(self)]),
            13 => one(self.one(&["HKEYS", "HVALS"]), &[]),
            14 => one("HINCRBY", &[field(self), self.number()]),
            15 => self.of_fractions("HINCRBYFLOAT", "h f"),
            16 => {
                let more = self.one(&["0", "0 MATCH f[12]", "0 COUNT 10", "x"]);
                one("HSCAN", &words(more))
            }
            _ => one("HRANDFIELD", &[self.one(&["0", "100", "x"]).to_owned()]),
        }
    }
}
