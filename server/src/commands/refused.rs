//! Commands of redis that are not here, and why, so that nobody searches for a mistake of his own.

/// What a command of this name is answered, if redis knows it.
pub(super) fn why(name: &[u8]) -> Option<&'static str> {
    let group = GROUPS
        .iter()
        .find(|(names, _)| names.split(' ').any(|known| known.as_bytes().eq_ignore_ascii_case(name)));
    group.map(|(_, why)| *why)
}

/// Names, and what there is to say.
const GROUPS: &[(&str, &str)] = &[
    (
        "lpush rpush lpushx rpushx lpop rpop llen lrange lindex linsert lset lrem ltrim lmove lmpop lpos rpoplpush blpop brpop \
         blmove blmpop brpoplpush",
        "ERR lists are not served here: strings and hashes are (docs/redis.md)",
    ),
    (
        "sadd srem smembers sismember smismember scard spop srandmember smove sinter sinterstore sintercard sunion sunionstore \
         sdiff sdiffstore sscan",
        "ERR sets are not served here: strings and hashes are (docs/redis.md)",
    ),
    (
        "zadd zrem zscore zmscore zincrby zcard zcount zlexcount zrank zrevrank zrange zrangestore zrangebyscore zrevrange \
         zrevrangebyscore zrangebylex zrevrangebylex zremrangebyrank zremrangebyscore zremrangebylex zpopmin zpopmax bzpopmin \
         bzpopmax zmpop bzmpop zunion zunionstore zinter zinterstore zintercard zdiff zdiffstore zscan zrandmember",
        "ERR sorted sets are not served here: strings and hashes are (docs/redis.md)",
    ),
    (
        "xadd xlen xrange xrevrange xread xreadgroup xgroup xack xclaim xautoclaim xpending xinfo xdel xtrim xsetid",
        "ERR streams are not served here: strings and hashes are (docs/redis.md)",
    ),
    (
        "publish subscribe unsubscribe psubscribe punsubscribe ssubscribe sunsubscribe spublish pubsub",
        "ERR publish and subscribe are not served here (docs/redis.md)",
    ),
    (
        "eval evalsha eval_ro evalsha_ro script fcall fcall_ro function",
        "ERR scripts are not served here: MULTI with WATCH does several commands at once, and DELEX key IFEQ value releases a \
         lock that SET key value NX PX time took (docs/redis.md)",
    ),
    (
        "setbit getbit bitcount bitpos bitop bitfield bitfield_ro pfadd pfcount pfmerge geoadd geodist geohash geopos georadius \
         georadiusbymember geosearch geosearchstore lcs sort sort_ro",
        "ERR this command is not served here (docs/redis.md)",
    ),
    (
        "shutdown debug",
        "ERR this is not for clients here: a server stops by SIGTERM, and hands its leadership over before",
    ),
    (
        "cluster readonly readwrite asking",
        "ERR This instance has cluster support disabled: every node serves all keys, and finds the leader by itself",
    ),
    (
        "sentinel failover replicaof slaveof psync sync replconf",
        "ERR there is no master to choose here: every node takes writes, and the cluster elects its leader by itself",
    ),
    (
        "save bgsave bgrewriteaof lastsave",
        "ERR every write is on a majority's disks before it is answered: there is nothing to save; CORACLE SNAPSHOT takes a \
         snapshot",
    ),
    ("dump restore migrate", "ERR values do not leave in redis's format; `coracle backup` makes a backup"),
    ("swapdb", "ERR databases are not exchanged here: MOVE moves a key"),
    (
        "monitor slowlog latency memory module lolwut",
        "ERR this is not kept here; `coracle status` and --admin-addr tell how a node is",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::find;

    #[test]
    fn no_command_is_both_refused_and_served() {
        for (names, why) in GROUPS {
            assert!(why.starts_with("ERR "));
            for name in names.split_whitespace() {
                assert!(find(name.as_bytes()).is_none(), "{name}");
            }
        }
        assert!(why(b"LPush").unwrap().contains("lists"));
        assert!(why(b"get").is_none());
    }
}
