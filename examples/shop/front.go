package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
)

// front answers people and asks the cache.
type front struct{ cache *client }

func (f front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method + " " + r.URL.Path {
	case "GET /healthz":
	case "GET /":
		_, text, err := f.cache.ask(r.Context(), http.MethodGet, "/counts", "")
		var now counts
		if err == nil {
			err = json.Unmarshal([]byte(text), &now)
		}
		if err != nil {
			http.Error(w, "the cache does not answer: "+err.Error(), http.StatusBadGateway)
			return
		}
		fmt.Fprintf(w, "%s\nversion: %s\nopen: %d\ndone: %d\n", cmp.Or(os.Getenv("GREETING"), "shop"), version, now.Open, now.Done)
	case "POST /orders":
		what, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<10))
		if err != nil {
			http.Error(w, "an order has at most 1 KiB", http.StatusRequestEntityTooLarge)
			return
		}
		status, text, err := f.cache.ask(r.Context(), http.MethodPost, "/orders", string(what))
		if err != nil {
			http.Error(w, "the cache does not answer: "+err.Error(), http.StatusBadGateway)
			return
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	default:
		http.NotFound(w, r)
	}
}
