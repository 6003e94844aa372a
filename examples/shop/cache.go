package main

import (
	"encoding/json"
	"io"
	"net/http"
	"sync"
)

// maxOpen is how many orders may wait.
const maxOpen = 10_000

// cache keeps the orders in memory. A worker that dies with an order loses it: this is an example of roles, not of a queue.
//
//	POST /orders    a new order; the body is what is ordered
//	POST /take      the oldest open order; 204 without one
//	POST /done      an order was carried out
//	GET  /counts    {"open": 1, "done": 2}
//	GET  /healthz   200
type cache struct {
	http.ServeMux
	mu   sync.Mutex
	open []string
	done int
}

type counts struct {
	Open int `json:"open"`
	Done int `json:"done"`
}

func newCache() *cache {
	c := &cache{}
	c.HandleFunc("POST /orders", c.order)
	c.HandleFunc("POST /take", c.take)
	c.HandleFunc("POST /done", c.finish)
	c.HandleFunc("GET /counts", c.count)
	c.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	return c
}

func (c *cache) order(w http.ResponseWriter, r *http.Request) {
	what, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<10))
	if err != nil {
		http.Error(w, "an order has at most 1 KiB", http.StatusRequestEntityTooLarge)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) == maxOpen {
		http.Error(w, "too many orders are open", http.StatusServiceUnavailable)
		return
	}
	c.open = append(c.open, string(what))
	w.WriteHeader(http.StatusCreated)
}

func (c *cache) take(w http.ResponseWriter, _ *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) == 0 {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	what := c.open[0]
	c.open = c.open[1:]
	_, _ = io.WriteString(w, what)
}

func (c *cache) finish(http.ResponseWriter, *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done++
}

func (c *cache) count(w http.ResponseWriter, _ *http.Request) {
	c.mu.Lock()
	now := counts{Open: len(c.open), Done: c.done}
	c.mu.Unlock()
	_ = json.NewEncoder(w).Encode(now)
}
