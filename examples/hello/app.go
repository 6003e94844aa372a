package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"sync/atomic"
)

// newApp is the app's face: who it is, its health, and its appetites.
func newApp() http.Handler {
	var sick atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		host, err := os.Hostname()
		if err != nil {
			host = err.Error()
		}
		fmt.Fprintf(w, "app: %s\ninstance: %s\nversion: %s\nhostname: %s\n",
			os.Getenv("MAMMOTH_APP"), os.Getenv("MAMMOTH_INSTANCE"), version, host)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if sick.Load() {
			http.Error(w, "sick", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /sick", func(w http.ResponseWriter, _ *http.Request) {
		sick.Store(true)
		fmt.Fprintln(w, "sick from now on")
	})
	mux.HandleFunc("GET /well", func(w http.ResponseWriter, _ *http.Request) {
		sick.Store(false)
		fmt.Fprintln(w, "well again")
	})
	mux.HandleFunc("GET /registry", askRegistry)
	mux.HandleFunc("GET /burn/cpu", func(w http.ResponseWriter, r *http.Request) {
		answer(w, burn("cpu", r.FormValue("seconds"), ""))
	})
	mux.HandleFunc("GET /burn/memory", func(w http.ResponseWriter, r *http.Request) {
		answer(w, burn("memory", r.FormValue("mib"), ""))
	})
	mux.HandleFunc("GET /burn/disk", func(w http.ResponseWriter, r *http.Request) {
		answer(w, burn("disk", r.FormValue("mib"), r.FormValue("path")))
	})
	mux.HandleFunc("GET /fork", func(w http.ResponseWriter, r *http.Request) {
		n, err := count(r.FormValue("n"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		started, err := fork(n)
		fmt.Fprintf(w, "started %d of %d processes\n", started, n)
		if err != nil {
			fmt.Fprintln(w, err)
		}
	})
	return mux
}

func answer(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintln(w, "done")
}

// logged prints one line a request.
func logged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(seen, r)
		log.Printf("%s %s %d", r.Method, r.URL.RequestURI(), seen.status)
	})
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}
