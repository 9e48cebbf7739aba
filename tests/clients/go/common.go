// What the clients in Go have in common: each is this file and its own.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"sync"
	"time"
)

const (
	workers = 8
	sleep   = "SELECT pg_advisory_xact_lock(7), pg_sleep(30)"
	asleep  = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
)

func keywords() string {
	words := fmt.Sprintf("host=%s port=%s user=%s dbname=%s", os.Getenv("CLIENT_HOST"), os.Getenv("CLIENT_PORT"),
		os.Getenv("CLIENT_USER"), os.Getenv("CLIENT_DATABASE"))
	if password := os.Getenv("CLIENT_PASSWORD"); password != "" {
		words += " password=" + password
	}
	return words
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func say(fields map[string]any) {
	out, err := json.Marshal(fields)
	check(err)
	fmt.Println(string(out))
}

// A step of the scenario: its result, or why it failed.
func report(step string, act func() any) {
	defer func() {
		if failed := recover(); failed != nil {
			log.Print(step, ": ", failed)
			say(map[string]any{"step": step, "failed": fmt.Sprint(failed)})
		}
	}()
	say(map[string]any{"step": step, "result": act()})
}

func megabytes() int {
	number, err := strconv.Atoi(os.Getenv("LARGE_MB"))
	check(err)
	return number
}

// How long the pool keeps a connection; 0 without the recommended settings.
func lifetime() time.Duration {
	if os.Getenv("POOL_SETTINGS") != "recommended" {
		return 0
	}
	seconds, err := strconv.ParseFloat(os.Getenv("POOL_LIFETIME"), 64)
	check(err)
	return time.Duration(seconds * float64(time.Second))
}

// Four at once, five transactions each: how many there were.
func share(transact func() error) int {
	var all sync.WaitGroup
	results := make(chan error, 20)
	for worker := 0; worker < 4; worker++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for n := 0; n < 5; n++ {
				results <- transact()
			}
		}()
	}
	all.Wait()
	close(results)
	worked := 0
	for err := range results {
		check(err)
		worked++
	}
	return worked
}

// Transactions until stdin ends: how many worked, and what the others failed with.
func work(transact func() error) {
	var all sync.WaitGroup
	var lock sync.Mutex
	worked, seen, stop := 0, map[string]int{}, make(chan struct{})
	for number := 1; number <= workers; number++ {
		all.Add(1)
		go func(number int) {
			defer all.Done()
			for step := 1; ; step++ {
				err := transact()
				lock.Lock()
				if err == nil {
					worked++
				} else {
					seen[code(err)]++
				}
				lock.Unlock()
				select {
				case <-stop:
					return
				case <-time.After(time.Duration((number*7+step*3)%10*20) * time.Millisecond):
				}
			}
		}(number)
	}
	fmt.Println("working")
	io.Copy(io.Discard, os.Stdin)
	close(stop)
	all.Wait()
	say(map[string]any{"worked": worked, "errors": seen})
}
