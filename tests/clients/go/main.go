// Go's lib/pq and the pool of database/sql.
package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/lib/pq"
)

var (
	mode = sslmode()
	url  = withMode(os.Getenv("CLIENT_URL"))
)

// lib/pq asks for TLS unless it is told not to.
func sslmode() string {
	if mode := os.Getenv("PGSSLMODE"); mode != "" {
		return mode
	}
	return "disable"
}

// Of a URL that may have one already.
func withMode(url string) string {
	if strings.Contains(url, "?") {
		return url
	}
	return url + "?sslmode=" + mode
}

func open(target string, size int) *sql.DB {
	db, err := sql.Open("postgres", target)
	check(err)
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	return db
}

func tell(step string, act func(db *sql.DB) any) {
	report(step, func() any {
		db := open(url, 1)
		defer db.Close()
		return act(db)
	})
}

func value[T any](db interface {
	QueryRow(string, ...any) *sql.Row
}, query string, values ...any) (one T) {
	check(db.QueryRow(query, values...).Scan(&one))
	return one
}

func run(db interface {
	Exec(string, ...any) (sql.Result, error)
}, queries ...string) {
	for _, query := range queries {
		_, err := db.Exec(query)
		check(err)
	}
}

func code(err error) string {
	var told *pq.Error
	if errors.As(err, &told) {
		return string(told.Code)
	}
	if err == nil {
		return "none"
	}
	return err.Error()
}

func table(db *sql.DB) {
	run(db, "DROP TABLE IF EXISTS things", "CREATE TABLE things (x int PRIMARY KEY)")
}

func who(db *sql.DB) any {
	var user, database string
	check(db.QueryRow("SELECT current_user, current_database()").Scan(&user, &database))
	return []string{user, database}
}

func transaction(db *sql.DB) any {
	table(db)
	tx, err := db.Begin()
	check(err)
	run(tx, "INSERT INTO things VALUES (1)", "SAVEPOINT s", "INSERT INTO things VALUES (2)", "ROLLBACK TO s",
		"INSERT INTO things VALUES (3)")
	check(tx.Commit())
	tx, err = db.Begin()
	check(err)
	run(tx, "INSERT INTO things VALUES (4)")
	check(tx.Rollback())
	var left []int64
	check(db.QueryRow("SELECT array_agg(x ORDER BY x) FROM things").Scan(pq.Array(&left)))
	return left
}

func failures(db *sql.DB) any {
	table(db)
	run(db, "INSERT INTO things VALUES (1)")
	var states []string
	tx, err := db.Begin()
	check(err)
	for _, query := range []string{"SELECT 1/0", "SELECT 1"} {
		_, err := tx.Exec(query)
		states = append(states, code(err))
	}
	check(tx.Rollback())
	for _, query := range []string{"INSERT INTO things VALUES (1)", "SELECT * FROM no_such_table", "SELEKT"} {
		_, err := db.Exec(query)
		states = append(states, code(err))
	}
	return states
}

// Several statements in one message, which lib/pq sends where there are no parameters.
func batch(db *sql.DB) any {
	table(db)
	var inserts strings.Builder
	for n := 1; n <= 100; n++ {
		fmt.Fprintf(&inserts, "INSERT INTO things VALUES (%d);", n)
	}
	run(db, inserts.String())
	return value[int](db, "SELECT sum(x) FROM things")
}

