// Drizzle, over node-postgres' pool.

import { asc, eq, sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import {
  bigint, boolean, customType, date, doublePrecision, integer, jsonb, numeric, pgTable, text, timestamp, uuid,
} from 'drizzle-orm/pg-core'
import * as common from './common.mjs'

const things = pgTable('things', { x: integer('x').primaryKey() })
const bytea = customType({ dataType: () => 'bytea' })
const kinds = pgTable('things', {
  v0: boolean(), v1: bigint({ mode: 'bigint' }), v2: numeric(), v3: doublePrecision(), v4: text(), v5: bytea(), v6: date(),
  v7: timestamp({ withTimezone: true }), v8: uuid(), v9: jsonb(), v10: integer().array(), v11: text(),
})

async function session(act, connection = { connectionString: common.URL }) {
  const db = drizzle({ connection: { max: 4, ...connection } })
  db.$client.on('error', () => {})
  try {
    return await act(db)
  } finally {
    await db.$client.end()
  }
}

const first = async (db, query) => Object.values((await db.execute(query)).rows[0])
const table = db => db.execute('DROP TABLE IF EXISTS things; CREATE TABLE things (x int PRIMARY KEY)')

const steps = {
  version: async () => `drizzle-orm ${common.version('drizzle-orm')}`,
  url: () => session(db => first(db, common.WHO)),
  keywords: () => session(db => first(db, common.WHO), common.keywords),
  identity: () => session(async db => (await first(db, 'SELECT identity()'))[0]),
  prepared: () => session(async db => {
    await table(db)
    await db.insert(things).values([{ x: 2 }, { x: 4 }, { x: 6 }])
    const one = db.select().from(things).where(eq(things.x, sql.placeholder('x'))).prepare('one')
    const answers = []
    for (const n of [1, 2, 3]) answers.push((await one.execute({ x: n * 2 }))[0].x)
    return answers
  }),
  batch: () => session(async db => {
    await table(db)
    await db.insert(things).values(common.range(100).map(x => ({ x })))
    return (await db.select({ sum: sql`sum(x)::int` }).from(things))[0].sum
  }),
  transaction: () => session(async db => {
    await table(db)
    await db.transaction(async tx => {
      await tx.insert(things).values({ x: 1 })
      await tx.transaction(async tx => {
        await tx.insert(things).values({ x: 2 })
        tx.rollback()
      }).catch(() => {})
      await tx.insert(things).values({ x: 3 })
    })
    await db.transaction(async tx => {
      await tx.insert(things).values({ x: 4 })
      tx.rollback()
    }).catch(() => {})
    return (await db.select().from(things).orderBy(asc(things.x))).map(row => row.x)
  }),
  errors: () => session(async db => {
    const states = []
    const state = async (db, query) => states.push(await common.stateOf(() => db.execute(query)))
    await table(db)
    await db.insert(things).values({ x: 1 })
    await db.transaction(async tx => {
      await state(tx, 'SELECT 1/0')
      await state(tx, 'SELECT 1')
      tx.rollback()
    }).catch(() => {})
    for (const query of ['INSERT INTO things VALUES (1)', 'SELECT * FROM no_such_table', 'SELEKT']) await state(db, query)
    return states
  }),
  large: () => session(async db => {
    const sent = 'leasehold'.repeat(common.LARGE / 9 + 1).slice(0, common.LARGE)
    const [length, back] = await first(db, sql`SELECT length(v), v FROM (SELECT ${sent}::text AS v) t`)
    return [length / 1024 / 1024, back === sent]
  }),
  // By SQL: Drizzle has no call for it.
  cursor: () => session(db => db.transaction(async tx => {
    await tx.execute('DECLARE numbers CURSOR FOR SELECT n FROM generate_series(1, 1000) n')
    for (let sum = 0; ;) {
      const { rows } = await tx.execute('FETCH 100 FROM numbers')
      if (rows.length === 0) return sum
      for (const row of rows) sum += row.n
    }
  })),
  timeout: () => session(async db => {
    const state = await common.stateOf(() => db.execute('SELECT pg_sleep(30)'))
    return [state, (await first(db, 'SELECT 1'))[0]]
  }, { connectionString: common.URL, statement_timeout: 500 }),
  types: () => session(async db => {
    await db.execute("SET timezone = 'UTC'")
    await db.execute('DROP TABLE IF EXISTS things')
    const columns = Object.entries(kinds).filter(([name]) => /^v\d/.test(name)).map(([, column]) => `${column.name} ${column.getSQLType()}`)
    await db.execute(`CREATE TABLE things (${columns.join(', ')})`)
    const sent = Object.fromEntries(common.VALUES.map((one, n) => [`v${n}`, one]))
    await db.insert(kinds).values(sent)
    const [line] = await first(db, "SELECT concat_ws('|', v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, coalesce(v11, '')) FROM things")
    const [back] = await db.select().from(kinds)
    return [line, common.plain(back) === common.plain(sent)]
  }, { connectionString: common.URL, max: 1 }),
  reconnect: () => session(async db => {
    const state = await common.stateOf(() => db.execute('SELECT end_session()'))
    return [state, (await first(db, 'SELECT 1'))[0]]
  }),
  pool: () => session(async db => {
    const ones = await Promise.all(common.range(20).map(() => first(db, 'SELECT 1')))
    return ones.reduce((sum, [one]) => sum + one, 0)
  }),
}

async function onPool() {
  const lifetime = common.RECOMMENDED ? { maxLifetimeSeconds: common.LIFETIME } : {}
  const db = drizzle({ connection: { connectionString: common.URL, max: common.WORKERS, ...lifetime } })
  if (common.RECOMMENDED) db.$client.on('error', () => {})
  await common.workOnPool(() => db.transaction(tx => tx.execute('SELECT 1')))
  await db.$client.end()
}

await (process.argv[2] === 'pool' ? onPool() : common.run(steps))
