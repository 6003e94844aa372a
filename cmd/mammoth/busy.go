package main

import (
	"sync"
	"time"
)

// quietTime is the time after which a working command prints that it still works.
const quietTime = 5 * time.Second

// while calls say every d until stop is called. stop waits for a call in progress.
func while(d time.Duration, say func()) (stop func()) {
	ended := make(chan struct{})
	var saying sync.WaitGroup
	saying.Go(func() {
		again := time.NewTicker(d)
		defer again.Stop()
		for {
			select {
			case <-ended:
				return
			case <-again.C:
				say()
			}
		}
	})
	return func() {
		close(ended)
		saying.Wait()
	}
}
