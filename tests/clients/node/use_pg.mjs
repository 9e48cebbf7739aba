// node-postgres (pg) and its pool.

import { once } from 'node:events'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import pg from 'pg'
import { from, to } from 'pg-copy-streams'
import Cursor from 'pg-cursor'
import * as common from './common.mjs'

async function session(act, config = { connectionString: common.PG_URL }) {
  const client = new pg.Client(config)
  client.on('error', () => {})  // the end of an idle connection; a query that it meets fails by itself
  await client.connect()
  try {
    return await act(client)
  } finally {
    await client.end()
  }
}

const value = async (client, sql, values) => Object.values((await client.query(sql, values)).rows[0])[0]
const table = client => client.query('DROP TABLE IF EXISTS things; CREATE TABLE things (x int PRIMARY KEY)')
const who = async client => Object.values((await client.query(common.WHO)).rows[0])

const steps = {
  version: async () => `pg ${common.version('pg')}`,
  url: () => session(who),
  keywords: () => session(who, common.keywords),
  identity: () => session(client => value(client, 'SELECT identity()')),
  prepared: () => session(async client => {
    const answers = []
    for (const n of [1, 2, 3]) {
      answers.push((await client.query({ name: 'double', text: 'SELECT $1::int * 2 AS n', values: [n] })).rows[0].n)
    }
    return answers
  }),
  batch: () => session(async client => {
    await table(client)
    await Promise.all(common.range(100).map(n => client.query('INSERT INTO things VALUES ($1)', [n])))
    return value(client, 'SELECT sum(x)::int FROM things')
  }),
  transaction: () => session(async client => {
    await table(client)
    for (const sql of ['BEGIN', 'INSERT INTO things VALUES (1)', 'SAVEPOINT s', 'INSERT INTO things VALUES (2)',
      'ROLLBACK TO s', 'INSERT INTO things VALUES (3)', 'COMMIT', 'BEGIN', 'INSERT INTO things VALUES (4)', 'ROLLBACK']) {
      await client.query(sql)
    }
    return value(client, 'SELECT array_agg(x ORDER BY x) FROM things')
  }),
  errors: () => session(async client => {
    const state = sql => common.stateOf(() => client.query(sql))
    await table(client)
    await client.query('INSERT INTO things VALUES (1)')
    await client.query('BEGIN')
    const states = [await state('SELECT 1/0'), await state('SELECT 1')]
    await client.query('ROLLBACK')
    for (const sql of ['INSERT INTO things VALUES (1)', 'SELECT * FROM no_such_table', 'SELEKT']) {
      states.push(await state(sql))
    }
    return states
  }),
  large: () => session(async client => {
    const sent = Buffer.alloc(common.LARGE, '\0leasehold')
    const { rows: [{ length, v }] } = await client.query('SELECT length(v), v FROM (SELECT $1::bytea AS v) t', [sent])
    return [length / 1024 / 1024, sent.equals(v)]
  }),
  copy: () => session(async client => {
    await table(client)
    await pipeline(Readable.from(common.range(10000).map(n => `${n}\n`)), client.query(from('COPY things FROM STDIN')))
    let out = ''
    for await (const piece of client.query(to('COPY things TO STDOUT'))) out += piece
    return [await value(client, 'SELECT count(*)::int FROM things'), out.split('\n').reduce((sum, n) => sum + Number(n), 0)]
  }),
  notify: () => session(listener => session(async other => {
    await listener.query('LISTEN news')
    const note = once(listener, 'notification')
    await other.query("NOTIFY news, 'said'")
    return (await note)[0].payload
  })),
  cursor: () => session(async client => {
    const cursor = client.query(new Cursor('SELECT n FROM generate_series(1, 1000) n'))
    let sum = 0
    for (let rows = await cursor.read(100); rows.length; rows = await cursor.read(100)) {
      for (const row of rows) sum += row.n
    }
    await cursor.close()
    return sum
  }),
  // pg has no call for it; an app asks the server by another session, which needs pg_signal_backend of a role like ours.
  timeout: () => session(async client => {
    const state = await common.stateOf(() => client.query('SELECT pg_sleep(30)'))
    return [state, await value(client, 'SELECT 1')]
  }, { connectionString: common.PG_URL, statement_timeout: 500 }),
  types: () => session(async client => {
    await client.query("SET timezone = 'UTC'")
    const line = await value(client, common.TYPES, common.VALUES)
    const back = Object.values((await client.query(`SELECT ${common.CASTS}`, common.VALUES)).rows[0])
    back[1] = BigInt(back[1])
    back[6] = common.VALUES[6]  // pg makes a Date in local time of it; the server's text is compared above
    return [line, common.plain(back) === common.plain(common.VALUES)]
  }),
  reconnect: async () => {
    const state = await session(client => common.stateOf(() => client.query('SELECT end_session()'))).catch(common.sqlstate)
    return [state, await session(client => value(client, 'SELECT 1'))]
  },
  pool: async () => {
    const pool = new pg.Pool({ connectionString: common.PG_URL, max: 4 })
    const work = async () => {
      let done = 0
      for (let n = 0; n < 5; n++) done += await value(pool, 'SELECT 1')
      return done
    }
    const sums = await Promise.all([work(), work(), work(), work()])
    await pool.end()
    return sums.reduce((left, right) => left + right)
  },
}

async function onPool() {
  const pool = new pg.Pool({
    connectionString: common.PG_URL, max: common.WORKERS,
    ...(common.RECOMMENDED ? { maxLifetimeSeconds: common.LIFETIME } : {}),
  })
  if (common.RECOMMENDED) pool.on('error', () => {})
  await common.workOnPool(async () => {
    const client = await pool.connect()
    let failed
    try {
      await client.query('BEGIN')
      await client.query('SELECT 1')
      await client.query('COMMIT')
    } catch (error) {
      failed = error
      throw error
    } finally {
      client.release(failed)
    }
  })
  await pool.end()
}

await (process.argv[2] === 'pool' ? onPool() : common.run(steps))
