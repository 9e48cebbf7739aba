// Prisma, over node-postgres' pool by its driver adapter.

import { PrismaPg } from '@prisma/adapter-pg'
import * as common from './common.mjs'
import { PrismaClient } from './prisma/client.js'

async function session(act, config = { connectionString: common.URL }, options = {}) {
  const db = new PrismaClient({ adapter: new PrismaPg({ max: 4, ...config }, options) })
  try {
    return await act(db)
  } finally {
    await db.$disconnect()
  }
}

const first = async (db, query, ...values) => Object.values((await db.$queryRawUnsafe(query, ...values))[0])
const who = db => first(db, 'SELECT current_user::text, current_database()::text')

async function table(db) {
  await db.$executeRawUnsafe('DROP TABLE IF EXISTS things')
  await db.$executeRawUnsafe('CREATE TABLE things (x int PRIMARY KEY)')
}

const steps = {
  version: async () => `Prisma ${common.version('@prisma/client')}`,
  url: () => session(who),
  keywords: () => session(who, common.keywords),
  identity: () => session(async db => (await first(db, 'SELECT identity()'))[0]),
  prepared: () => session(async db => {
    const answers = []
    for (const n of [1, 2, 3]) answers.push((await first(db, 'SELECT $1::int * 2', n))[0])
    return answers
  }, { connectionString: common.URL }, { statementNameGenerator: () => 'double' }),
  batch: () => session(async db => {
    await table(db)
    await db.$transaction(common.range(100).map(x => db.thing.create({ data: { x } })))
    return (await db.thing.aggregate({ _sum: { x: true } }))._sum.x
  }),
  transaction: () => session(async db => {
    await table(db)
    await db.$transaction(async tx => {
      await tx.thing.create({ data: { x: 1 } })
      await tx.$executeRawUnsafe('SAVEPOINT s')
      await tx.thing.create({ data: { x: 2 } })
      await tx.$executeRawUnsafe('ROLLBACK TO s')
      await tx.thing.create({ data: { x: 3 } })
    })
    await db.$transaction(async tx => {
      await tx.thing.create({ data: { x: 4 } })
      throw new Error('roll back')
    }).catch(() => {})
    return (await db.thing.findMany({ orderBy: { x: 'asc' } })).map(row => row.x)
  }),
  errors: () => session(async db => {
    const states = []
    const state = async (db, query) => states.push(await common.stateOf(() => db.$executeRawUnsafe(query)))
    await table(db)
    await db.thing.create({ data: { x: 1 } })
    await db.$transaction(async tx => {
      await state(tx, 'SELECT 1/0')
      await state(tx, 'SELECT 1')
      throw new Error('roll back')
    }).catch(() => {})
    states.push(await common.stateOf(() => db.thing.create({ data: { x: 1 } })))
    for (const query of ['SELECT * FROM no_such_table', 'SELEKT']) await state(db, query)
    return states
  }),
  large: () => session(async db => {
    const sent = 'leasehold'.repeat(common.LARGE / 9 + 1).slice(0, common.LARGE)
    const [length, back] = await first(db, 'SELECT length(v), v FROM (SELECT $1::text AS v) t', sent)
    return [length / 1024 / 1024, back === sent]
  }),
  // By SQL: Prisma has no call for it.
  cursor: () => session(db => db.$transaction(async tx => {
    await tx.$executeRawUnsafe('DECLARE numbers CURSOR FOR SELECT n FROM generate_series(1, 1000) n')
    for (let sum = 0; ;) {
      const rows = await tx.$queryRawUnsafe('FETCH 100 FROM numbers')
      if (rows.length === 0) return sum
      for (const row of rows) sum += row.n
    }
  })),
  timeout: () => session(async db => {
    const state = await common.stateOf(() => db.$executeRawUnsafe('SELECT pg_sleep(30)'))
    return [state, (await first(db, 'SELECT 1'))[0]]
  }, { connectionString: common.URL, statement_timeout: 500 }),
  types: () => session(async db => {
    await db.$executeRawUnsafe("SET timezone = 'UTC'")
    const [line] = await first(db, common.TYPES, ...common.VALUES)
    const back = await first(db, `SELECT ${common.CASTS}`, ...common.VALUES)
    back[2] = `${back[2]}`
    back[5] = Buffer.from(back[5])
    back[6] = back[6].toISOString().slice(0, 10)
    return [line, common.plain(back) === common.plain(common.VALUES)]
  }, { connectionString: common.URL, max: 1 }),
  reconnect: () => session(async db => {
    const state = await common.stateOf(() => db.$executeRawUnsafe('SELECT end_session()'))
    return [state, (await first(db, 'SELECT 1'))[0]]
  }),
  pool: () => session(async db => {
    const ones = await Promise.all(common.range(20).map(() => first(db, 'SELECT 1')))
    return ones.reduce((sum, [one]) => sum + one, 0)
  }),
}

async function onPool() {
  const lifetime = common.RECOMMENDED ? { maxLifetimeSeconds: common.LIFETIME } : {}
  const db = new PrismaClient({ adapter: new PrismaPg({ connectionString: common.URL, max: common.WORKERS, ...lifetime }) })
  await common.workOnPool(() => db.$transaction(tx => tx.$queryRaw`SELECT 1`))
  await db.$disconnect()
}

await (process.argv[2] === 'pool' ? onPool() : common.run(steps))
