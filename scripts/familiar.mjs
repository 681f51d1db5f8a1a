// What scripts/familiar does by node-redis, ioredis and connect-redis: the arguments are where these are installed, and the ports of
// all nodes. Says "half" when half of it is done, so that a leader can be killed then.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [place, ...ports] = process.argv.slice(2);
const bring = createRequire(pathToFileURL(place + "/"));
const { createClient } = bring("redis");
const { RedisStore } = bring("connect-redis");
const Redis = bring("ioredis");

const NOT_DONE = /^(CLUSTERDOWN|LOADING|BUSY|UNKNOWN)/;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// What was not done, or may have been, is asked for again: all that is done here may be done twice.
async function again(what) {
  for (let turn = 0; ; turn++) {
    try {
      return await what();
    } catch (error) {
      if (turn > 600 || !(NOT_DONE.test(error.message) || error.code || /closed|connection|socket/i.test(error.message))) throw error;
      await pause(100);
    }
  }
}

async function node(port) {
  const client = createClient({ url: `redis://127.0.0.1:${port}` });
  client.on("error", () => {});
  await client.connect();
  return client;
}

// A session store, as web servers keep their users' in it: each worker at a node of its own.
async function sessions() {
  const workers = 6, each = 40;
  let done = 0;
  const work = async (worker) => {
    const client = await node(ports[worker % ports.length]);
    const store = new RedisStore({ client, prefix: "sess:", ttl: 3600 });
    for (let turn = 0; turn < each; turn++) {
      const id = `${worker}-${turn}`;
      const session = { cookie: { originalMaxAge: 60_000 }, user: id, visits: turn };
      await again(() => store.set(id, session));
      assert.deepEqual(await again(() => store.get(id)), session);
      await again(() => store.touch(id, session));
      if (turn % 2 === 1) {
        await again(() => store.destroy(id));
        assert.equal(await again(() => store.get(id)), null);
      }
      if (++done === (workers * each) / 2) console.log("half");
    }
    client.destroy();
  };
  await Promise.all(Array.from({ length: workers }, (_, worker) => work(worker)));
  const client = await node(ports[0]);
  const store = new RedisStore({ client, prefix: "sess:", ttl: 3600 });
  assert.equal(await again(() => store.length()), (workers * each) / 2);
  const all = await again(() => store.all());
  assert.ok(all.every((session) => session.user === session.id && session.visits % 2 === 0));
  assert.ok((await client.ttl(`sess:${all[0].id}`)) > 3000);
  await again(() => store.clear());
  assert.equal(await again(() => store.length()), 0);
  client.destroy();
  console.log(`${workers * each} sessions of connect-redis were kept, read, touched and ended, and none was lost`);
}

// What is usual with node-redis: pipelines that are one transaction, optimistic locking, hashes, scans.
async function usual() {
  const client = await node(ports[0]);
  await client.flushAll();
  assert.deepEqual(await client.multi().set("a", "1").incr("a").get("a").exec(), ["OK", 2, "2"]);
  assert.deepEqual(await Promise.all([client.set("b", "x"), client.append("b", "y"), client.get("b")]), ["OK", 2, "xy"]);
  await client.watch("a");
  const other = await node(ports[1]);
  await other.set("a", "9");
  await assert.rejects(client.multi().set("a", "0").exec());
  assert.equal(await client.hSet("h", { one: "1", two: "2" }), 2);
  assert.deepEqual({ ...(await client.hGetAll("h")) }, { one: "1", two: "2" });
  assert.equal(await client.set("lock", "me", { condition: "NX", expiration: { type: "PX", value: 60_000 } }), "OK");
  assert.equal(await client.set("lock", "you", { condition: "NX" }), null);
  assert.equal(await client.sendCommand(["DELEX", "lock", "IFEQ", "you"]), 0);
  assert.equal(await client.sendCommand(["DELEX", "lock", "IFEQ", "me"]), 1);
  const names = [];
  for await (const some of client.scanIterator({ MATCH: "*", COUNT: 10 })) names.push(...some);
  assert.deepEqual(names.sort(), ["a", "b", "h"]);
  client.destroy();
  other.destroy();
  console.log("what is usual with node-redis holds");
}

// And with ioredis: automatic pipelines, transactions, and what it asks when it connects.
async function ioredis() {
  const client = new Redis({ port: Number(ports[1]), host: "127.0.0.1", enableAutoPipelining: true });
  const many = await Promise.all(Array.from({ length: 50 }, (_, at) => client.set(`io:${at}`, at)));
  assert.ok(many.every((answer) => answer === "OK"));
  assert.deepEqual(await client.mget("io:1", "io:49", "io:50"), ["1", "49", null]);
  assert.deepEqual(await client.multi().incr("n").incr("n").exec(), [[null, 1], [null, 2]]);
  const [[, set], [wrong]] = await client.multi().set("n", "x").incr("n").exec();
  assert.ok(set === "OK" && /not an integer/.test(wrong.message));
  assert.equal(await client.pipeline().hset("io:h", "f", "v").expire("io:h", 100).exec().then((done) => done[1][1]), 1);
  const found = [];
  for await (const some of client.scanStream({ match: "io:*", count: 20 })) found.push(...some);
  assert.equal(new Set(found).size, 51);
  client.disconnect();
  console.log("what is usual with ioredis holds");
}

// The tables of commands that these libraries bring: how many arguments a command has, which of them are keys, whether it writes.
// ioredis cuts keys out of commands by its table; node-redis may send to a replica whatever it takes for a read.
async function tables() {
  const client = new Redis({ port: Number(ports[0]), host: "127.0.0.1" });
  const said = await client.command();
  const [brought, sends] = [bring("@ioredis/commands/built/commands.json"), bring("@redis/client/dist/lib/commands/index.js").default];
  // The server's own; and one of which redis tells by its subcommands, where this one tells which argument is the key.
  const others = ["coracle", "object"];
  let compared = 0;
  for (const [name, arity, flags, first, last, step] of said.filter(([name]) => !others.includes(name))) {
    const known = brought[name];
    assert.ok(known, `ioredis does not know ${name}`);
    const kind = (all) => ["write", "readonly"].map((flag) => all.includes(flag));
    const [ours, theirs] = [[arity, first, last, step], [known.arity, known.keyStart, known.keyStop, known.step]];
    assert.deepEqual([...ours, ...kind(flags)], [...theirs, ...kind(known.flags)], name);
    assert.ok(!(sends[name.toUpperCase()]?.IS_READ_ONLY && flags.includes("write")), `node-redis takes ${name} for a read`);
    compared++;
  }
  assert.ok(compared >= 80, `${compared} commands were compared`);
  client.disconnect();
  console.log(`${compared} commands are what the tables of ioredis and node-redis say`);
}

await tables();
await usual();
await ioredis();
await sessions();
