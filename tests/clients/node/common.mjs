// What the clients for Node.js share, as ../python/common.py for those in Python.

import { readFileSync } from 'node:fs'

export const URL = process.env.CLIENT_URL
const MODE = process.env.PGSSLMODE  // undefined without TLS
export const keywords = {
  host: process.env.CLIENT_HOST, port: Number(process.env.CLIENT_PORT), user: process.env.CLIENT_USER,
  database: process.env.CLIENT_DATABASE, password: process.env.CLIENT_PASSWORD,  // undefined through leasehold
  ...(MODE ? { ssl: { rejectUnauthorized: MODE.startsWith('verify') } } : {}),
}
/// As pg has it, which verifies unless it is told not to.
export const PG_URL = URL.replace('sslmode=require', 'sslmode=no-verify')
export const LARGE = Number(process.env.LARGE_MB) * 1024 * 1024
export const RECOMMENDED = process.env.POOL_SETTINGS === 'recommended'
export const LIFETIME = Number(process.env.POOL_LIFETIME ?? 900)  // seconds
export const WORKERS = 8
export const WHO = 'SELECT current_user, current_database()'
export const SLEEP = 'SELECT pg_advisory_xact_lock(7), pg_sleep(30)'
export const SLEEPERS = "SELECT count(*)::int AS n FROM pg_locks WHERE locktype = 'advisory' AND granted"
const casts = ['bool', 'int8', 'numeric', 'float8', 'text', 'bytea', 'date', 'timestamptz', 'uuid', 'jsonb', 'int4[]', 'text']
export const CASTS = casts.map((cast, n) => `$${n + 1}::${cast} AS v${n}`).join(', ')
export const TYPES = `SELECT concat_ws('|', ${casts.slice(0, 11).map((cast, n) => `$${n + 1}::${cast}`).join(', ')}, ` +
  `coalesce($12::text, '')) AS line`
// As text where JavaScript has no type that holds the value.
export const VALUES = [true, 2n ** 63n - 1n, '12345.6789', 1.5, 'naïve ☃', Buffer.from([0, 255]), '2024-02-29',
  new Date('2024-02-29T12:34:56.789Z'), '01234567-89ab-cdef-0123-456789abcdef', { a: [1, null] }, [1, 2, 3], null]
/// For a comparison.
export const plain = list => JSON.stringify(list, (_, one) => typeof one === 'bigint' ? `${one}` : one)
export const range = count => Array.from({ length: count }, (_, n) => n + 1)
export const pause = millis => new Promise(resolve => setTimeout(resolve, millis))
const PAUSE = 200  // milliseconds, the longest

/// Of a package that lies beside this file.
export function version(name) {
  return JSON.parse(readFileSync(new globalThis.URL(`node_modules/${name}/package.json`, import.meta.url))).version
}

export async function run(steps) {
  for (const [step, act] of Object.entries(steps)) {
    try {
      console.log(JSON.stringify({ step, result: await act() }))
    } catch (error) {
      console.error(step, error)
      console.log(JSON.stringify({ step, failed: `${error}`.slice(0, 300) }))
    }
  }
}

/// The SQLSTATE of an error, or its kind and text. drizzle has the driver's error as the cause of its own, Prisma behind its codes.
export function sqlstate(error) {
  const code = error.meta?.driverAdapterError?.cause?.originalCode ?? error.code ?? error.cause?.code
  return code ? `${code}` : `${error}`
}

export async function stateOf(act) {
  try {
    await act()
    return null
  } catch (error) {
    return sqlstate(error)
  }
}

/// `CLIENT pool`: WORKERS tasks that call `transact()` until the standard input ends; then what they have seen.
export async function workOnPool(transact) {
  let stop = false
  const seen = { worked: 0, errors: {} }
  const ended = new Promise(resolve => process.stdin.resume().on('end', resolve)).then(() => { stop = true })
  console.log('working')
  await Promise.all(range(WORKERS).map(async number => {
    for (let step = 1; !stop; step++) {
      try {
        await transact()
        seen.worked++
      } catch (error) {
        const code = sqlstate(error)
        seen.errors[code] = (seen.errors[code] ?? 0) + 1
      }
      await pause(PAUSE * ((number * 7 + step * 3) % 10) / 10)
    }
  }))
  await ended
  console.log(JSON.stringify(seen))
}
