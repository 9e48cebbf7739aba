// A whole app: POST /orders?item=tea&amount=3 takes an order and answers with what all orders come to. It knows
// DATABASE_URL, in which there is no password, and nothing of Vault, leases or tokens. Without leasehold it would need a
// login, a loop that renews two leases, a second pool for each new credential, and a lock around all of them.
//
//    npm install pg && DATABASE_URL=postgresql://app@localhost:6432/myapp node app.mjs
//    curl -X POST 'localhost:8080/orders?item=tea&amount=3'
//
// ADDR is another address than localhost:8080, POOL_LIFETIME another age of connections than 900 seconds.

import { createServer } from 'node:http'
import pg from 'pg'

// Less than a third of the lease's default_ttl: then leasehold has no connection of this pool left to close.
const lifetime = Number(process.env.POOL_LIFETIME ?? 15 * 60)
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 8, maxLifetimeSeconds: lifetime })
// The end of an idle connection. Without a handler it would end the process.
pool.on('error', error => console.error(error.message))

async function place(item, amount) {
  const client = await pool.connect()
  try {
    await client.query('BEGIN')
    const { rows: [order] } = await client.query(
      'INSERT INTO orders (item, amount) VALUES ($1, $2) RETURNING id::int', [item, amount])
    const { rows: [sum] } = await client.query(
      'SELECT sum(amount)::int AS total, session_user::text AS role FROM orders WHERE item = $1', [item])
    await client.query('COMMIT')
    client.release()
    return { ...order, ...sum }  // the role is for those who want to see rotations
  } catch (error) {
    client.release(error)  // and the connection goes: nobody knows what it is in the middle of
    throw error
  }
}

await pool.query(`CREATE TABLE IF NOT EXISTS orders
  (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text NOT NULL, amount bigint NOT NULL)`)
const [, host, port] = (process.env.ADDR ?? 'localhost:8080').match(/^(.*):(\d+)$/)
createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, 'http://app')
  if (request.method !== 'POST' || pathname !== '/orders') return response.writeHead(404).end()
  try {
    response.end(JSON.stringify(await place(searchParams.get('item'), Number(searchParams.get('amount')))))
  } catch (error) {
    response.writeHead(500).end(`${error}`)
  }
}).listen(Number(port), host)
