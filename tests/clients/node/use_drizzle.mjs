// Drizzle, over node-postgres' pool.

import { asc, eq, sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import { integer, pgTable } from 'drizzle-orm/pg-core'
import * as common from './common.mjs'

const things = pgTable('things', { x: integer('x').primaryKey() })

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
  reconnect: () => session(async db => {
    const state = await common.stateOf(() => db.execute('SELECT end_session()'))
    return [state, (await first(db, 'SELECT 1'))[0]]
  }),
  pool: () => session(async db => {
    const ones = await Promise.all(common.range(20).map(() => first(db, 'SELECT 1')))
    return ones.reduce((sum, [one]) => sum + one, 0)
  }),
}

await common.run(steps)
