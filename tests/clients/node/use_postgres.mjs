// postgres.js, which is a pool by itself.

import { once } from 'node:events'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import postgres from 'postgres'
import * as common from './common.mjs'

const quiet = { onnotice: () => {} }

async function session(act, options = {}) {
  const sql = postgres(common.URL, { max: 1, ...quiet, ...options })
  try {
    return await act(sql)
  } finally {
    await sql.end({ timeout: 5 })
  }
}

const table = sql => sql.unsafe('DROP TABLE IF EXISTS things; CREATE TABLE things (x int PRIMARY KEY)')
const who = async sql => Object.values((await sql.unsafe(common.WHO))[0])
const value = async (sql, text, values) => Object.values((await sql.unsafe(text, values))[0])[0]

const steps = {
  version: async () => {
    return `postgres.js ${common.version('postgres')}`
  },
  url: () => session(who),
  keywords: async () => {
    const sql = postgres({ ...common.keywords, max: 1 })
    try {
      return await who(sql)
    } finally {
      await sql.end()
    }
  },
  identity: () => session(sql => value(sql, 'SELECT identity()')),
  prepared: () => session(async sql => {
    const answers = []
    for (const n of [1, 2, 3]) answers.push((await sql`SELECT ${n}::int * 2 AS n`)[0].n)
    return answers
  }),
  batch: () => session(async sql => {
    await table(sql)
    await Promise.all(common.range(100).map(n => sql`INSERT INTO things VALUES (${n})`))  // pipelined by itself
    return value(sql, 'SELECT sum(x)::int FROM things')
  }),
  transaction: () => session(async sql => {
    const undo = new Error('undo')
    await table(sql)
    await sql.begin(async sql => {
      await sql`INSERT INTO things VALUES (1)`
      await sql.savepoint(async sql => {
        await sql`INSERT INTO things VALUES (2)`
        throw undo
      }).catch(() => {})
      await sql`INSERT INTO things VALUES (3)`
    })
    await sql.begin(async sql => {
      await sql`INSERT INTO things VALUES (4)`
      throw undo
    }).catch(() => {})
    return value(sql, 'SELECT array_agg(x ORDER BY x) FROM things')
  }),
  errors: () => session(async sql => {
    const state = text => common.stateOf(() => sql.unsafe(text))
    await table(sql)
    await sql`INSERT INTO things VALUES (1)`
    const states = []
    await sql.begin(async sql => {
      for (const text of ['SELECT 1/0', 'SELECT 1']) states.push(await common.stateOf(() => sql.unsafe(text)))
    }).catch(() => {})
    for (const text of ['INSERT INTO things VALUES (1)', 'SELECT * FROM no_such_table', 'SELEKT']) {
      states.push(await state(text))
    }
    return states
  }),
  large: () => session(async sql => {
    const sent = Buffer.alloc(common.LARGE, '\0leasehold')
    const [{ length, v }] = await sql`SELECT length(v), v FROM (SELECT ${sent}::bytea AS v) t`
    return [length / 1024 / 1024, sent.equals(v)]
  }),
  copy: () => session(async sql => {
    await table(sql)
    await pipeline(Readable.from(common.range(10000).map(n => `${n}\n`)), await sql`COPY things FROM STDIN`.writable())
    let out = ''
    const pieces = await sql`COPY things TO STDOUT`.readable()
    pieces.on('data', piece => { out += piece })
    await once(pieces, 'close')
    return [await value(sql, 'SELECT count(*)::int FROM things'), out.split('\n').reduce((sum, n) => sum + Number(n), 0)]
  }),
  notify: () => session(async sql => {
    const payload = new Promise(resolve => sql.listen('news', resolve, () => sql.notify('news', 'said')))
    return payload
  }),
  cursor: () => session(async sql => {
    let sum = 0
    await sql`SELECT n FROM generate_series(1, 1000) n`.cursor(100, rows => rows.forEach(row => { sum += row.n }))
    return sum
  }),
  cancel: () => session(sql => session(async other => {
    const sleeping = sql.unsafe(common.SLEEP)
    const state = common.stateOf(() => sleeping)
    while (await value(other, common.SLEEPERS) === 0) await common.pause(50)
    sleeping.cancel()
    return [await state, await value(sql, 'SELECT 1')]
  })),
  timeout: () => session(async sql => {
    const state = await common.stateOf(() => sql`SELECT pg_sleep(30)`)
    return [state, await value(sql, 'SELECT 1')]
  }, { connection: { statement_timeout: 500 } }),
  types: () => session(async sql => {
    await sql`SELECT 1`  // it asks for the types of arrays with its first query
    const [bool, int8, numeric, float8, text, bytea, date, at, uuid, json, array, none] =
      [true, '9223372036854775807', '12345.6789', 1.5, 'naïve ☃', Buffer.from([0, 255]), '2024-02-29',
        new Date('2024-02-29T12:34:56.789Z'), '01234567-89ab-cdef-0123-456789abcdef', { a: [1, null] }, [1, 2, 3], null]
    const [{ line }] = await sql`SELECT concat_ws('|', ${bool}::bool, ${int8}::int8, ${numeric}::numeric, ${float8}::float8,
      ${text}::text, ${bytea}::bytea, ${date}::text::date, ${at}::timestamptz, ${uuid}::uuid, ${sql.json(json)}::jsonb,
      ${sql.array(array)}::int4[], coalesce(${none}::text, '')) AS line`
    const [back] = await sql`SELECT ${bool}::bool AS bool, ${int8}::int8 AS int8, ${numeric}::numeric AS numeric,
      ${float8}::float8 AS float8, ${text}::text AS text, ${bytea}::bytea AS bytea, ${at}::timestamptz AS at,
      ${uuid}::uuid AS uuid, ${sql.json(json)}::jsonb AS json, ${sql.array(array)}::int4[] AS array, ${none}::text AS none`
    return [line, JSON.stringify(back) === JSON.stringify({ bool, int8, numeric, float8, text, bytea, at, uuid, json, array, none })]
  }, { connection: { TimeZone: 'UTC' } }),
  reconnect: async () => {
    const state = await session(sql => common.stateOf(() => sql`SELECT end_session()`))
    return [state, await session(sql => value(sql, 'SELECT 1'))]
  },
  pool: () => session(async sql => {
    const ones = await Promise.all(common.range(20).map(() => value(sql, 'SELECT 1')))
    return ones.reduce((left, right) => left + right)
  }, { max: 4 }),
}

async function onPool() {
  // Without a word a connection lives 30 to 60 minutes.
  const settings = common.RECOMMENDED ? { max_lifetime: common.LIFETIME } : {}
  const sql = postgres(common.URL, { max: common.WORKERS, ...quiet, ...settings })
  await common.workOnPool(() => sql.begin(async sql => {
    await sql`SELECT 1`
  }))
  await sql.end({ timeout: 5 })
}

await (process.argv[2] === 'pool' ? onPool() : common.run(steps))
