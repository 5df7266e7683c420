//! The few things that a server must do in one step. None of them is on the way of a hit. Each names all its keys, and
//! all keys of one call lie in one slot: Dragonfly and clusters ask for both.

use std::sync::LazyLock;

use redis::{Cmd, cmd};

/// One script and its name.
#[derive(Debug)]
pub(super) struct Script {
    text: &'static str,
    digest: String,
}

impl Script {
    fn new(text: &'static str) -> Self {
        Self { text, digest: redis::Script::new(text).get_hash().to_owned() }
    }

    /// For a server that has it already.
    pub(super) fn by_name(&self, keys: &[&str], arguments: &[&[u8]]) -> Cmd {
        invocation("EVALSHA", &self.digest, keys, arguments)
    }

    /// For a server that has not; it has it afterwards.
    pub(super) fn in_full(&self, keys: &[&str], arguments: &[&[u8]]) -> Cmd {
        invocation("EVAL", self.text, keys, arguments)
    }
}

fn invocation(name: &str, script: &str, keys: &[&str], arguments: &[&[u8]]) -> Cmd {
    let mut command = cmd(name);
    command.arg(script).arg(keys.len());
    for key in keys {
        command.arg(*key);
    }
    for argument in arguments {
        command.arg(*argument);
    }
    command
}

/// Keys: value, lease. Arguments: token, lease in ms, whether anything was seen (`1`), what was seen.
/// Answers `{1}` granted, `{0}` held, `{2, value}` present. A lease is its token; whoever waits for it adds a `w`.
pub(super) static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local value = redis.call('GET', KEYS[1])
if value and (ARGV[3] ~= '1' or value ~= ARGV[4]) then return {2, value} end
local lease = redis.call('GET', KEYS[2])
if lease then
  if #lease == #ARGV[1] then redis.call('APPEND', KEYS[2], 'w') end
  return {0}
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return {1}",
    )
});

/// Keys: value, lease. Arguments: token, value, its life in ms, channel, message. Answers 1 when it was stored.
/// Stores first: a server that is full refuses a script's first write only, and then nothing has been changed.
pub(super) static FILL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local lease = redis.call('GET', KEYS[2])
if not lease or string.sub(lease, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('DEL', KEYS[2])
if #lease > #ARGV[1] then redis.call('PUBLISH', ARGV[4], ARGV[5]) end
return 1",
    )
});

/// Keys: leases. Arguments: token, lease in ms. Takes each, whoever holds it; those who wait for one stay known.
pub(super) static SEIZE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "for _, name in ipairs(KEYS) do
  local lease = redis.call('GET', name)
  local waiters = ''
  if lease and #lease > #ARGV[1] then waiters = 'w' end
  redis.call('SET', name, ARGV[1] .. waiters, 'PX', ARGV[2])
end
return #KEYS",
    )
});

/// Keys: value and lease of each entry. Arguments: token, channel; then value, its life in ms and message of each entry.
/// Stores what still has its lease; answers how many. Where it has not, the old value goes: the lease may have ended by itself or
/// been evicted, and who holds another may have been given up, or be long over and have come late, and never write.
pub(super) static WRITE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local stored = 0
for i = 1, #KEYS, 2 do
  local at = 3 + (i - 1) / 2 * 3
  local lease = redis.call('GET', KEYS[i + 1])
  if lease and string.sub(lease, 1, #ARGV[1]) == ARGV[1] then
    redis.call('SET', KEYS[i], ARGV[at], 'PX', ARGV[at + 1])
    redis.call('DEL', KEYS[i + 1])
    if #lease > #ARGV[1] then redis.call('PUBLISH', ARGV[2], ARGV[at + 2]) end
    stored = stored + 1
  else
    redis.call('DEL', KEYS[i])
  end
end
return stored",
    )
});

/// Keys: lease. Arguments: token, channel, message.
pub(super) static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local lease = redis.call('GET', KEYS[1])
if not lease or string.sub(lease, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
if #lease > #ARGV[1] then redis.call('PUBLISH', ARGV[2], ARGV[3]) end
return 1",
    )
});

/// Keys: value. Arguments: what was seen, what replaces it, its life in ms.
pub(super) static REPLACE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1",
    )
});

/// Keys: value. Arguments: whether something is expected (`1`), what; whether something replaces it (`1`), what; its
/// life in ms.
pub(super) static SWAP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local value = redis.call('GET', KEYS[1])
if ARGV[1] == '1' then
  if value ~= ARGV[2] then return 0 end
elseif value then
  return 0
end
if ARGV[3] == '1' then
  redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
elseif value then
  redis.call('DEL', KEYS[1])
end
return 1",
    )
});

/// Keys: the record of epochs. Arguments: which run of the server this is, a fresh incarnation, channel, message; then
/// the numbers of the slots to raise, perhaps none. Answers the whole record.
///
/// A record that another run wrote may have come back from a snapshot, in which raises are missing: it is begun anew,
/// under an incarnation that no entry was ever stamped with. So is what somebody else has put in its place.
pub(super) static RAISE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', KEYS[1]) end
local known = redis.call('HMGET', KEYS[1], 'run', 'incarnation', 'version')
local changed = #ARGV > 4
if known[1] ~= ARGV[1] or not tonumber(known[2]) or not tonumber(known[3]) then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'run', ARGV[1], 'incarnation', ARGV[2], 'version', '1')
  changed = true
end
if #ARGV > 4 then
  redis.call('HINCRBY', KEYS[1], 'version', 1)
  for i = 5, #ARGV do redis.call('HINCRBY', KEYS[1], ARGV[i], 1) end
end
if changed then redis.call('PUBLISH', ARGV[3], ARGV[4]) end
return redis.call('HGETALL', KEYS[1])",
    )
});
