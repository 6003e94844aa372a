package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// pause is how long a worker keeps a number before it passes it on.
	pause = 50 * time.Millisecond
	// silence is after how long without a number the first worker begins anew.
	silence = 2 * time.Second
)

// work runs a worker: it passes each number that it is given on to the next worker of the ring, increased by one.
//
//	POST /NUMBER    a number
//	GET  /          the last number
func work() error {
	var last atomic.Int64
	heard := make(chan int64, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{number}", func(_ http.ResponseWriter, r *http.Request) {
		if number, err := strconv.ParseInt(r.PathValue("number"), 10, 64); err == nil {
			last.Store(number)
			heard <- number
		}
	})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, last.Load()) })
	go func() {
		for {
			number := int64(0)
			select {
			case number = <-heard:
			case <-time.After(silence):
				if ring, err := workers(); err != nil || len(ring) == 0 || ring[0].ID != os.Getenv("RING_WORKER") {
					continue // the first worker of the ring begins
				}
			}
			time.Sleep(pause)
			pass(number + 1)
		}
	}()
	return http.ListenAndServe(":"+os.Getenv("PORT"), mux)
}

// worker is an endpoint of the ring, as the registry has it.
type worker struct {
	ID      string `json:"id"`
	Address string `json:"address"`
	Port    int    `json:"port"`
}

// workers are those of the ring, in its order.
func workers() ([]worker, error) {
	answer, err := http.Get(os.Getenv("MAMMOTH_REGISTRY") + "/v1/registry/services/" + os.Getenv("RING"))
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	var service struct {
		Endpoints []worker `json:"endpoints"`
	}
	err = json.NewDecoder(answer.Body).Decode(&service)
	slices.SortFunc(service.Endpoints, func(a, b worker) int { return strings.Compare(a.ID, b.ID) })
	return service.Endpoints, err
}

// pass gives the next worker a number. One that is lost is replaced after a while.
func pass(number int64) {
	ring, err := workers()
	if err != nil || len(ring) == 0 {
		return
	}
	at := slices.IndexFunc(ring, func(w worker) bool { return w.ID == os.Getenv("RING_WORKER") })
	next := ring[(at+1)%len(ring)]
	answer, err := http.Post(fmt.Sprintf("http://%s:%d/%d", next.Address, next.Port, number), "text/plain", nil)
	if err == nil {
		_ = answer.Body.Close()
	}
}
