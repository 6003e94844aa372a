package main

import (
	"context"
	"log"
	"net/http"
	"time"
)

// work carries out orders until ctx ends; the one that it has begun with is finished.
func work(ctx context.Context, cache *client) error {
	log.Print("waiting for orders")
	for ctx.Err() == nil {
		status, what, err := cache.ask(ctx, http.MethodPost, "/take", "")
		if err != nil || status != http.StatusOK {
			select { // The cache is away, or there is nothing to do.
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		log.Printf("carrying out %q", what)
		if _, _, err := cache.ask(context.WithoutCancel(ctx), http.MethodPost, "/done", ""); err != nil {
			log.Printf("%q is done, and nobody could be told: %v", what, err)
		}
	}
	return nil
}
