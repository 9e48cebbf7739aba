// A whole app: POST /orders?item=tea&amount=3 takes an order and answers with what all orders come to. It knows
// DATABASE_URL, in which there is no password, and nothing of Vault, leases or tokens. Without leasehold it would need a
// login, a loop that renews two leases, a second pool for each new credential, and a lock around all of them.
//
//	go mod init app && go get github.com/lib/pq && DATABASE_URL='postgresql://app@localhost:6432/myapp?sslmode=disable' go run .
//	curl -X POST 'localhost:8080/orders?item=tea&amount=3'
//
// ADDR is another address than localhost:8080, POOL_LIFETIME another age of connections than 15m.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"time"

	_ "github.com/lib/pq" // asks for TLS unless the URL says sslmode=disable
)

type order struct {
	ID    int64  `json:"id"`
	Total int64  `json:"total"`
	Role  string `json:"role"` // for those who want to see rotations
}

func main() {
	db, err := sql.Open("postgres", os.Getenv("DATABASE_URL"))
	check(err)
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(8)
	// Less than a third of the lease's default_ttl: then no connection of this pool is left for leasehold to close.
	lifetime, err := time.ParseDuration(or(os.Getenv("POOL_LIFETIME"), "15m"))
	check(err)
	db.SetConnMaxLifetime(lifetime)
	_, err = db.Exec(`CREATE TABLE IF NOT EXISTS orders
		(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text NOT NULL, amount bigint NOT NULL)`)
	check(err)

	http.HandleFunc("/orders", func(w http.ResponseWriter, r *http.Request) {
		placed, err := place(r.Context(), db, r.FormValue("item"), r.FormValue("amount"))
		if err != nil {
			log.Print(err)
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		json.NewEncoder(w).Encode(placed)
	})
	check(http.ListenAndServe(or(os.Getenv("ADDR"), "localhost:8080"), nil))
}

func place(ctx context.Context, db *sql.DB, item, amount string) (placed order, err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return placed, err
	}
	defer tx.Rollback()
	err = tx.QueryRow(`INSERT INTO orders (item, amount) VALUES ($1, $2) RETURNING id`, item, amount).Scan(&placed.ID)
	if err != nil {
		return placed, err
	}
	err = tx.QueryRow(`SELECT sum(amount), session_user FROM orders WHERE item = $1`, item).Scan(&placed.Total, &placed.Role)
	if err != nil {
		return placed, err
	}
	return placed, tx.Commit()
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
