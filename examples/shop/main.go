// Command shop is an app of three roles: a front takes orders, a cache keeps them, and workers carry them out. The front and
// the workers find the cache in the zone's registry, as the service cache.APP.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// version is set at build time with -ldflags "-X main.version=2".
var version = "1"

func main() {
	log.SetOutput(os.Stdout)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "shop:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 1 {
		switch args[0] {
		case "cache":
			return serve(ctx, newCache())
		case "front":
			cache, err := findCache(ctx)
			if err != nil {
				return err
			}
			return serve(ctx, front{cache})
		case "worker":
			cache, err := findCache(ctx)
			if err != nil {
				return err
			}
			return work(ctx, cache)
		}
	}
	return errors.New("say which role it has: front, worker or cache")
}

// serve answers on $PORT until ctx ends, and then what it was asked before.
func serve(ctx context.Context, handler http.Handler) error {
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	server := &http.Server{Addr: ":" + port, Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return server.Shutdown(last)
}