// By SQL: database/sql has no cursors.
func cursor(db *sql.DB) any {
	tx, err := db.Begin()
	check(err)
	defer tx.Rollback()
	run(tx, "DECLARE numbers CURSOR FOR SELECT n FROM generate_series(1, 1000) n")
	for sum := 0; ; {
		rows, err := tx.Query("FETCH 100 FROM numbers")
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

// As text where Go has no type that holds the value.
func types(db *sql.DB) any {
	day, at := time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC), time.Date(2024, 2, 29, 12, 34, 56, 789_000_000, time.UTC)
	sent := []any{true, int64(9223372036854775807), "12345.6789", 1.5, "naïve ☃", []byte{0, 255}, day, at,
		"01234567-89ab-cdef-0123-456789abcdef", `{"a": [1, null]}`, pq.Array([]int64{1, 2, 3}), nil}
	run(db, "SET timezone = 'UTC'")
	line := value[string](db, "SELECT concat_ws('|', $1::bool, $2::int8, $3::numeric, $4::float8, $5::text, $6::bytea, $7::date, "+
		"$8::timestamptz, $9::uuid, $10::jsonb, $11::int4[], coalesce($12::text, ''))", sent...)
	var (
		flag                  bool
		long                  int64
		real                  float64
		exact, text, id, tree string
		raw                   []byte
		date, then            time.Time
		list                  []int64
		none                  *string
	)
	check(db.QueryRow("SELECT $1::bool, $2::int8, $3::numeric, $4::float8, $5::text, $6::bytea, $7::date, $8::timestamptz, "+
		"$9::uuid, $10::jsonb, $11::int4[], $12::text", sent...).
		Scan(&flag, &long, &exact, &real, &text, &raw, &date, &then, &id, &tree, pq.Array(&list), &none))
	back := []any{flag, long, exact, real, text, raw, date.UTC(), then.UTC(), id, tree, pq.Array(list), nil}
	return []any{line, none == nil && reflect.DeepEqual(sent, back)}
}

func large(db *sql.DB) any {
	sent := bytes.Repeat([]byte("\x00\xffleasehold12345"), megabytes()<<20/16)
	var length int
	var back []byte
	check(db.QueryRow("SELECT length(v), v FROM (SELECT $1::bytea AS v) t", sent).Scan(&length, &back))
	return []any{length >> 20, bytes.Equal(sent, back)}
}

// Cancelled by its context, for which lib/pq sends a CancelRequest.
func cancel(db *sql.DB) any {
	other := open(url, 1)
	defer other.Close()
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		for value[int](other, asleep) == 0 {
			time.Sleep(50 * time.Millisecond)
		}
		stop()
	}()
	_, err := db.ExecContext(ctx, sleep)
	// It has to be gone from the server.
	for tries := 0; value[int](other, asleep) != 0; tries++ {
		if tries == 100 {
			panic("it sleeps on")
		}
		time.Sleep(50 * time.Millisecond)
	}
	if errors.Is(err, context.Canceled) {
		return []any{"57014", value[int](db, "SELECT 1")}
	}
	return []any{code(err), value[int](db, "SELECT 1")}
}

func listen(db *sql.DB) any {
	listener := pq.NewListener(url, time.Second, time.Second, nil)
	defer listener.Close()
	check(listener.Listen("news"))
	run(db, "NOTIFY news, 'said'")
	select {
	case note := <-listener.Notify:
		return note.Extra
	case <-time.After(10 * time.Second):
		return nil
	}
}

func copyIn(db *sql.DB) any {
	table(db)
	tx, err := db.Begin()
	check(err)
	statement, err := tx.Prepare(pq.CopyIn("things", "x"))
	check(err)
	for n := 1; n <= 10_000; n++ {
		_, err = statement.Exec(n)
		check(err)
	}
	_, err = statement.Exec()
	check(err)
	check(statement.Close())
	check(tx.Commit())
	// lib/pq has no COPY out.
	return []int{value[int](db, "SELECT count(*) FROM things"), value[int](db, "SELECT sum(x) FROM things")}
}

func transact(db *sql.DB) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err = tx.Exec("SELECT 1"); err != nil {
		return err
	}
	return tx.Commit()
}

func pool(*sql.DB) any {
	db := open(url, 4)
	defer db.Close()
	return share(func() error { return transact(db) })
}

func workOnPool() {
	db := open(url, workers)
	db.SetConnMaxLifetime(lifetime())
	work(func() error { return transact(db) })
}

func main() {
	if len(os.Args) == 2 {
		workOnPool()
		return
	}
	tell("version", func(*sql.DB) any { return "lib/pq 1.10.7, " + os.Getenv("GO_VERSION") })
	tell("url", who)
	tell("keywords", func(*sql.DB) any { return who(open(keywords()+" sslmode="+mode, 1)) })
	tell("identity", func(db *sql.DB) any { return value[string](db, "SELECT identity()") })
	tell("prepared", func(db *sql.DB) any {
		statement, err := db.Prepare("SELECT $1::int * 2")
		check(err)
		var answers [3]int
		for n := range answers {
			check(statement.QueryRow(n + 1).Scan(&answers[n]))
		}
		return answers
	})
	tell("batch", batch)
	tell("transaction", transaction)
	tell("errors", failures)
	tell("large", large)
	tell("copy", copyIn)
	tell("notify", listen)
	tell("cursor", cursor)
	tell("cancel", cancel)
	tell("timeout", func(*sql.DB) any {
		db := open(url+"&statement_timeout=500", 1)
		_, err := db.Exec("SELECT pg_sleep(30)")
		return []any{code(err), value[int](db, "SELECT 1")}
	})
	tell("types", types)
	tell("reconnect", func(db *sql.DB) any {
		_, err := db.Exec("SELECT end_session()")
		return []any{code(err), value[int](db, "SELECT 1")}
	})
	tell("pool", pool)
}
