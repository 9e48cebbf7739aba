// pgx 4 and its pool, pgxpool: the protocol in Go, with nothing of database/sql.
package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"reflect"
	"strconv"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgtype"
	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

var (
	url = os.Getenv("CLIENT_URL")
	ctx = context.Background()
)

func connect(target string) *pgx.Conn {
	conn, err := pgx.Connect(ctx, target)
	check(err)
	return conn
}

func tell(step string, act func(conn *pgx.Conn) any) {
	report(step, func() any {
		conn := connect(url)
		defer conn.Close(ctx)
		return act(conn)
	})
}

func value[T any](conn *pgx.Conn, query string, values ...any) (one T) {
	check(conn.QueryRow(ctx, query, values...).Scan(&one))
	return one
}

func run(at interface {
	Exec(context.Context, string, ...any) (pgconn.CommandTag, error)
}, queries ...string) {
	for _, query := range queries {
		_, err := at.Exec(ctx, query)
		check(err)
	}
}

func code(err error) string {
	var told *pgconn.PgError
	if errors.As(err, &told) {
		return told.Code
	}
	if err == nil {
		return "none"
	}
	return err.Error()
}

func table(conn *pgx.Conn) {
	run(conn, "DROP TABLE IF EXISTS things", "CREATE TABLE things (x int PRIMARY KEY)")
}

func who(conn *pgx.Conn) any {
	var user, database string
	check(conn.QueryRow(ctx, "SELECT current_user, current_database()").Scan(&user, &database))
	return []string{user, database}
}

func prepared(conn *pgx.Conn) any {
	_, err := conn.Prepare(ctx, "double", "SELECT $1::int * 2")
	check(err)
	var answers [3]int
	for n := range answers {
		answers[n] = value[int](conn, "double", n+1)
	}
	return answers
}

// One pipeline.
func batch(conn *pgx.Conn) any {
	table(conn)
	inserts := &pgx.Batch{}
	for n := 1; n <= 100; n++ {
		inserts.Queue("INSERT INTO things VALUES ($1)", n)
	}
	check(conn.SendBatch(ctx, inserts).Close())
	return value[int](conn, "SELECT sum(x) FROM things")
}

// A transaction in a transaction is a savepoint.
func transaction(conn *pgx.Conn) any {
	table(conn)
	tx, err := conn.Begin(ctx)
	check(err)
	run(tx, "INSERT INTO things VALUES (1)")
	inner, err := tx.Begin(ctx)
	check(err)
	run(inner, "INSERT INTO things VALUES (2)")
	check(inner.Rollback(ctx))
	run(tx, "INSERT INTO things VALUES (3)")
	check(tx.Commit(ctx))
	tx, err = conn.Begin(ctx)
	check(err)
	run(tx, "INSERT INTO things VALUES (4)")
	check(tx.Rollback(ctx))
	return value[[]int64](conn, "SELECT array_agg(x ORDER BY x) FROM things")
}

func failures(conn *pgx.Conn) any {
	table(conn)
	run(conn, "INSERT INTO things VALUES (1)")
	var states []string
	tx, err := conn.Begin(ctx)
	check(err)
	for _, query := range []string{"SELECT 1/0", "SELECT 1"} {
		_, err := tx.Exec(ctx, query)
		states = append(states, code(err))
	}
	check(tx.Rollback(ctx))
	for _, query := range []string{"INSERT INTO things VALUES (1)", "SELECT * FROM no_such_table", "SELEKT"} {
		_, err := conn.Exec(ctx, query)
		states = append(states, code(err))
	}
	return states
}

func large(conn *pgx.Conn) any {
	sent := bytes.Repeat([]byte("\x00\xffleasehold12345"), megabytes()<<20/16)
	var length int
	var back []byte
	check(conn.QueryRow(ctx, "SELECT length(v), v FROM (SELECT $1::bytea AS v) t", sent).Scan(&length, &back))
	return []any{length >> 20, bytes.Equal(sent, back)}
}

// In by the binary format, out as text.
func copyBoth(conn *pgx.Conn) any {
	table(conn)
	rows := make([][]any, 10_000)
	for n := range rows {
		rows[n] = []any{n + 1}
	}
	count, err := conn.CopyFrom(ctx, pgx.Identifier{"things"}, []string{"x"}, pgx.CopyFromRows(rows))
	check(err)
	var out bytes.Buffer
	_, err = conn.PgConn().CopyTo(ctx, &out, "COPY things TO STDOUT")
	check(err)
	sum := 0
	for _, line := range bytes.Fields(out.Bytes()) {
		x, err := strconv.Atoi(string(line))
		check(err)
		sum += x
	}
	return []any{count, sum}
}

func listen(conn *pgx.Conn) any {
	run(conn, "LISTEN news")
	other := connect(url)
	defer other.Close(ctx)
	run(other, "NOTIFY news, 'said'")
	soon, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	note, err := conn.WaitForNotification(soon)
	check(err)
	return note.Payload
}

// By SQL: pgx has no call for it.
func cursor(conn *pgx.Conn) any {
	tx, err := conn.Begin(ctx)
	check(err)
	defer tx.Rollback(ctx)
	run(tx, "DECLARE numbers CURSOR FOR SELECT n FROM generate_series(1, 1000) n")
	for sum := 0; ; {
		rows, err := tx.Query(ctx, "FETCH 100 FROM numbers")
		check(err)
		some := false
		for ; rows.Next(); some = true {
			var n int
			check(rows.Scan(&n))
			sum += n
		}
		check(rows.Err())
		if !some {
			return sum
		}
	}
}

// By a CancelRequest: a context that ends would end the connection too.
func cancel(conn *pgx.Conn) any {
	other := connect(url)
	defer other.Close(ctx)
	asked := make(chan error)
	go func() {
		for value[int](other, asleep) == 0 {
			time.Sleep(50 * time.Millisecond)
		}
		asked <- conn.PgConn().CancelRequest(ctx)
	}()
	_, err := conn.Exec(ctx, sleep)
	check(<-asked)
	return []any{code(err), value[int](conn, "SELECT 1")}
}

func timeout(*pgx.Conn) any {
	config, err := pgx.ParseConfig(url)
	check(err)
	config.RuntimeParams["statement_timeout"] = "500"
	conn, err := pgx.ConnectConfig(ctx, config)
	check(err)
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, "SELECT pg_sleep(30)")
	return []any{code(err), value[int](conn, "SELECT 1")}
}

// In the binary format where pgx has one, which is for all but the two texts and jsonb.
func types(conn *pgx.Conn) any {
	number := pgtype.Numeric{}
	check(number.Set("12345.6789"))
	day, at := time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC), time.Date(2024, 2, 29, 12, 34, 56, 789_000_000, time.UTC)
	sent := []any{true, int64(9223372036854775807), &number, 1.5, "naïve ☃", []byte{0, 255}, day, at,
		"01234567-89ab-cdef-0123-456789abcdef", map[string]any{"a": []any{1.0, nil}}, []int32{1, 2, 3}, nil}
	run(conn, "SET timezone = 'UTC'")
	line := value[string](conn, "SELECT concat_ws('|', $1::bool, $2::int8, $3::numeric, $4::float8, $5::text, $6::bytea, $7::date, "+
		"$8::timestamptz, $9::uuid, $10::jsonb, $11::int4[], coalesce($12::text, ''))", sent...)
	var (
		flag  bool
		long  int64
		exact pgtype.Numeric
		real  float64
		text  string
		raw   []byte
		date  time.Time
		then  time.Time
		id    string
		tree  map[string]any
		list  []int32
		none  *string
	)
	check(conn.QueryRow(ctx, "SELECT $1::bool, $2::int8, $3::numeric, $4::float8, $5::text, $6::bytea, $7::date, $8::timestamptz, "+
		"$9::uuid, $10::jsonb, $11::int4[], $12::text", sent...).
		Scan(&flag, &long, &exact, &real, &text, &raw, &date, &then, &id, &tree, &list, &none))
	back := []any{flag, long, &exact, real, text, raw, date.UTC(), then.UTC(), id, tree, list, nil}
	return []any{line, none == nil && reflect.DeepEqual(sent, back)}
}

func transact(pool *pgxpool.Pool) error {
	return pool.BeginFunc(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "SELECT 1")
		return err
	})
}

func open(size int32, lifetime time.Duration) *pgxpool.Pool {
	config, err := pgxpool.ParseConfig(url)
	check(err)
	config.MaxConns = size
	if lifetime != 0 {
		config.MaxConnLifetime = lifetime
		config.BeforeAcquire = func(ctx context.Context, conn *pgx.Conn) bool { return conn.Ping(ctx) == nil }
	}
	pool, err := pgxpool.ConnectConfig(ctx, config)
	check(err)
	return pool
}

func pool(*pgx.Conn) any {
	pool := open(4, 0)
	defer pool.Close()
	return share(func() error { return transact(pool) })
}

func workOnPool() {
	pool := open(workers, lifetime())
	work(func() error { return transact(pool) })
}

func main() {
	if len(os.Args) == 2 {
		workOnPool()
		return
	}
	tell("version", func(*pgx.Conn) any { return "pgx 4.15.0, " + os.Getenv("GO_VERSION") })
	tell("url", who)
	tell("keywords", func(*pgx.Conn) any { return who(connect(keywords())) })
	tell("identity", func(conn *pgx.Conn) any { return value[string](conn, "SELECT identity()") })
	tell("prepared", prepared)
	tell("batch", batch)
	tell("transaction", transaction)
	tell("errors", failures)
	tell("large", large)
	tell("copy", copyBoth)
	tell("notify", listen)
	tell("cursor", cursor)
	tell("cancel", cancel)
	tell("timeout", timeout)
	tell("types", types)
	tell("reconnect", func(conn *pgx.Conn) any {
		_, err := conn.Exec(ctx, "SELECT end_session()")
		other := connect(url)
		defer other.Close(ctx)
		return []any{code(err), value[int](other, "SELECT 1")}
	})
	tell("pool", pool)
}
